//! How SYNs leave without this project: the usual ways, each as a fair user of that interface would go it.
//!
//! All of them send the same frames, 54 bytes to ever new destinations, from the calling thread. They exist to be compared
//! with; nothing else uses them.

mod packet;
mod pcap;
mod raw;
mod ring;
mod syn;

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use irl_link::LinkError;
use irl_link::netdev::Interface;
use irl_wire::Mac;

pub use pcap::version as pcap_version;
use syn::Syns;

/// A way to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// `sendto` on a raw IP socket: the kernel routes, and adds the Ethernet header.
    Raw,
    /// `pcap_sendpacket` of libpcap, which is loaded when it is asked for.
    Pcap,
    /// `send` on a packet socket, past the queueing discipline.
    Packet,
    /// The same with `sendmmsg`, 256 frames a call.
    PacketBatch,
    /// A packet socket's mapped transmit ring (TPACKET_V2), past the queueing discipline.
    PacketRing,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Pcap, Self::Packet, Self::PacketBatch, Self::PacketRing];

    /// What the benchmarks call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw socket",
            Self::Pcap => "pcap_sendpacket",
            Self::Packet => "AF_PACKET send",
            Self::PacketBatch => "AF_PACKET sendmmsg",
            Self::PacketRing => "AF_PACKET TX_RING",
        }
    }
}

impl FromStr for Baseline {
    type Err = LinkError;

    fn from_str(name: &str) -> Result<Self, LinkError> {
        Self::ALL.into_iter().find(|each| each.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            LinkError::config(format!("there is no baseline {name:?}; there are {names}"))
        })
    }
}

/// What is sent, and from where.
#[derive(Clone, Debug)]
pub struct Job {
    /// The interface, of the calling thread's namespace.
    pub interface: String,
    /// Who gets the frames.
    pub gateway: Mac,
    /// Our address.
    pub source: Ipv4Addr,
    /// Stop after so many.
    pub frames: u64,
}

/// Sends until all frames were taken or `stop` is set, and returns how many the interface took.
///
/// # Errors
/// [`LinkError::Privilege`], [`LinkError::UnknownInterface`], [`LinkError::Unsupported`] without libpcap,
/// [`LinkError::Os`].
pub fn send(baseline: Baseline, job: &Job, stop: &AtomicBool) -> Result<u64, LinkError> {
    let interface = Interface::by_name(&job.interface)?;
    let syns = Syns::new(interface.mac, job.gateway, job.source);
    let left = Left { frames: job.frames, stop };
    match baseline {
        Baseline::Raw => raw::send(&interface, syns, left),
        Baseline::Pcap => pcap::send(&interface, syns, left),
        Baseline::Packet => packet::send_each(&interface, syns, left),
        Baseline::PacketBatch => packet::send_batches(&interface, syns, left),
        Baseline::PacketRing => ring::send(&interface, syns, left),
    }
}

/// How many frames are still to be sent.
struct Left<'a> {
    frames: u64,
    stop: &'a AtomicBool,
}

impl Left<'_> {
    /// How many of the next `most` frames.
    #[inline]
    fn next(&mut self, most: u64) -> u64 {
        if self.stop.load(Ordering::Relaxed) {
            return 0;
        }
        let now = most.min(self.frames);
        self.frames -= now;
        now
    }

    /// Whether somebody said stop.
    #[inline]
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Whether an error only says that a queue is full, so that the frame is offered again.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR))
}
