//! How SYNs leave, and connections are made, without this project: the usual ways, each as a fair user of that interface
//! would go it.
//!
//! Senders send the same frames, 54 bytes to ever new destinations, from the calling thread; [`sockets`] makes connections
//! to the same destinations. They exist to be compared
//! with; nothing else uses them. No policy judges their frames, so they send in a lab's network namespace and nowhere else.

mod packet;
mod pcap;
mod raw;
mod ring;
pub mod sockets;
mod syn;

use std::io;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use irl_link::LinkError;
use irl_link::netdev::{Interface, Namespace};
use irl_link::policy::lab_of_namespace;
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
/// [`LinkError::Config`] outside a lab's network namespace, [`LinkError::Privilege`], [`LinkError::UnknownInterface`],
/// [`LinkError::Unsupported`] without libpcap, [`LinkError::Os`].
pub fn send(baseline: Baseline, job: &Job, stop: &AtomicBool) -> Result<u64, LinkError> {
    only_in_a_lab()?;
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

/// Refuses in a network namespace that is not a lab's.
fn only_in_a_lab() -> Result<(), LinkError> {
    match lab_of_namespace(Namespace::current()?.inode()) {
        Some(_) => Ok(()),
        None => Err(LinkError::config("a baseline sends in a network namespace of a lab only, and this is none")),
    }
}

/// How many frames, or connections, are still to be sent or made.
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

/// Makes a system call until it takes something: when a queue is full, again, unless somebody said stop.
///
/// Returns what it took; `None` after a stop.
fn until_taken(left: &Left<'_>, what: &str, mut call: impl FnMut() -> isize) -> Result<Option<u64>, LinkError> {
    loop {
        let taken = call();
        if taken >= 0 {
            return Ok(Some(taken as u64));
        }
        let error = io::Error::last_os_error();
        if !is_full(&error) {
            return Err(LinkError::os(what, error));
        }
        if left.stopped() {
            return Ok(None);
        }
    }
}

/// Whether an error only says that a queue is full, so that the frame is offered again.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name_and_another_name_is_told_those_there_are() {
        for each in Baseline::ALL {
            assert_eq!(each.name().parse::<Baseline>().unwrap(), each);
        }
        let said = "carrier pigeon".parse::<Baseline>().unwrap_err().to_string();
        assert!(Baseline::ALL.iter().all(|each| said.contains(each.name())), "{said}");
    }

    #[test]
    fn exactly_as_many_frames_are_handed_out_as_were_asked_for() {
        let stop = AtomicBool::new(false);
        let mut left = Left { frames: 600, stop: &stop };
        assert_eq!([left.next(256), left.next(256), left.next(256), left.next(256)], [256, 256, 88, 0]);
    }

    #[test]
    fn none_is_handed_out_after_a_stop() {
        let stop = AtomicBool::new(false);
        let mut left = Left { frames: 600, stop: &stop };
        assert_eq!(left.next(1), 1);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(left.next(1), 0);
    }

    #[test]
    fn outside_a_lab_nothing_is_sent() {
        let job = Job { interface: "lo".into(), gateway: Mac([0; 6]), source: Ipv4Addr::LOCALHOST, frames: 1 };
        for each in Baseline::ALL {
            let refused = send(each, &job, &AtomicBool::new(false)).unwrap_err();
            assert!(refused.to_string().contains("of a lab only"), "{refused}");
        }
    }
}
