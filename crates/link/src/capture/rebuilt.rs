//! A frame made again of the filter's compact record of it.
//!
//! What the record has is as it was received. What it has not is made up in the plainest way: MACs, type of service, flow
//! label and fragment bits, the urgent pointer, the order of TCP options and options beyond the usual four, what an ICMP
//! error quotes beyond ports and numbers, and every payload, of which the length alone is known: the frame is shorter in
//! the file than it was. Checksums are right for a rest of zeros, or wrong where one was.

use irl_wire::checksum;

use super::sample::SampledInterface;
use crate::record::{Kind, Record, flags, options};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// What is said of such a frame.
pub(super) fn comment(record: &Record<'_>) -> &'static str {
    if record.flags & flags::BAD_CHECKSUM != 0 {
        "rebuilt from the filter's record, its payload left out; a checksum was wrong, as one is here"
    } else {
        "rebuilt from the filter's record, its payload left out"
    }
}

/// The frame and its length on the link; `None` for a record that has no address, or is whole.
pub(super) fn frame(record: &Record<'_>, interface: &SampledInterface) -> Option<(Vec<u8>, u32)> {
    let body = record.body;
    let bytes = |at: usize, len: usize| body.get(at..at + len);
    let tcp = |at: usize| Some((u16_at(body, at + 22)?, segment(bytes(at, 32)?)));
    let (v6, source, destination, protocol, ttl, id, (rest, mut transport)) = match record.kind {
        Kind::Tcp4 => (false, bytes(0, 4)?, bytes(4, 4)?, TCP, *body.get(23)?, bytes(24, 2)?, tcp(8)?),
        Kind::Tcp6 => (true, bytes(0, 16)?, bytes(16, 16)?, TCP, *body.get(47)?, bytes(48, 2)?, tcp(32)?),
        Kind::Udp => {
            let (v6, source, destination) = addresses(body)?;
            let transport = [bytes(32, 6)?, &[0, 0]].concat();
            (v6, source, destination, UDP, *body.get(38)?, bytes(40, 2)?, (u16_at(body, 44)?, transport))
        }
        Kind::Icmp => {
            let (v6, source, destination) = addresses(body)?;
            let protocol = if v6 { ICMP6 } else { ICMP };
            let length = u16_at(body, 42)?;
            let mut transport = message(body, v6, destination)?;
            transport.truncate(8 + usize::from(length));
            let rest = (8 + length).saturating_sub(transport.len() as u16);
            (v6, source, destination, protocol, *body.get(34)?, bytes(36, 2)?, (rest, transport))
        }
        Kind::Frame => return None,
    };
    let length = transport.len() as u32 + u32::from(rest);
    finish(record, v6, source, destination, protocol, length, &mut transport);

    let mut frame = Vec::with_capacity(18 + 40 + transport.len());
    frame.extend_from_slice(&interface.ours.0);
    frame.extend_from_slice(&interface.gateway.unwrap_or_default().0);
    if let Some(vlan) = interface.vlan {
        frame.extend_from_slice(&[0x81, 0]);
        frame.extend_from_slice(&vlan.to_be_bytes());
    }
    if v6 {
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend_from_slice(&(length as u16).to_be_bytes());
        frame.extend_from_slice(&[protocol, ttl]);
    } else {
        frame.extend_from_slice(&[0x08, 0x00]);
        let mut header = ipv4(length as u16, id, ttl, protocol, source, destination);
        header.truncate(12);
        frame.extend_from_slice(&header);
    }
    frame.extend_from_slice(source);
    frame.extend_from_slice(destination);
    frame.extend_from_slice(&transport);
    let on_the_link = frame.len() as u32 + u32::from(rest);
    Some((frame, on_the_link))
}

/// An IPv4 header with its checksum.
fn ipv4(payload: u16, id: &[u8], ttl: u8, protocol: u8, source: &[u8], destination: &[u8]) -> Vec<u8> {
    let total = payload.saturating_add(20).to_be_bytes();
    let mut header = vec![0x45, 0, total[0], total[1]];
    header.extend_from_slice(id);
    header.extend_from_slice(&[0, 0, ttl, protocol, 0, 0]);
    header.extend_from_slice(source);
    header.extend_from_slice(destination);
    let sum = checksum::finish(checksum::add(0, &header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// The addresses of a body that has IPv4 ones mapped into IPv6.
fn addresses(body: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let v6 = body.get(..12)? != MAPPED;
    let at = if v6 { 0 } else { 12 };
    Some((v6, body.get(at..16)?, body.get(16 + at..32)?))
}

/// A TCP header of the part of a record that both families share.
fn segment(part: &[u8]) -> Vec<u8> {
    let mut segment = part[..12].to_vec();
    segment.extend_from_slice(&[0, part[14], part[12], part[13], 0, 0, 0, 0]);
    if part[18..20] != [0, 0] {
        segment.extend_from_slice(&[2, 4, part[18], part[19]]);
    }
    if part[21] & options::SACK_PERMITTED != 0 {
        segment.extend_from_slice(&[4, 2]);
    }
    if part[21] & options::TIMESTAMPS != 0 {
        segment.extend_from_slice(&[8, 10]);
        segment.extend_from_slice(&part[24..32]);
    }
    if part[20] != 255 {
        segment.extend_from_slice(&[3, 3, part[20]]);
    }
    segment.resize(segment.len().next_multiple_of(4), 1);
    segment[12] = (segment.len() as u8 / 4) << 4;
    segment
}

/// An ICMP message: an echo with what is known of its payload, or an error with what is known of the packet it quotes.
fn message(body: &[u8], v6: bool, ours: &[u8]) -> Option<Vec<u8>> {
    let (kind, code, protocol) = (*body.get(32)?, *body.get(33)?, *body.get(35)?);
    let mut message = vec![kind, code, 0, 0];
    if protocol == 0 {
        message.extend_from_slice(body.get(38..42)?);
        message.extend_from_slice(body.get(64..80)?);
        return Some(message);
    }
    let ports = body.get(38..42)?;
    let word = body.get(44..48)?;
    let target = body.get(if v6 { 48..64 } else { 60..64 })?;
    message.extend_from_slice(if protocol == TCP { &[0; 4] } else { word });
    if v6 {
        message.extend_from_slice(&[0x60, 0, 0, 0, 0, 8, protocol, 0]);
        message.extend_from_slice(ours);
        message.extend_from_slice(target);
    } else {
        message.extend_from_slice(&ipv4(8, &[0, 0], 0, protocol, ours, target));
    }
    match protocol {
        TCP => message.extend_from_slice(&[ports, word].concat()),
        UDP => message.extend_from_slice(&[ports, &[0, 8, 0, 0]].concat()),
        _ => message.extend_from_slice(&[&[if v6 { 128 } else { 8 }, 0, 0, 0], ports].concat()),
    }
    Some(message)
}

/// Writes the transport's checksum, for a rest of zeros.
fn finish(
    record: &Record<'_>,
    v6: bool,
    source: &[u8],
    destination: &[u8],
    protocol: u8,
    length: u32,
    transport: &mut [u8],
) {
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        _ => 2,
    };
    let mut sum = checksum::add(0, transport);
    if v6 || protocol != ICMP {
        sum = checksum::add(checksum::add(sum, source), destination);
        sum += checksum::word32(length) + u32::from(protocol);
    }
    let mut value = checksum::finish(sum);
    if record.flags & flags::BAD_CHECKSUM != 0 {
        value = !value;
    }
    if protocol == UDP && value == 0 {
        value = 0xffff;
    }
    transport[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
