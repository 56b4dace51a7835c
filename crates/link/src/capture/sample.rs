//! A sample of a run's frames: all those to, and from, a share of its targets.
//!
//! A keyed hash gives each target a number, and a frame is kept while its target's number is below a threshold. Where the
//! next frame finds no room, the threshold is halved, and what is no longer below it goes. What is left in the end are so
//! all frames of one in 2^k targets, wherever in the run they came: k is told. Frames sent and answers received have each
//! a threshold of their own, but the same numbers: of the two shares the smaller lies inside the larger, so that of a
//! target whose probe is there its answers are too, as long as answers are the fewer.
//!
//! Memory is bounded by [`SampleConfig::size`] frames a direction. Once the threshold has come down, a frame costs a hash
//! and a comparison; without a sample it costs nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use irl_wire::Mac;

use super::pcapng::{Direction, Packet, Writer};
use super::{ETHERNET_HEADER, LINK_ETHERNET, LINK_RAW, rebuilt, target};
use crate::clock::now_ns;
use crate::error::LinkError;
use crate::record::{Kind, Record};

/// So many frames of one target are kept a direction; the rest are counted. One that repeats itself for ever must not take
/// the places of all others.
pub const MOST_PER_TARGET: u32 = 16;

/// One of the interfaces of a run, as its frames look.
#[derive(Clone, Debug)]
pub struct SampledInterface {
    /// Its name.
    pub name: String,
    /// Our MAC on it.
    pub ours: Mac,
    /// The gateway's, where there is one for all targets.
    pub gateway: Option<Mac>,
    /// The tag that frames carry.
    pub vlan: Option<u16>,
    /// Whether it is without Ethernet.
    pub ip_layer: bool,
}

/// What a sample is told.
#[derive(Clone, Debug)]
pub struct SampleConfig {
    /// Where it is written.
    pub path: PathBuf,
    /// The most frames of either direction.
    pub size: usize,
    /// Chooses the targets: the same for the same seed.
    pub seed: u64,
    /// The interfaces, in the order of their numbers.
    pub interfaces: Vec<SampledInterface>,
    /// The addresses that probes come from.
    pub sources: Vec<IpAddr>,
    /// What is added to the monotonic clock for UTC.
    pub utc_minus_mono: i64,
}

/// A sample in the making, shared by all workers of a run.
#[derive(Debug)]
pub struct Sample {
    config: SampleConfig,
    key: u64,
    sent: Side,
    received: Side,
    /// Until it is written.
    file: Mutex<Option<File>>,
    end: Mutex<Option<SampleEnd>>,
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleEnd {
    /// Frames that left.
    pub sent: SampleSide,
    /// Answers that came.
    pub received: SampleSide,
}

/// One direction of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleSide {
    /// Frames in it.
    pub frames: u64,
    /// They are all frames of one in so many targets; a power of two.
    pub one_in: u128,
    /// Those of targets that had [`MOST_PER_TARGET`] already.
    pub left_out: u64,
}

#[derive(Debug)]
struct Side {
    /// The largest number of a target whose frames are kept. Read for every frame, and changed a few dozen times.
    threshold: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    frames: Vec<Frame>,
    of_target: HashMap<u64, u32>,
    left_out: u64,
}

#[derive(Debug)]
struct Frame {
    number: u64,
    interface: u32,
    /// Monotonic.
    time_ns: u64,
    bytes: Vec<u8>,
    length: u32,
    comment: Option<&'static str>,
}

impl Sample {
    /// A sample whose file is made now, before anything is sent.
    ///
    /// # Errors
    /// [`LinkError::Os`] when the file cannot be made, [`LinkError::Config`] for a size of 0.
    pub fn new(config: SampleConfig) -> Result<Self, LinkError> {
        if config.size == 0 {
            return Err(LinkError::config("a sample of 0 frames is none: give 1 or more (--capture-sample-size)"));
        }
        let name = config.path.display();
        let file = File::create(&config.path).map_err(|source| LinkError::os(format!("writing {name}"), source))?;
        let side = || Side { threshold: AtomicU64::new(u64::MAX), kept: Mutex::default() };
        Ok(Self {
            key: mixed(config.seed),
            config,
            sent: side(),
            received: side(),
            file: Mutex::new(Some(file)),
            end: Mutex::default(),
        })
    }

    /// Looks at a frame that is committed to leave.
    #[inline]
    pub fn sent(&self, frame: &[u8], interface: u32) {
        let Some(target) = target::of_frame(frame, Direction::Outbound) else { return };
        let number = self.number(target);
        if number <= self.sent.threshold.load(Ordering::Relaxed) {
            self.sent.keep(number, self.config.size, || Frame {
                number,
                interface,
                time_ns: now_ns(),
                bytes: frame.to_vec(),
                length: frame.len() as u32,
                comment: None,
            });
        }
    }

    /// Looks at a record of something that was received and is no neighbour's.
    #[inline]
    pub fn received(&self, record: &Record<'_>, interface: u32) {
        let Some(target) = target::of_record(record) else { return };
        let number = self.number(target);
        if number <= self.received.threshold.load(Ordering::Relaxed)
            && let Some((bytes, length, comment)) = self.frame(record, interface)
        {
            let time_ns = record.time_ns;
            let frame = || Frame { number, interface, time_ns, bytes, length, comment };
            self.received.keep(number, self.config.size, frame);
        }
    }

    /// The frame that a record is, or was.
    #[cold]
    fn frame(&self, record: &Record<'_>, interface: u32) -> Option<(Vec<u8>, u32, Option<&'static str>)> {
        if record.kind == Kind::Frame {
            return Some((record.body.to_vec(), record.body.len() as u32, None));
        }
        let interface = self.config.interfaces.get(interface as usize)?;
        let (bytes, length) = rebuilt::frame(record, interface)?;
        Some((bytes, length, Some(rebuilt::comment(record))))
    }

    /// A target's number: the same in both directions.
    #[inline]
    fn number(&self, (address, port): target::Target) -> u64 {
        let low = mixed(address as u64 ^ self.key);
        mixed(low ^ (address >> 64) as u64 ^ u64::from(port).rotate_left(48))
    }

    /// Writes what was kept, in the order of time; `about` says what run it is of. Once: later calls do nothing.
    ///
    /// # Errors
    /// [`LinkError::Os`] when the file cannot be written.
    pub fn write(&self, program: &str, about: &str) -> Result<(), LinkError> {
        let Some(file) = lock(&self.file).take() else { return Ok(()) };
        let (sent, received) = (self.sent.taken(), self.received.taken());
        let end = SampleEnd { sent: self.sent.told(&sent), received: self.received.told(&received) };
        *lock(&self.end) = Some(end);
        self.pour(io::BufWriter::new(file), program, about, &sent, &received, end)
            .map_err(|source| LinkError::os(format!("writing {}", self.config.path.display()), source))
    }

    fn pour(
        &self,
        out: impl Write,
        program: &str,
        about: &str,
        sent: &Kept,
        received: &Kept,
        end: SampleEnd,
    ) -> io::Result<()> {
        let words =
            |side: SampleSide, what: &str| format!("{} {what}, all of 1 in {} targets", side.frames, side.one_in);
        let comment = format!(
            "{about}\na sample: {}; {}; at most {MOST_PER_TARGET} of a target, {} and {} more left out\n{}",
            words(end.sent, "frames sent"),
            words(end.received, "answers received"),
            end.sent.left_out,
            end.received.left_out,
            super::words(&self.config.sources, self.config.utc_minus_mono)
        );
        let mut writer = Writer::new(out, program, &comment)?;
        for interface in &self.config.interfaces {
            writer.interface(&interface.name, if interface.ip_layer { LINK_RAW } else { LINK_ETHERNET })?;
        }
        let mut all: Vec<_> = sent.frames.iter().map(|frame| (frame, Direction::Outbound)).collect();
        all.extend(received.frames.iter().map(|frame| (frame, Direction::Inbound)));
        all.sort_by_key(|(frame, _)| frame.time_ns);
        writer.packets(all.into_iter().map(|(frame, direction)| {
            let bare = self.config.interfaces.get(frame.interface as usize).is_some_and(|interface| interface.ip_layer);
            let cut = if bare { ETHERNET_HEADER.min(frame.bytes.len()) } else { 0 };
            Packet {
                interface: frame.interface,
                time_ns: frame.time_ns.wrapping_add_signed(self.config.utc_minus_mono),
                bytes: &frame.bytes[cut..],
                length: frame.length - cut as u32,
                direction,
                comment: frame.comment,
            }
        }))
    }

    /// What became of it; `None` until it is written.
    pub fn end(&self) -> Option<SampleEnd> {
        *lock(&self.end)
    }

    /// What it was told.
    pub fn config(&self) -> &SampleConfig {
        &self.config
    }
}

impl Side {
    /// Keeps a frame, unless its target has enough or has gone meanwhile.
    #[cold]
    fn keep(&self, number: u64, size: usize, frame: impl FnOnce() -> Frame) {
        let mut kept = lock(&self.kept);
        let mut threshold = self.threshold.load(Ordering::Relaxed);
        if number > threshold {
            return;
        }
        let of_target = kept.of_target.entry(number).or_default();
        if *of_target == MOST_PER_TARGET {
            kept.left_out += 1;
            return;
        }
        *of_target += 1;
        kept.frames.push(frame());
        while kept.frames.len() > size && threshold > 0 {
            threshold >>= 1;
            kept.frames.retain(|frame| frame.number <= threshold);
            kept.of_target.retain(|number, _| *number <= threshold);
        }
        self.threshold.store(threshold, Ordering::Relaxed);
    }

    fn taken(&self) -> Kept {
        std::mem::take(&mut lock(&self.kept))
    }

    fn told(&self, kept: &Kept) -> SampleSide {
        SampleSide {
            frames: kept.frames.len() as u64,
            one_in: 1 << self.threshold.load(Ordering::Relaxed).leading_zeros(),
            left_out: kept.left_out,
        }
    }
}

/// The finaliser of SplitMix64: each bit of the outcome depends on each of the value's.
#[inline]
fn mixed(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
