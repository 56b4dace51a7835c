//! Packets on disk: pcapng written and read, a sample of a run's frames, and the engines that work on files.
//!
//! Formats: pcapng as in draft-ietf-opsawg-pcapng, classic pcap as in draft-ietf-opsawg-pcap. The few blocks that are
//! needed are written and read here: what comes in is hostile, and each of its lengths is looked at before it is used.

mod disk;
mod pcapng;
mod reader;
mod rebuilt;
mod sample;
mod target;

use std::net::IpAddr;

pub use disk::{DiskConfig, DiskNetwork};
pub use pcapng::{Direction, Packet, Writer};
pub use reader::{Captured, End, Reader};
pub use sample::{MOST_PER_TARGET, Sample, SampleConfig, SampleEnd, SampleSide, SampledInterface};

/// Link type of frames with an Ethernet header.
pub const LINK_ETHERNET: u16 = 1;
/// Link type of packets that begin with their IP header.
pub const LINK_RAW: u16 = 101;
/// Bytes of an Ethernet header without a tag.
const ETHERNET_HEADER: usize = 14;

/// In a line of a section's comment: the addresses that probes come from.
const SOURCE_WORDS: &str = "probes come from ";
/// In another: what was added to the monotonic clock, by which round-trip times are told, for the times
/// of its packets. Between these words is the number of nanoseconds.
const CLOCK_WORDS: (&str, &str) = ("CLOCK_MONOTONIC + ", " ns");

/// What a replay has to know of a run, as lines of a section's comment.
fn words(sources: &[IpAddr], utc_minus_mono: i64) -> String {
    let sources: Vec<String> = sources.iter().map(IpAddr::to_string).collect();
    let (before, after) = CLOCK_WORDS;
    format!("{SOURCE_WORDS}{}\ntimes are {before}{utc_minus_mono}{after}", sources.join(", "))
}
