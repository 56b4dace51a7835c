//! What a filter is told, and what it counts: shared by the program in the kernel and its twin in Rust.

use std::collections::BTreeMap;
use std::net::IpAddr;

use irl_wire::cookie::Key;
use irl_wire::probe::{AnswerClass, PortRange, Protocol};

/// The most owners one filter can serve at a time; owner numbers lie below it.
pub const MAX_OWNERS: u16 = 256;
/// The most addresses of ours on one interface.
pub const MAX_ADDRESSES: usize = 65_536;
/// The most answer classes of one owner.
pub const MAX_CLASSES: usize = 32;
/// The most match rules of one owner, over all of its classes.
pub const MAX_RULES: usize = 64;
/// The filter looks at a frame's first bytes, this many: match rules reach no further, and a transport checksum is
/// verified where the segment ends within them, else flagged [`UNCHECKED`](crate::record::flags::UNCHECKED).
pub const HEAD_LEN: usize = 512;
/// A ring buffer for one owner when nothing else is asked for: about 300,000 compact records.
pub const DEFAULT_RING_BYTES: usize = 16 << 20;

/// How an address of ours relates to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// Ours alone: everything sent to it is diverted, or dropped and counted. The kernel never sees it.
    Spare,
    /// The host's own: only what answers us in the owners' port ranges is diverted, the rest is the host's.
    Host,
}

/// One address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub address: IpAddr,
    /// Whether the host has it too.
    pub kind: AddressKind,
}

/// What a filter knows before the first owner registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterConfig {
    /// Our addresses on this interface, each once.
    pub addresses: Vec<OwnAddress>,
}

/// Which frames an owner accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accept {
    /// Those that carry the cookie where the protocol's answers carry it (design decision 4), or whose match rules
    /// hold when the owner has answer classes.
    #[default]
    Cookie,
    /// Whatever arrives in its port range, TCP and UDP alike; and on spare addresses also whatever no other owner
    /// has a claim to. For `Stack.receive` and capture. At most one such owner takes the unclaimed: the lowest.
    Any,
}

/// When an owner gets the whole frame instead of a compact record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Frames {
    /// Never, except where an answer class matched (then always).
    #[default]
    Never,
    /// Where the compact record would lose something that a dialogue needs: TCP or UDP payload, SACK blocks.
    Payload,
    /// Always.
    Always,
}

/// One owner: a share of the source ports, the cookie that its answers carry, and a ring buffer of its own.
///
/// A port belongs to the owner with `port % modulus == residue` inside `ports`; for ICMP the echo identifier takes
/// the port's place, over all 65,536 values. Owner 0 (or the lowest registered) also gets ARP, neighbour discovery
/// and fragments.
#[derive(Clone, Debug)]
pub struct OwnerConfig {
    /// The number records carry; below [`MAX_OWNERS`].
    pub owner: u16,
    /// The protocol of its probes.
    pub protocol: Protocol,
    /// The source ports of the whole measurement, of which this owner has its share.
    pub ports: PortRange,
    /// How many owners share `ports`; 0 for an owner that has none of them and gets neighbour frames and fragments
    /// alone.
    pub modulus: u16,
    /// This owner's remainder, below `modulus`.
    pub residue: u16,
    /// The cookie's key.
    pub key: Key,
    /// Probes a target: a UDP answer's port must fit one of them.
    pub probes: u16,
    /// The most bytes of sequence space we may have used after the SYN, FIN included: a TCP segment is ours when
    /// `ack - 1 - cookie.seq() <= max_data`. 0 for a scan. Above 0, segments without ACK (a bare RST) are handed
    /// over too, without the COOKIE flag.
    pub max_data: u32,
    /// What it accepts.
    pub accept: Accept,
    /// When it wants whole frames.
    pub frames: Frames,
    /// Match rules that decide instead of the built-in cookie check; empty for the built-in probes.
    pub classes: Vec<AnswerClass>,
    /// Size of its ring buffer; rounded up to a power of two, at least a page. See [`DEFAULT_RING_BYTES`].
    pub ring_bytes: usize,
}

impl OwnerConfig {
    /// The only owner of `ports`, for a scan with one probe a target and a built-in cookie check.
    pub fn new(owner: u16, protocol: Protocol, ports: PortRange, key: Key) -> Self {
        Self {
            owner,
            protocol,
            ports,
            modulus: 1,
            residue: 0,
            key,
            probes: 1,
            max_data: 0,
            accept: Accept::Cookie,
            frames: Frames::Never,
            classes: Vec::new(),
            ring_bytes: DEFAULT_RING_BYTES,
        }
    }
}

/// What became of a frame that was not simply the host's. Every such frame is counted under exactly one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Handed to an owner as an answer (also one whose checksum is wrong: user space counts those invalid).
    Delivered = 0,
    /// ARP or neighbour discovery that concerns us, handed over.
    Neighbour = 1,
    /// An IP fragment to a spare address, handed over.
    Fragment = 2,
    /// In the port range of a host address, not ours, and a socket of the host wants it: passed.
    HostSocket = 3,
    /// To us, on a port (or echo identifier) that no owner has: dropped.
    NoOwner = 4,
    /// An owner has the port, but cookie or match rules do not hold: dropped.
    BadCookie = 5,
    /// TCP without ACK to an owner that sends no data: nothing to check the cookie against, dropped.
    NoAcknowledgement = 6,
    /// Headers are cut short or contradict themselves: dropped.
    Malformed = 7,
    /// A protocol that no probe uses, to a spare address: dropped.
    ForeignProtocol = 8,
    /// ICMP to a spare address that neither answers nor quotes us: dropped.
    ForeignIcmp = 9,
    /// A first fragment into the port range of a host address, with no socket behind: dropped, so that the kernel
    /// does not answer for us once it has the rest.
    HostFragment = 10,
    /// The owner's ring buffer was full: lost.
    RingFull = 11,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Delivered,
        Self::Neighbour,
        Self::Fragment,
        Self::HostSocket,
        Self::NoOwner,
        Self::BadCookie,
        Self::NoAcknowledgement,
        Self::Malformed,
        Self::ForeignProtocol,
        Self::ForeignIcmp,
        Self::HostFragment,
        Self::RingFull,
    ];

    /// The name under which metadata and status show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Neighbour => "neighbour",
            Self::Fragment => "fragment",
            Self::HostSocket => "host_socket",
            Self::NoOwner => "no_owner",
            Self::BadCookie => "bad_cookie",
            Self::NoAcknowledgement => "no_acknowledgement",
            Self::Malformed => "malformed",
            Self::ForeignProtocol => "foreign_protocol",
            Self::ForeignIcmp => "foreign_icmp",
            Self::HostFragment => "host_fragment",
            Self::RingFull => "ring_full",
        }
    }

    /// Whether the frame was taken away without reaching an owner.
    pub fn is_drop(self) -> bool {
        !matches!(self, Self::Delivered | Self::Neighbour | Self::Fragment | Self::HostSocket)
    }
}

/// The filter's counters since it was attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterCounters {
    counts: [u64; Reason::ALL.len()],
    /// Records lost because an owner's ring was full, by owner; owners without loss are left out.
    pub overruns: BTreeMap<u16, u64>,
}

impl FilterCounters {
    /// How many frames met this end.
    pub fn get(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    /// Counts one frame.
    pub fn count(&mut self, reason: Reason) {
        self.add(reason, 1);
    }

    /// Adds `frames` to a counter.
    pub fn add(&mut self, reason: Reason, frames: u64) {
        self.counts[reason as usize] += frames;
    }

    /// Names and counts, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Reason::ALL.iter().map(|reason| (reason.name(), self.get(*reason)))
    }

    /// Frames taken away without reaching an owner.
    pub fn dropped(&self) -> u64 {
        Reason::ALL.iter().filter(|reason| reason.is_drop()).map(|reason| self.get(*reason)).sum()
    }
}
