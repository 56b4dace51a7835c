//! Whose frame is it: the target that a frame went to, or that an answer is about.

use irl_wire::packet::{Ethernet, Packet};

use super::pcapng::Direction;
use crate::record::{Kind, Record};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// An address and a port; the port is 0 where there is none.
pub(super) type Target = (u128, u16);

/// The target of a frame of ours, or of one that we received; `None` for what is neither IPv4 nor IPv6.
#[inline]
pub(super) fn of_frame(frame: &[u8], direction: Direction) -> Option<Target> {
    let packet = Packet::parse(&Ethernet::parse(frame)?)?;
    let (address, port) = match direction {
        Direction::Outbound => (packet.destination, 2),
        Direction::Inbound => (packet.source, 0),
    };
    match packet.protocol {
        TCP | UDP => Some((address, u16_at(packet.payload, port)?)),
        ICMP | ICMP6 if direction == Direction::Inbound => Some(quoted(&packet).unwrap_or((address, 0))),
        _ => Some((address, 0)),
    }
}

/// The target that a record is about; `None` for neighbours.
#[inline]
pub(super) fn of_record(record: &Record<'_>) -> Option<Target> {
    let body = record.body;
    match record.kind {
        Kind::Tcp4 => Some((u128::from(u32::from_be_bytes(*body.first_chunk()?)), u16_at(body, 8)?)),
        Kind::Tcp6 => Some((u128_at(body, 0)?, u16_at(body, 32)?)),
        Kind::Udp => Some((plain(u128_at(body, 0)?), u16_at(body, 32)?)),
        Kind::Icmp => match *body.get(35)? {
            0 => Some((plain(u128_at(body, 0)?), 0)),
            TCP | UDP => Some((plain(u128_at(body, 48)?), u16_at(body, 40)?)),
            _ => Some((plain(u128_at(body, 48)?), 0)),
        },
        Kind::Frame => of_frame(body, Direction::Inbound),
    }
}

/// The target of the packet that an ICMP error quotes.
fn quoted(packet: &Packet<'_>) -> Option<Target> {
    let error = match (packet.v6, packet.payload.first()?) {
        (true, kind) => *kind < 128,
        (false, kind) => matches!(kind, 3 | 4 | 5 | 11 | 12),
    };
    // What is quoted may be cut short, so that its own lengths say nothing.
    let inner = packet.payload.get(8..).filter(|_| error)?;
    let (protocol, address, header) = if packet.v6 {
        (*inner.get(6)?, u128_at(inner, 24)?, 40)
    } else {
        let header = usize::from(inner.first()? & 15) * 4;
        (*inner.get(9)?, u128::from(u32::from_be_bytes(inner.get(16..20)?.try_into().ok()?)), header)
    };
    match protocol {
        TCP | UDP => Some((address, u16_at(inner, header + 2)?)),
        _ => Some((address, 0)),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    Some(u128::from_be_bytes(bytes.get(at..at + 16)?.try_into().ok()?))
}

/// IPv4 as itself where records have it mapped into IPv6.
fn plain(address: u128) -> u128 {
    if address >> 32 == 0xffff { address & 0xffff_ffff } else { address }
}
