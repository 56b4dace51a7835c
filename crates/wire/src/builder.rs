//! Frames for probes: a template, and per target a handful of patched fields with their share of the checksums.

mod filled;

use std::net::IpAddr;
use std::ops::Range;

use crate::checksum;
use crate::cookie::{Cookie, Key};
use crate::mac::Mac;
use crate::probe::{MSS_OFFSET, Patch, PatchSource, PortRange, Probe, ProbeError, Protocol, Template};

/// An RTT above this is not believed: what the answer echoes may be anything.
pub const MAX_RTT_NS: u64 = 60_000_000_000;

/// Where our frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Our MAC.
    pub mac: Mac,
    /// Our address; its family is the family of every target.
    pub address: IpAddr,
    /// The ports we send from.
    pub ports: PortRange,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// The VLAN tag's identifier, if frames carry one.
    pub vlan: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ours {
    V4(u32),
    V6(u128),
}

/// Builds the frames of one probe from one address.
#[derive(Clone, Debug)]
pub struct FrameBuilder {
    template: Vec<u8>,
    reset: Vec<u8>,
    patches: Vec<Patch>,
    protocol: Protocol,
    ours: Ours,
    ports: PortRange,
    key: Key,
    time_offset: u64,
    /// Offset of the IP header.
    network: usize,
    /// Offset of the transport header.
    transport: usize,
    /// Offset of the transport checksum.
    checksum: usize,
    /// The IPv4 header's sum without identification and destination.
    network_sum: u32,
    /// The transport's sum, pseudo header included, without what is patched.
    transport_sum: u32,
    /// The same for a reset.
    reset_network_sum: u32,
    reset_sum: u32,
    /// What is written behind the template, anew for each target: nothing, for nearly all probes.
    filling: Option<Box<Template>>,
}

/// What a probe is sent to, and what follows from it.
#[derive(Clone, Copy)]
struct Probed {
    target: u128,
    port: u16,
    probe_num: u16,
    cookie: Cookie,
    source_port: u16,
}

const TCP_RST: u8 = 0x04;
const RESET_LEN: usize = 20;

impl FrameBuilder {
    /// Prepares a probe's template for one of our addresses.
    ///
    /// # Errors
    /// [`ProbeError::Template`] when the template is not as long as its header, a patch lies outside it, or two writers
    /// would claim the same bytes: then no checksum computed from parts could be right.
    pub fn new(probe: &Probe, from: &Endpoint, key: &Key) -> Result<Self, ProbeError> {
        let v6 = from.address.is_ipv6();
        let mut payload = probe.template().to_vec();
        let checksum_in_transport = match probe.protocol() {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
            Protocol::Icmp => 2,
        };
        let least = if probe.protocol() == Protocol::Tcp { 20 } else { 8 };
        if payload.len() < least || payload.len() > 1500 - if v6 { 40 } else { 20 } {
            return Err(ProbeError::Template("it is shorter than its header or longer than a frame"));
        }
        check_patches(probe, payload.len())?;
        for patch in probe.patches() {
            payload[patch_bytes(patch)].fill(0);
        }
        if probe.protocol() != Protocol::Icmp {
            // The ports of every frame are added to its sum, so the template's must not be in it.
            payload[..4].fill(0);
        }
        match probe.protocol() {
            Protocol::Icmp => payload[0] = if v6 { 128 } else { 8 },
            Protocol::Udp => {
                let length = payload.len() as u16;
                payload[4..6].copy_from_slice(&length.to_be_bytes());
            }
            Protocol::Tcp => {
                if v6 && payload.get(MSS_OFFSET - 2..MSS_OFFSET) == Some(&[2, 4]) {
                    // The same link MTU leaves 20 bytes less behind an IPv6 header.
                    let mss = u16::from_be_bytes([payload[MSS_OFFSET], payload[MSS_OFFSET + 1]]);
                    payload[MSS_OFFSET..MSS_OFFSET + 2].copy_from_slice(&mss.saturating_sub(20).to_be_bytes());
                }
            }
        }
        payload[checksum_in_transport..checksum_in_transport + 2].fill(0);
        let (template, network) = frame(from, probe.protocol(), &payload);
        let transport = template.len() - payload.len();
        let mut segment = [0; RESET_LEN];
        segment[12] = 0x50;
        segment[13] = TCP_RST;
        let (reset, _) = frame(from, Protocol::Tcp, &segment);
        let ours = match from.address {
            IpAddr::V4(address) => Ours::V4(address.into()),
            IpAddr::V6(address) => Ours::V6(address.into()),
        };
        let number = protocol_number(probe.protocol(), v6);
        let pseudo = |protocol, number, length: usize| match (ours, protocol) {
            (Ours::V4(_), Protocol::Icmp) => 0,
            (Ours::V4(ours), _) => checksum::pseudo_v4(ours, 0, number, length as u16),
            (Ours::V6(ours), _) => checksum::pseudo_v6(ours, 0, number, length as u32),
        };
        Ok(Self {
            network_sum: checksum::add(0, &template[network..transport]),
            transport_sum: checksum::add(pseudo(probe.protocol(), number, payload.len()), &payload),
            reset_network_sum: checksum::add(0, &reset[network..transport]),
            reset_sum: checksum::add(pseudo(Protocol::Tcp, 6, RESET_LEN), &segment),
            checksum: transport + checksum_in_transport,
            template,
            reset,
            patches: probe.patches().to_vec(),
            protocol: probe.protocol(),
            ours,
            ports: from.ports,
            key: *key,
            time_offset: key.time_offset(),
            network,
            transport,
            filling: probe.filling().cloned().map(Box::new),
        })
    }

    /// The length of every probe's frame, in bytes without FCS; of those that differ in it, the longest.
    pub fn frame_len(&self) -> usize {
        let filling = self.filling.as_ref().map_or(0, |filling| filling.longest(matches!(self.ours, Ours::V6(_))));
        self.template.len() + filling
    }

    /// The length of every reset's frame.
    pub fn reset_len(&self) -> usize {
        self.reset.len()
    }

    /// The cookie of a target.
    #[inline]
    pub fn cookie(&self, target: u128, port: u16) -> Cookie {
        let port = if self.protocol == Protocol::Icmp { 0 } else { port };
        match self.ours {
            Ours::V4(ours) => self.key.v4(ours, target as u32, port),
            Ours::V6(ours) => self.key.v6(ours, target, port),
        }
    }

    /// Writes the frame of a probe into the front of `slot` and returns its length. `now_ns` is CLOCK_MONOTONIC.
    ///
    /// # Panics
    /// When the slot is shorter than [`FrameBuilder::frame_len`].
    #[inline]
    pub fn build(&self, slot: &mut [u8], next_hop: Mac, target: u128, port: u16, probe_num: u16, now_ns: u64) -> usize {
        let cookie = self.cookie(target, port);
        let source_port = self.ports.source_port(cookie, probe_num);
        if let Some(filling) = &self.filling {
            return self.build_filled(filling, slot, next_hop, Probed { target, port, probe_num, cookie, source_port });
        }
        let frame = &mut slot[..self.template.len()];
        frame.copy_from_slice(&self.template);
        let mut sum = self.address(frame, next_hop, target, cookie.ip_id(), self.network_sum) + self.transport_sum;
        if self.protocol == Protocol::Icmp {
            if let Ours::V4(_) = self.ours {
                // No pseudo header: the address is not covered.
                sum = self.transport_sum;
            }
        } else {
            frame[self.transport..self.transport + 2].copy_from_slice(&source_port.to_be_bytes());
            frame[self.transport + 2..self.transport + 4].copy_from_slice(&port.to_be_bytes());
            sum += u32::from(source_port) + u32::from(port);
        }
        for patch in &self.patches {
            let value = match patch.source {
                PatchSource::Cookie(shift) => cookie.0 >> shift,
                PatchSource::SourcePort => u64::from(source_port),
                PatchSource::TargetPort => u64::from(port),
                PatchSource::Microseconds => u64::from(self.microseconds(now_ns)),
                PatchSource::Nanoseconds => now_ns.wrapping_add(self.time_offset),
                PatchSource::ProbeNumber => u64::from(probe_num),
            };
            let at = self.transport + usize::from(patch.offset);
            match patch.width {
                2 => {
                    frame[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
                    sum += u32::from(value as u16);
                }
                4 => {
                    frame[at..at + 4].copy_from_slice(&(value as u32).to_be_bytes());
                    sum += checksum::word32(value as u32);
                }
                _ => {
                    frame[at..at + 8].copy_from_slice(&value.to_be_bytes());
                    sum += checksum::word32(value as u32) + checksum::word32((value >> 32) as u32);
                }
            }
        }
        let mut checksum = checksum::finish(sum);
        if self.protocol == Protocol::Udp && checksum == 0 {
            // Zero would say that there is none (RFC 768).
            checksum = 0xffff;
        }
        frame[self.checksum..self.checksum + 2].copy_from_slice(&checksum.to_be_bytes());
        frame.len()
    }

    /// Writes our RST for a valid SYN-ACK; `seq` is the number that the SYN-ACK acknowledged. Returns its length.
    ///
    /// # Panics
    /// When the slot is shorter than [`FrameBuilder::reset_len`].
    #[inline]
    pub fn build_reset(
        &self,
        slot: &mut [u8],
        next_hop: Mac,
        target: u128,
        port: u16,
        source_port: u16,
        seq: u32,
    ) -> usize {
        let frame = &mut slot[..self.reset.len()];
        frame.copy_from_slice(&self.reset);
        let sum = self.address(frame, next_hop, target, seq as u16, self.reset_network_sum)
            + self.reset_sum
            + u32::from(source_port)
            + u32::from(port)
            + checksum::word32(seq);
        let at = self.transport;
        frame[at..at + 2].copy_from_slice(&source_port.to_be_bytes());
        frame[at + 2..at + 4].copy_from_slice(&port.to_be_bytes());
        frame[at + 4..at + 8].copy_from_slice(&seq.to_be_bytes());
        frame[at + 16..at + 18].copy_from_slice(&checksum::finish(sum).to_be_bytes());
        frame.len()
    }

    /// The round-trip time that a TSecr tells, in ns with a resolution of 1 us; `None` when it is not credible.
    pub fn rtt_from_tsecr(&self, tsecr: u32, received_ns: u64) -> Option<u64> {
        let elapsed = u64::from(self.microseconds(received_ns).wrapping_sub(tsecr)) * 1000;
        (elapsed <= MAX_RTT_NS).then_some(elapsed)
    }

    /// The round-trip time that an echo's payload tells, in ns; `None` when it is not credible.
    pub fn rtt_from_payload(&self, payload: &[u8], received_ns: u64) -> Option<u64> {
        let sent = u64::from_be_bytes(*payload.first_chunk()?).wrapping_sub(self.time_offset);
        let elapsed = received_ns.wrapping_sub(sent);
        (elapsed <= MAX_RTT_NS).then_some(elapsed)
    }

    #[inline]
    fn microseconds(&self, now_ns: u64) -> u32 {
        ((now_ns / 1000) as u32).wrapping_add(self.time_offset as u32)
    }

    /// Writes next hop, destination and what goes with them; returns the sum of the destination for pseudo headers.
    #[inline(always)]
    fn address(&self, frame: &mut [u8], next_hop: Mac, target: u128, ip_id: u16, network_sum: u32) -> u32 {
        frame[..6].copy_from_slice(&next_hop.0);
        let header = &mut frame[self.network..];
        match self.ours {
            Ours::V4(_) => {
                let target = target as u32;
                let sum = checksum::word32(target);
                header[4..6].copy_from_slice(&ip_id.to_be_bytes());
                let checksum = checksum::finish(network_sum + u32::from(ip_id) + sum);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                header[16..20].copy_from_slice(&target.to_be_bytes());
                sum
            }
            Ours::V6(_) => {
                header[24..40].copy_from_slice(&target.to_be_bytes());
                checksum::word128(target)
            }
        }
    }
}

fn patch_bytes(patch: &Patch) -> Range<usize> {
    let start = usize::from(patch.offset);
    start..start + usize::from(patch.width)
}

/// Whether each patch has bytes of its own inside a transport header and payload of `length` bytes.
fn check_patches(probe: &Probe, length: usize) -> Result<(), ProbeError> {
    // What the builder writes itself: ports (with UDP's length), or type and code; and the checksum.
    let mut taken = Vec::from(match probe.protocol() {
        Protocol::Tcp => [0..4, 16..18],
        Protocol::Udp => [0..6, 6..8],
        Protocol::Icmp => [0..2, 2..4],
    });
    for patch in probe.patches() {
        let bytes = patch_bytes(patch);
        if !matches!(patch.width, 2 | 4 | 8) || patch.offset % 2 != 0 || bytes.end > length {
            return Err(ProbeError::Template("a patch is not of 2, 4 or 8 bytes at an even offset inside it"));
        }
        if matches!(patch.source, PatchSource::Cookie(64..)) {
            return Err(ProbeError::Template("a patch shifts the cookie by 64 bits or more"));
        }
        if taken.iter().any(|other| bytes.start < other.end && other.start < bytes.end) {
            return Err(ProbeError::Template(
                "a patch overlaps another, or the ports, length, type or checksum that are always filled in",
            ));
        }
        taken.push(bytes);
    }
    Ok(())
}

fn protocol_number(protocol: Protocol, v6: bool) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Icmp if v6 => 58,
        Protocol::Icmp => 1,
    }
}

/// A frame with zeros where next hop, destination, identification and checksums go, and the offset of its IP header.
pub(crate) fn frame(from: &Endpoint, protocol: Protocol, payload: &[u8]) -> (Vec<u8>, usize) {
    let mut frame = vec![0; 6];
    frame.extend_from_slice(&from.mac.0);
    if let Some(vlan) = from.vlan {
        frame.extend_from_slice(&[0x81, 0x00]);
        frame.extend_from_slice(&(vlan & 0x0fff).to_be_bytes());
    }
    let v6 = from.address.is_ipv6();
    frame.extend_from_slice(if v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
    let network = frame.len();
    let number = protocol_number(protocol, v6);
    match from.address {
        IpAddr::V4(address) => {
            let total = 20 + payload.len() as u16;
            frame.extend_from_slice(&[0x45, 0]);
            frame.extend_from_slice(&total.to_be_bytes());
            frame.extend_from_slice(&[0, 0, 0x40, 0, from.ttl, number, 0, 0]);
            frame.extend_from_slice(&address.octets());
            frame.extend_from_slice(&[0; 4]);
        }
        IpAddr::V6(address) => {
            frame.extend_from_slice(&[0x60, 0, 0, 0]);
            frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[number, from.ttl]);
            frame.extend_from_slice(&address.octets());
            frame.extend_from_slice(&[0; 16]);
        }
    }
    frame.extend_from_slice(payload);
    (frame, network)
}
