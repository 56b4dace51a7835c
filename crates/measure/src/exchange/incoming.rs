//! Records as a TCP reads them: segments with their options and data, and ICMP errors about segments of ours.

use irl_link::record::{Kind, Record, flags, options};
use irl_targets::Family;
use irl_tcp::{Flow, IcmpError, Options, Segment};
use irl_wire::packet::{Ethernet, Packet, Tcp, protocol};

use crate::answers::Ours;
use crate::fields::{plain, u16_at, u32_at, u128_at};

/// What a record says.
pub(super) enum Incoming<'a> {
    /// A segment, and its data.
    Segment(Segment, &'a [u8]),
    /// An ICMP error that quotes a segment of this number.
    Error { flow: Flow, quoted_seq: u32, error: IcmpError },
}

/// Why a record is not taken.
pub(super) enum Refusal {
    /// It contradicts itself, or its checksum is wrong.
    Invalid,
    /// It is to nobody of us, or about no TCP.
    NotOurs,
}

/// Reads a record.
pub(super) fn read<'a>(record: &Record<'a>, family: Family, ours: &Ours) -> Result<Incoming<'a>, Refusal> {
    let body = record.body;
    match (record.kind, family) {
        (Kind::Tcp4, Family::V4) => {
            let ends = u32_at(body, 0).zip(u32_at(body, 4)).map(|(theirs, us)| (theirs.into(), us.into()));
            compact(ends, body.get(8..), ours)
        }
        (Kind::Tcp6, Family::V6) => compact(u128_at(body, 0).zip(u128_at(body, 16)), body.get(32..), ours),
        (Kind::Frame, _) => whole(record, family, ours),
        (Kind::Icmp, _) => error(body, family, ours),
        _ => Err(Refusal::NotOurs),
    }
}

fn flow(ours: &Ours, us: u128, our_port: u16, theirs: u128, their_port: u16) -> Result<Flow, Refusal> {
    let number = ours.number(us).ok_or(Refusal::NotOurs)?;
    // An interface has no more addresses of ours than 16 bits tell apart, and one of several has none of its own.
    Ok(Flow { ours: number as u16, our_port, theirs, their_port })
}

/// A segment without data and SACK blocks.
fn compact<'a>(ends: Option<(u128, u128)>, body: Option<&'a [u8]>, ours: &Ours) -> Result<Incoming<'a>, Refusal> {
    let (theirs, us) = ends.ok_or(Refusal::Invalid)?;
    let segment = body.and_then(|body| {
        let bits = *body.get(21)?;
        let options = Options {
            mss: u16_at(body, 18).filter(|mss| *mss != 0),
            window_scale: body.get(20).copied().filter(|scale| *scale != 255),
            sack_permitted: bits & options::SACK_PERMITTED != 0,
            timestamps: u32_at(body, 24).zip(u32_at(body, 28)).filter(|_| bits & options::TIMESTAMPS != 0),
            ..Options::default()
        };
        let segment = Segment {
            flow: Flow::default(),
            seq: u32_at(body, 4)?,
            ack: u32_at(body, 8)?,
            flags: *body.get(14)?,
            window: u16_at(body, 12)?,
            options,
        };
        // Data would have come as a whole frame.
        (u16_at(body, 22)? == 0).then_some((segment, u16_at(body, 0)?, u16_at(body, 2)?))
    });
    let (segment, their_port, our_port) = segment.ok_or(Refusal::Invalid)?;
    Ok(Incoming::Segment(Segment { flow: flow(ours, us, our_port, theirs, their_port)?, ..segment }, &[]))
}

/// A segment as a whole frame.
fn whole<'a>(record: &Record<'a>, family: Family, ours: &Ours) -> Result<Incoming<'a>, Refusal> {
    let packet = Ethernet::parse(record.body).and_then(|ethernet| Packet::parse(&ethernet)).ok_or(Refusal::Invalid)?;
    if packet.v6 != (family == Family::V6) || packet.protocol != protocol::TCP {
        return Err(Refusal::NotOurs);
    }
    // The filter has checked what it could look at as a whole.
    let unchecked = record.flags & flags::UNCHECKED != 0;
    if record.flags & flags::CUT != 0 || (unchecked && !packet.payload_intact()) {
        return Err(Refusal::Invalid);
    }
    let tcp = Tcp::parse(packet.payload).ok_or(Refusal::Invalid)?;
    let segment = Segment {
        flow: flow(ours, packet.destination, tcp.destination_port, packet.source, tcp.source_port)?,
        seq: tcp.seq,
        ack: tcp.ack,
        flags: tcp.flags,
        window: tcp.window,
        options: Options::parse(tcp.options),
    };
    Ok(Incoming::Segment(segment, tcp.payload))
}

fn error<'a>(body: &'a [u8], family: Family, ours: &Ours) -> Result<Incoming<'a>, Refusal> {
    let fields = || {
        let us = plain(family, u128_at(body, 16)?)?;
        let theirs = plain(family, u128_at(body, 48)?)?;
        Some((us, theirs, u16_at(body, 38)?, u16_at(body, 40)?, u32_at(body, 44)?))
    };
    let (us, theirs, our_port, their_port, quoted_seq) = fields().ok_or(Refusal::Invalid)?;
    let (Some(kind), Some(code)) = (body.get(32), body.get(33)) else { return Err(Refusal::Invalid) };
    if body.get(35) != Some(&protocol::TCP) {
        return Err(Refusal::NotOurs);
    }
    let flow = flow(ours, us, our_port, theirs, their_port)?;
    Ok(Incoming::Error { flow, quoted_seq, error: meaning(family, *kind, *code) })
}

/// What an ICMP error means for a connection (RFC 1122, 4.2.3.9; RFC 4443; RFC 5461).
fn meaning(family: Family, kind: u8, code: u8) -> IcmpError {
    match (family, kind, code) {
        // The record has no place for the MTU beside a quoted number: as from a router that does not say.
        (Family::V4, 3, 4) | (Family::V6, 2, _) => IcmpError::TooBig(0),
        (Family::V4, 3, 2 | 3) | (Family::V6, 1, 4) => IcmpError::Hard,
        _ => IcmpError::Soft,
    }
}
