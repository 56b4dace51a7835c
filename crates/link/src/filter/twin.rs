//! The filter in safe Rust: the decisions of `bpf/filter.bpf.c`, step by step.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use irl_wire::cookie::Cookie;
use irl_wire::probe::{Base, Expect, Protocol};

use super::bodies::{self, TcpOptions};
use super::config::{Accept, AddressKind, FilterConfig, FilterCounters, Frames, OwnerConfig, Reason};
use super::parse::{
    Claim, Claimed, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Head, ICMP, ICMP6,
    Packet, Part, TCP, UDP, claim,
};
use super::registry::Registry;
use crate::error::LinkError;
use crate::record::{Kind, MAX_FRAME_BODY, Record, flags};

/// The flags of a SYN-ACK.
const SYN_ACK: u8 = 0x12;

/// What socket of the host a segment or datagram belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostSocket {
    /// One of TCP that listens.
    Listening,
    /// Any other: a connection, or a datagram socket.
    Other,
}

/// The host's own sockets, asked about frames that arrive in our port range on its own address.
pub trait HostSockets: Send {
    /// The socket that a segment or datagram from `remote` to `local` belongs to.
    fn find(&self, protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> Option<HostSocket>;
}

/// A host without sockets in our port range.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSockets;

impl HostSockets for NoSockets {
    fn find(&self, _: Protocol, _: SocketAddr, _: SocketAddr) -> Option<HostSocket> {
        None
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The host's.
    Pass,
    /// The host's, and a record of it was written: neighbour frames that our resolver waits for too.
    Copied {
        /// Who gets the record.
        owner: u16,
    },
    /// Taken from the host: a record was written.
    Record {
        /// Who gets the record.
        owner: u16,
    },
    /// Taken from the host and counted.
    Drop(Reason),
}

/// The filter in safe Rust.
pub struct TwinFilter {
    registry: Registry,
    sockets: Box<dyn HostSockets>,
    counters: FilterCounters,
}

impl fmt::Debug for TwinFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TwinFilter").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl TwinFilter {
    /// A filter for these addresses on a host without sockets in our port ranges.
    ///
    /// # Errors
    /// [`LinkError::Config`] when an address is given twice.
    pub fn new(config: &FilterConfig) -> Result<Self, LinkError> {
        Self::with_sockets(config, Box::new(NoSockets))
    }

    /// A filter that asks `sockets` for the host's.
    ///
    /// # Errors
    /// [`LinkError::Config`] when an address is given twice.
    pub fn with_sockets(config: &FilterConfig, sockets: Box<dyn HostSockets>) -> Result<Self, LinkError> {
        Ok(Self { registry: Registry::new(config)?, sockets, counters: FilterCounters::default() })
    }

    /// Takes an owner in.
    ///
    /// # Errors
    /// [`LinkError::Config`] when owner, ports or echo identifiers are taken, or the probe has too many match rules.
    pub fn add_owner(&mut self, config: &OwnerConfig) -> Result<(), LinkError> {
        self.registry.add(config)
    }

    /// Gives an owner's ports back to the host; unknown owners are ignored.
    pub fn remove_owner(&mut self, owner: u16) {
        self.registry.remove(owner);
    }

    /// What became of the frames that were not simply the host's.
    pub fn counters(&self) -> &FilterCounters {
        &self.counters
    }

    /// Counts a record that [`TwinFilter::judge`] wrote and whose owner had no room for it: it was not delivered.
    pub fn lost(&mut self, owner: u16) {
        self.counters.add(Reason::RingFull, 1);
        *self.counters.overruns.entry(owner).or_default() += 1;
    }

    /// Decides about one received frame, and appends a record of it to `out` when an owner gets one.
    pub fn judge(&mut self, frame: &[u8], time_ns: u64, out: &mut Vec<u8>) -> Verdict {
        let judged = Judgement { registry: &self.registry, sockets: &*self.sockets, frame, time_ns }.judge(out);
        if let Some(reason) = judged.reason {
            self.counters.count(reason);
        }
        judged.verdict
    }
}

/// A verdict and the counter it goes under.
struct Judged {
    verdict: Verdict,
    reason: Option<Reason>,
}

impl Judged {
    const PASS: Self = Self { verdict: Verdict::Pass, reason: None };

    fn drop(reason: Reason) -> Self {
        Self { verdict: Verdict::Drop(reason), reason: Some(reason) }
    }

    fn record(owner: u16, reason: Reason) -> Self {
        Self { verdict: Verdict::Record { owner }, reason: Some(reason) }
    }
}

/// Why a frame is its owner's.
struct Ours {
    flags: u16,
    frames: Frames,
    /// Whether the cookie leaves no room for doubt.
    proven: bool,
}

struct Judgement<'a> {
    registry: &'a Registry,
    sockets: &'a dyn HostSockets,
    frame: &'a [u8],
    time_ns: u64,
}

impl Judgement<'_> {
    fn judge(&self, out: &mut Vec<u8>) -> Judged {
        let head = Head::of(self.frame);
        if head.len() < 18 {
            return Judged::PASS;
        }
        let (ethertype, network, flags) = match head.u16(12) {
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => (head.u16(16), 18, flags::VLAN),
            ethertype => (ethertype, 14, 0),
        };
        match ethertype {
            ETHERTYPE_ARP => self.arp(head, network, flags, out),
            ETHERTYPE_IPV4 => {
                if network + 20 > head.len() {
                    return Judged::PASS;
                }
                let Some(kind) = self.kind(false, head.address(false, network + 16)) else {
                    return Judged::PASS;
                };
                self.packet(head, Packet::ipv4(head, network, self.frame.len()), kind, flags, out)
            }
            ETHERTYPE_IPV6 => {
                if network + 40 > head.len() {
                    return Judged::PASS;
                }
                let kind = self.kind(true, head.u128(network + 24));
                let packet = Packet::ipv6(head, network, self.frame.len());
                if let Some(judged) = packet.and_then(|packet| self.discovery(head, &packet, kind, flags, out)) {
                    return judged;
                }
                kind.map_or(Judged::PASS, |kind| self.packet(head, packet, kind, flags, out))
            }
            _ => Judged::PASS,
        }
    }

    fn kind(&self, v6: bool, address: u128) -> Option<AddressKind> {
        self.registry.kind(ip(v6, address))
    }

    /// ARP that concerns our spare addresses, or that answers our resolver.
    fn arp(&self, head: Head<'_>, arp: usize, flags: u16, out: &mut Vec<u8>) -> Judged {
        if arp + 28 > head.len() || head.array(arp) != [0, 1, 8, 0, 6, 4] {
            return Judged::PASS;
        }
        let sender = self.kind(false, u128::from(head.u32(arp + 14)));
        let target = self.kind(false, u128::from(head.u32(arp + 24)));
        let is_reply = head.u16(arp + 6) == 2;
        let concerns = sender == Some(AddressKind::Spare)
            || target == Some(AddressKind::Spare)
            || (target == Some(AddressKind::Host) && is_reply);
        if !concerns {
            return Judged::PASS;
        }
        self.neighbour(target == Some(AddressKind::Spare), flags, out)
    }

    /// Neighbour discovery, by the same rules.
    fn discovery(
        &self,
        head: Head<'_>,
        packet: &Packet,
        destination: Option<AddressKind>,
        flags: u16,
        out: &mut Vec<u8>,
    ) -> Option<Judged> {
        let t = packet.transport;
        let plain = packet.protocol == ICMP6 && t == packet.network + 40 && packet.ttl == 255;
        let known = destination.is_some() || head.u8(packet.destination()) == 0xff;
        if packet.part != Part::Whole || !plain || !known || t + 24 > packet.end.min(head.len()) {
            return None;
        }
        let target = self.kind(true, head.u128(t + 8));
        let take = match head.u8(t) {
            135 if target == Some(AddressKind::Spare) => true,
            136 if destination == Some(AddressKind::Spare) => true,
            136 if destination == Some(AddressKind::Host) || target == Some(AddressKind::Spare) => false,
            _ => return None,
        };
        Some(self.neighbour(take, flags, out))
    }

    fn neighbour(&self, take: bool, flags: u16, out: &mut Vec<u8>) -> Judged {
        let Some(owner) = self.registry.neighbour_owner() else {
            let verdict = if take { Verdict::Drop(Reason::NoOwner) } else { Verdict::Pass };
            return Judged { verdict, reason: Some(Reason::NoOwner) };
        };
        self.write_frame(owner, flags | flags::NEIGHBOUR, out);
        let verdict = if take { Verdict::Record { owner } } else { Verdict::Copied { owner } };
        Judged { verdict, reason: Some(Reason::Neighbour) }
    }

    /// An IP packet to an address of ours; `None` when its header is malformed.
    fn packet(
        &self,
        head: Head<'_>,
        packet: Option<Packet>,
        kind: AddressKind,
        flags: u16,
        out: &mut Vec<u8>,
    ) -> Judged {
        let unclaimed = |reason, out: &mut Vec<u8>| match (kind, self.registry.stray_owner()) {
            (AddressKind::Host, _) => Judged::PASS,
            (AddressKind::Spare, None) => Judged::drop(reason),
            (AddressKind::Spare, Some(owner)) => {
                self.write_frame(owner, flags | flags::UNCHECKED, out);
                Judged::record(owner, Reason::Delivered)
            }
        };
        let Some(mut packet) = packet else {
            return unclaimed(Reason::Malformed, out);
        };
        if packet.part != Part::Whole {
            return self.fragment(head, &packet, kind, flags, out);
        }
        let claim = match claim(head, &mut packet) {
            Claimed::Yes(claim) => claim,
            Claimed::Malformed => return unclaimed(Reason::Malformed, out),
            Claimed::ForeignProtocol => return unclaimed(Reason::ForeignProtocol, out),
            Claimed::ForeignIcmp => return unclaimed(Reason::ForeignIcmp, out),
        };
        let owner = match claim.protocol {
            Protocol::Icmp => self.registry.echo_owner(claim.echo.0),
            _ => self.registry.port_owner(claim.our_port),
        };
        let Some(owner) = owner.filter(|owner| owner.protocol == claim.protocol || owner.accept == Accept::Any) else {
            return unclaimed(Reason::NoOwner, out);
        };
        let ours = examine(owner, head, &packet, &claim);
        if kind == AddressKind::Host && !ours.as_ref().is_ok_and(|ours| ours.proven) {
            // The host comes first wherever the cookie leaves room for doubt.
            let is_icmp = matches!(packet.protocol, ICMP | ICMP6);
            if is_icmp && ours.is_err() {
                return Judged::PASS;
            }
            if !is_icmp && self.host_wants(head, &packet) {
                return Judged { verdict: Verdict::Pass, reason: Some(Reason::HostSocket) };
            }
        }
        match ours {
            Err(reason) => Judged::drop(reason),
            Ok(ours) => {
                self.deliver(owner.owner, head, &packet, &claim, &ours, flags, out);
                Judged::record(owner.owner, Reason::Delivered)
            }
        }
    }

    /// A fragment. The kernel may have those of a host address, but not the first one of an answer to us.
    fn fragment(&self, head: Head<'_>, packet: &Packet, kind: AddressKind, flags: u16, out: &mut Vec<u8>) -> Judged {
        if kind == AddressKind::Spare {
            let Some(owner) = self.registry.neighbour_owner() else {
                return Judged::drop(Reason::NoOwner);
            };
            self.write_frame(owner, flags | flags::FRAGMENT, out);
            return Judged::record(owner, Reason::Fragment);
        }
        let protocol = match packet.protocol {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => return Judged::PASS,
        };
        if packet.part != Part::First || packet.transport + 8 > packet.end.min(head.len()) {
            return Judged::PASS;
        }
        let owner = self.registry.port_owner(head.u16(packet.transport + 2));
        if !owner.is_some_and(|owner| owner.protocol == protocol || owner.accept == Accept::Any) {
            return Judged::PASS;
        }
        if self.host_wants(head, packet) {
            return Judged { verdict: Verdict::Pass, reason: Some(Reason::HostSocket) };
        }
        Judged::drop(Reason::HostFragment)
    }

    fn host_wants(&self, head: Head<'_>, packet: &Packet) -> bool {
        let address = |at| ip(packet.v6, head.address(packet.v6, at));
        let remote = SocketAddr::new(address(packet.source()), head.u16(packet.transport));
        let local = SocketAddr::new(address(packet.destination()), head.u16(packet.transport + 2));
        let protocol = if packet.protocol == TCP { Protocol::Tcp } else { Protocol::Udp };
        match self.sockets.find(protocol, local, remote) {
            None => false,
            Some(HostSocket::Other) => true,
            // No listening socket wants a SYN-ACK (RFC 9293, 3.10.7.2): the kernel would reset it.
            Some(HostSocket::Listening) => {
                let at = packet.transport + 13;
                at >= packet.end.min(head.len()) || head.u8(at) & SYN_ACK != SYN_ACK
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one frame's whole story, told once")]
    fn deliver(
        &self,
        owner: u16,
        head: Head<'_>,
        packet: &Packet,
        claim: &Claim,
        ours: &Ours,
        mut flags: u16,
        out: &mut Vec<u8>,
    ) {
        flags |= ours.flags;
        if packet.header_is_bad(head) {
            flags |= flags::BAD_CHECKSUM;
        }
        match packet.transport_is_bad(head) {
            Some(true) => flags |= flags::BAD_CHECKSUM,
            Some(false) => {}
            None => flags |= flags::UNCHECKED,
        }
        let is_icmp = matches!(packet.protocol, ICMP | ICMP6);
        let found = if packet.protocol == TCP { TcpOptions::parse(head, packet) } else { TcpOptions::default() };
        let has_payload = !is_icmp && packet.end > packet.payload;
        if ours.frames == Frames::Always || (ours.frames == Frames::Payload && (has_payload || found.sacks)) {
            return self.write_frame(owner, flags, out);
        }
        let mut body = Vec::with_capacity(80);
        let kind = match packet.protocol {
            TCP => {
                bodies::tcp(head, packet, &found, &mut body);
                if packet.v6 { Kind::Tcp6 } else { Kind::Tcp4 }
            }
            UDP => {
                bodies::udp(head, packet, &mut body);
                Kind::Udp
            }
            _ => {
                bodies::icmp(head, packet, claim, &mut body);
                Kind::Icmp
            }
        };
        Record { kind, flags, owner, time_ns: self.time_ns, body: &body }.write(out);
    }

    fn write_frame(&self, owner: u16, flags: u16, out: &mut Vec<u8>) {
        let cut = if self.frame.len() > MAX_FRAME_BODY { flags::CUT } else { 0 };
        let body = &self.frame[..self.frame.len().min(MAX_FRAME_BODY)];
        Record { kind: Kind::Frame, flags: flags | cut, owner, time_ns: self.time_ns, body }.write(out);
    }
}

fn ip(v6: bool, address: u128) -> IpAddr {
    if v6 { Ipv6Addr::from_bits(address).into() } else { Ipv4Addr::from_bits(address as u32).into() }
}

/// Whether a frame is the owner's, and if not, why.
fn examine(owner: &OwnerConfig, head: Head<'_>, packet: &Packet, claim: &Claim) -> Result<Ours, Reason> {
    if owner.accept == Accept::Any {
        return Ok(Ours { flags: 0, frames: owner.frames, proven: false });
    }
    let cookie = if packet.v6 {
        owner.key.v6(head.u128(packet.destination()), head.u128(claim.target), claim.target_port)
    } else {
        owner.key.v4(head.u32(packet.destination()), head.u32(claim.target), claim.target_port)
    };
    if !owner.classes.is_empty() {
        if claim.protocol != Protocol::Icmp && !port_fits(owner, cookie, claim.our_port) {
            return Err(Reason::BadCookie);
        }
        let flags = match_classes(owner, head, packet, cookie).ok_or(Reason::BadCookie)?;
        return Ok(Ours { flags, frames: Frames::Always, proven: flags & flags::COOKIE != 0 });
    }
    let proven = match claim.protocol {
        Protocol::Tcp => {
            let Some(seq) = claim.seq else {
                if owner.max_data == 0 {
                    return Err(Reason::NoAcknowledgement);
                }
                return Ok(Ours { flags: 0, frames: owner.frames, proven: false });
            };
            // An acknowledgement is one past the SYN; a quoted sequence number is the SYN's own.
            let syn = u32::from(packet.quoted.is_none());
            let distance = seq.wrapping_sub(cookie.seq()).wrapping_sub(syn);
            if distance > owner.max_data {
                return Err(Reason::BadCookie);
            }
            distance == 0
        }
        Protocol::Udp => {
            if !port_fits(owner, cookie, claim.our_port) {
                return Err(Reason::BadCookie);
            }
            true
        }
        Protocol::Icmp => {
            if claim.echo != (cookie.echo_id(), cookie.echo_seq()) {
                return Err(Reason::BadCookie);
            }
            true
        }
    };
    Ok(Ours { flags: flags::COOKIE, frames: owner.frames, proven })
}

/// Whether the port is one that a probe to this target was sent from.
fn port_fits(owner: &OwnerConfig, cookie: Cookie, port: u16) -> bool {
    let count = u32::from(owner.ports.last - owner.ports.first) + 1;
    let offset = u32::from(port.wrapping_sub(owner.ports.first));
    let number = (offset + count - u32::from(cookie.port_part()) % count) % count;
    number < u32::from(owner.probes)
}

/// The first answer class all of whose rules hold, as record flags.
fn match_classes(owner: &OwnerConfig, head: Head<'_>, packet: &Packet, cookie: Cookie) -> Option<u16> {
    let protocol = match packet.protocol {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        _ => Protocol::Icmp,
    };
    let limit = packet.end.min(head.len());
    owner.classes.iter().enumerate().find_map(|(index, class)| {
        let mut flags = index as u16 + 1;
        let holds = class.protocol == protocol
            && class.rules.iter().all(|rule| {
                let base = match rule.base {
                    Base::Network => packet.network,
                    Base::Transport => packet.transport,
                    Base::Payload => packet.payload,
                    Base::Quoted => match packet.quoted {
                        Some(quoted) => quoted,
                        None => return false,
                    },
                };
                let (at, width) = (base + usize::from(rule.offset), usize::from(rule.width));
                let expected = match rule.expect {
                    Expect::Value(value) => value,
                    Expect::Cookie { shift, add } => {
                        flags |= flags::COOKIE;
                        ((cookie.0 >> (shift & 63)) as u32).wrapping_add(add)
                    }
                };
                let (unused, found) = (32 - 8 * width, head.u32(at));
                at + width <= limit && ((found >> unused) ^ (expected & (u32::MAX >> unused))) & rule.mask == 0
            });
        holds.then_some(flags)
    })
}
