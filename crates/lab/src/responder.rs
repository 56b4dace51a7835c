//! Answers frames as the World says: one frame in, none, one or two out. Keeps no state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use irl_wire::Mac;
use irl_wire::packet::{Arp, Envelope, Ethernet, Icmp, Packet, Tcp, Udp, ethertype, protocol, tcp_flags};

use crate::service::{Reply, Service};
use crate::world::{Class, Truth, World, flags};

/// The longest frame it writes.
const MAX_FRAME: usize = 2048;
/// TTL of every answer.
const TTL: u8 = 64;
/// The most bytes of a refused packet that an ICMP error quotes behind the IP header.
const QUOTED: usize = 8;
/// The window of every segment, unscaled.
const WINDOW: u16 = 65_160;
/// How far behind its start a connection's acknowledgements are believed.
const MOST_SAID: u32 = 1 << 20;

/// Whether dialogues are on hold: SYNs are answered then, and every other segment is swallowed and counted.
#[derive(Debug, Default)]
pub struct Hold {
    on: AtomicBool,
    swallowed: AtomicU64,
}

impl Hold {
    /// Begins or ends it.
    pub fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Segments that were swallowed so far.
    pub fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::Relaxed)
    }
}

/// The hosts of a World, and the gateway before them.
#[derive(Clone, Debug)]
pub struct Responder {
    world: World,
    /// The gateway's MAC, which is also everybody's behind it.
    mac: Mac,
    /// What open ports say to data; `None` for [`World::response`].
    reply: Option<Reply>,
    hold: Arc<Hold>,
    buffer: Box<[u8; MAX_FRAME]>,
}

impl Responder {
    /// The hosts of `world` behind `mac`.
    pub fn new(world: World, mac: Mac) -> Self {
        Self { world, mac, reply: None, hold: Arc::default(), buffer: Box::new([0; MAX_FRAME]) }
    }

    /// The same hosts with another service behind their open ports.
    #[must_use]
    pub fn with_service(mut self, service: Service) -> Self {
        self.reply = service.reply();
        self
    }

    /// The same hosts, on hold whenever `hold` says so.
    #[must_use]
    pub fn with_hold(mut self, hold: Arc<Hold>) -> Self {
        self.hold = hold;
        self
    }

    /// Answers a frame; whatever it is, this never panics. Frames that are not to our MAC, or broken, meet silence.
    pub fn respond(&mut self, frame: &[u8], out: &mut dyn FnMut(&[u8])) {
        let Some(ethernet) = Ethernet::parse(frame) else { return };
        if ethernet.ethertype == ethertype::ARP {
            return self.arp(&ethernet, out);
        }
        let Some(packet) = Packet::parse(&ethernet) else { return };
        if packet.v6 && packet.protocol == protocol::ICMPV6 && self.solicitation(&ethernet, &packet, out) {
            return;
        }
        if ethernet.destination != self.mac || packet.fragment || !packet.header_intact() || !packet.payload_intact() {
            return;
        }
        match packet.protocol {
            protocol::TCP => self.tcp(&ethernet, &packet, out),
            protocol::UDP => self.udp(&ethernet, &packet, out),
            protocol::ICMP | protocol::ICMPV6 => self.echo(&ethernet, &packet, out),
            _ => {}
        }
    }

    fn tcp(&mut self, ethernet: &Ethernet<'_>, packet: &Packet<'_>, out: &mut dyn FnMut(&[u8])) {
        let Some(tcp) = Tcp::parse(packet.payload) else { return };
        let syn = tcp.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN;
        if !syn && self.hold.on.load(Ordering::Relaxed) {
            self.hold.swallowed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // A RST is never answered (RFC 9293, 3.10.7.1), whatever else it says.
        if tcp.flags & tcp_flags::RST != 0 {
            return;
        }
        let truth = self.world.truth(packet.destination, tcp.destination_port);
        let envelope = Envelope::answering(ethernet, packet, TTL, truth.response_id);
        match truth.class {
            Class::Absent => {}
            Class::Filtered => self.prohibited(ethernet, packet, out),
            Class::Closed => self.refuse(&envelope, &tcp, out),
            // Nobody here has sent a SYN (RFC 9293, 3.10.7.2).
            _ if tcp.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN | tcp_flags::ACK => {
                self.refuse(&envelope, &tcp, out);
            }
            class if syn => {
                let isn = self.world.isn(packet.destination, tcp.destination_port, packet.source, tcp.source_port);
                let ack = tcp.seq.wrapping_add(if class == Class::WrongAck { 12_345 } else { 1 });
                let mut options = [0; 40];
                let length = syn_ack_options(&tcp, packet.v6, isn, &mut options);
                let flags = tcp_flags::SYN | tcp_flags::ACK;
                let answer = Segment { seq: isn, ack, flags, window: WINDOW, options: &options[..length], data: &[] };
                self.segment(&envelope, &tcp, answer, out);
                if class == Class::Duplicate {
                    self.segment(&envelope, &tcp, answer, out);
                }
            }
            _ if self.reply.is_some() => self.exchange(&envelope, packet, &tcp, out),
            _ => self.dialogue(&envelope, packet, &tcp, truth, out),
        }
    }

    /// The RST that a segment to nobody meets (RFC 9293, 3.10.7.1).
    fn refuse(&mut self, envelope: &Envelope, tcp: &Tcp<'_>, out: &mut dyn FnMut(&[u8])) {
        let (seq, flags) = if tcp.flags & tcp_flags::ACK != 0 {
            (tcp.ack, tcp_flags::RST)
        } else {
            (0, tcp_flags::RST | tcp_flags::ACK)
        };
        let ack = tcp.seq.wrapping_add(tcp.sequence_len());
        self.segment(envelope, tcp, Segment { seq, ack, flags, window: 0, options: &[], data: &[] }, out);
    }

    /// A service that answers data with its reply, and a FIN with one of its own unless the reply bore it.
    fn exchange(&mut self, envelope: &Envelope, packet: &Packet<'_>, tcp: &Tcp<'_>, out: &mut dyn FnMut(&[u8])) {
        let Some(reply) = &self.reply else { return };
        if tcp.flags & (tcp_flags::SYN | tcp_flags::ACK) != tcp_flags::ACK || tcp.sequence_len() == 0 {
            return;
        }
        let (address, port) = (packet.destination, tcp.destination_port);
        let isn = self.world.isn(address, port, packet.source, tcp.source_port);
        // Who acknowledges what was never said talks of a connection that there is not.
        if tcp.ack.wrapping_sub(isn).wrapping_sub(1) > MOST_SAID {
            return self.refuse(envelope, tcp, out);
        }
        let said = !tcp.payload.is_empty();
        let data = if said { reply.said(self.world.response_draw(address, port)) } else { Vec::new() };
        let fin = if said { reply.fin || tcp.flags & tcp_flags::FIN != 0 } else { !reply.fin };
        let flags = tcp_flags::ACK | if said { tcp_flags::PSH } else { 0 } | if fin { tcp_flags::FIN } else { 0 };
        let ack = tcp.seq.wrapping_add(tcp.sequence_len());
        let options = timestamps(tcp, isn);
        let options = options.as_ref().map_or(&[][..], |options| options);
        let answer = Segment { seq: tcp.ack, ack, flags, window: WINDOW, options, data: &data };
        self.segment(envelope, tcp, answer, out);
    }

    /// A service without memory: whatever data comes is acknowledged and answered with the response and a FIN.
    fn dialogue(
        &mut self,
        envelope: &Envelope,
        packet: &Packet<'_>,
        tcp: &Tcp<'_>,
        truth: Truth,
        out: &mut dyn FnMut(&[u8]),
    ) {
        let fin = tcp.flags & tcp_flags::FIN != 0;
        let ack = tcp.seq.wrapping_add(tcp.sequence_len());
        let isn = self.world.isn(packet.destination, tcp.destination_port, packet.source, tcp.source_port);
        let options = timestamps(tcp, isn);
        let options = options.as_ref().map_or(&[][..], |options| options);
        let reply = |seq, flags, data| Segment { seq, ack, flags, window: WINDOW, options, data };
        if !tcp.payload.is_empty() {
            let response = self.world.response(truth, tcp.destination_port);
            let flags = tcp_flags::ACK | tcp_flags::PSH | tcp_flags::FIN;
            self.segment(envelope, tcp, reply(tcp.ack, flags, &response), out);
        } else if fin {
            self.segment(envelope, tcp, reply(tcp.ack, tcp_flags::ACK, &[]), out);
        }
    }

    fn segment(&mut self, envelope: &Envelope, to: &Tcp<'_>, segment: Segment<'_>, out: &mut dyn FnMut(&[u8])) {
        let start = envelope.len();
        let header = 20 + segment.options.len();
        let end = start + header + segment.data.len();
        let Some(frame) = self.buffer.get_mut(..end) else { return };
        let tcp = &mut frame[start..];
        tcp[..2].copy_from_slice(&to.destination_port.to_be_bytes());
        tcp[2..4].copy_from_slice(&to.source_port.to_be_bytes());
        tcp[4..8].copy_from_slice(&segment.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&segment.ack.to_be_bytes());
        // At most 40 bytes of options, so that the offset fits its four bits.
        tcp[12] = ((header / 4) << 4) as u8;
        tcp[13] = segment.flags;
        tcp[14..16].copy_from_slice(&segment.window.to_be_bytes());
        tcp[16..20].fill(0);
        tcp[20..header].copy_from_slice(segment.options);
        tcp[header..].copy_from_slice(segment.data);
        envelope.seal(frame, protocol::TCP, 16);
        out(frame);
    }

    fn udp(&mut self, ethernet: &Ethernet<'_>, packet: &Packet<'_>, out: &mut dyn FnMut(&[u8])) {
        let Some(udp) = Udp::parse(packet.payload) else { return };
        let truth = self.world.truth(packet.destination, udp.destination_port);
        if truth.flags & flags::ALIVE == 0 {
            return;
        }
        if truth.flags & flags::UDP_ECHO == 0 {
            return self.unreachable(ethernet, packet, if packet.v6 { (1, 4) } else { (3, 3) }, out);
        }
        let envelope = Envelope::answering(ethernet, packet, TTL, truth.response_id);
        let start = envelope.len();
        let length = 8 + udp.payload.len();
        let Some(frame) = self.buffer.get_mut(..start + length) else { return };
        let reply = &mut frame[start..];
        reply[..2].copy_from_slice(&udp.destination_port.to_be_bytes());
        reply[2..4].copy_from_slice(&udp.source_port.to_be_bytes());
        // It came in a frame, so its length has 16 bits.
        reply[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        reply[8..].copy_from_slice(udp.payload);
        envelope.seal(frame, protocol::UDP, 6);
        out(frame);
    }

    fn echo(&mut self, ethernet: &Ethernet<'_>, packet: &Packet<'_>, out: &mut dyn FnMut(&[u8])) {
        let Some(icmp) = Icmp::parse(packet.payload) else { return };
        let (request, reply) = if packet.v6 { (128, 129) } else { (8, 0) };
        let truth = self.world.truth(packet.destination, 0);
        if icmp.kind != request || icmp.code != 0 || truth.flags & flags::ECHO == 0 {
            return;
        }
        let envelope = Envelope::answering(ethernet, packet, TTL, truth.response_id);
        let start = envelope.len();
        let Some(frame) = self.buffer.get_mut(..start + packet.payload.len()) else { return };
        frame[start..].copy_from_slice(packet.payload);
        frame[start] = reply;
        envelope.seal(frame, packet.protocol, 2);
        out(frame);
    }

    fn prohibited(&mut self, ethernet: &Ethernet<'_>, packet: &Packet<'_>, out: &mut dyn FnMut(&[u8])) {
        self.unreachable(ethernet, packet, if packet.v6 { (1, 1) } else { (3, 13) }, out);
    }

    /// An ICMP error that quotes the IP header and eight bytes (RFC 792; RFC 4443 would allow more).
    fn unreachable(
        &mut self,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
        (kind, code): (u8, u8),
        out: &mut dyn FnMut(&[u8]),
    ) {
        let envelope = Envelope::answering(ethernet, packet, TTL, 0);
        let start = envelope.len();
        let quoted = packet.payload.get(..QUOTED).unwrap_or(packet.payload);
        let end = start + 8 + packet.header.len() + quoted.len();
        let Some(frame) = self.buffer.get_mut(..end) else { return };
        let icmp = &mut frame[start..];
        icmp[..8].copy_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
        let (header, rest) = icmp[8..].split_at_mut(packet.header.len());
        header.copy_from_slice(packet.header);
        rest.copy_from_slice(quoted);
        envelope.seal(frame, if packet.v6 { protocol::ICMPV6 } else { protocol::ICMP }, 2);
        out(frame);
    }

    fn arp(&mut self, ethernet: &Ethernet<'_>, out: &mut dyn FnMut(&[u8])) {
        let Some(arp) = Arp::parse(ethernet.payload) else { return };
        // Probes and announcements (RFC 5227) are not questions for us.
        if arp.operation != 1 || arp.sender == 0 || arp.sender == arp.target {
            return;
        }
        let reply = Arp {
            operation: 2,
            sender_mac: self.mac,
            sender: arp.target,
            target_mac: arp.sender_mac,
            target: arp.sender,
        };
        let frame = &mut self.buffer[..14 + Arp::LEN];
        frame[..6].copy_from_slice(&arp.sender_mac.0);
        frame[6..12].copy_from_slice(&self.mac.0);
        frame[12..14].copy_from_slice(&ethertype::ARP.to_be_bytes());
        frame[14..].copy_from_slice(&reply.bytes());
        out(frame);
    }

    /// Answers a neighbour solicitation (RFC 4861); whether the packet was one.
    fn solicitation(&mut self, ethernet: &Ethernet<'_>, packet: &Packet<'_>, out: &mut dyn FnMut(&[u8])) -> bool {
        let Some(icmp) = Icmp::parse(packet.payload).filter(|icmp| icmp.kind == 135) else { return false };
        let Some(target) = icmp.payload.first_chunk::<16>() else { return true };
        let target = u128::from_be_bytes(*target);
        if packet.source == 0 || packet.ttl != 255 {
            return true;
        }
        let envelope = Envelope {
            source_mac: self.mac,
            destination_mac: ethernet.source,
            vlan: ethernet.vlan,
            v6: true,
            source: target,
            destination: packet.source,
            ttl: 255,
            id: 0,
        };
        let start = envelope.len();
        let frame = &mut self.buffer[..start + 32];
        let advert = &mut frame[start..];
        advert[..8].copy_from_slice(&[136, 0, 0, 0, 0x60, 0, 0, 0]);
        advert[8..24].copy_from_slice(&target.to_be_bytes());
        advert[24..26].copy_from_slice(&[2, 1]);
        advert[26..32].copy_from_slice(&self.mac.0);
        envelope.seal(frame, protocol::ICMPV6, 2);
        out(frame);
        true
    }
}

/// What a segment says beside its ports.
#[derive(Clone, Copy)]
struct Segment<'a> {
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: &'a [u8],
    data: &'a [u8],
}

/// The options of a segment whose fellow bears timestamps: they belong in each from then on (RFC 7323, 3.2).
fn timestamps(to: &Tcp<'_>, isn: u32) -> Option<[u8; 12]> {
    let (ts_val, _) = to.options().timestamps?;
    let mut options = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    options[4..8].copy_from_slice(&host_clock(isn).to_be_bytes());
    options[8..].copy_from_slice(&ts_val.to_be_bytes());
    Some(options)
}

/// Writes the options of a SYN-ACK: those that the SYN offered, in Linux's order; nothing to a SYN without options, so
/// that the answer is never longer than the question.
fn syn_ack_options(syn: &Tcp<'_>, v6: bool, isn: u32, out: &mut [u8; 40]) -> usize {
    let offered = syn.options();
    let mut length = 0;
    let mut put = |bytes: &[u8]| {
        out[length..length + bytes.len()].copy_from_slice(bytes);
        length += bytes.len();
    };
    if offered.mss.is_some() {
        put(&[2, 4]);
        put(&(if v6 { 1440_u16 } else { 1460 }).to_be_bytes());
    }
    match offered.timestamps {
        Some((ts_val, _)) => {
            put(if offered.sack_permitted { &[4, 2] } else { &[1, 1] });
            put(&[8, 10]);
            put(&host_clock(isn).to_be_bytes());
            put(&ts_val.to_be_bytes());
        }
        None if offered.sack_permitted => put(&[1, 1, 4, 2]),
        None => {}
    }
    if offered.window_scale.is_some() {
        put(&[1, 3, 3, 7]);
    }
    length
}

/// The TSval of a connection that began with `isn`: made up, but constant within it.
fn host_clock(isn: u32) -> u32 {
    isn.rotate_left(16)
}
