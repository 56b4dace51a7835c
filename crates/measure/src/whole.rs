//! Answers known by match rules: whole frames, of which the filter says which class of answer each is.

use std::sync::Arc;

use irl_link::record::{Record, flags};
use irl_targets::Family;
use irl_wire::packet::{Ethernet, Icmp, Packet, Tcp, Udp, protocol};
use irl_wire::probe::AnswerClass;

use crate::fields::{u16_at, u32_at, u128_at};
use crate::rows::{Class, Icmp as IcmpHeader, Row};

/// The classes of answers of a probe that is known by its rules.
#[derive(Clone)]
pub(crate) struct Whole {
    classes: Arc<[AnswerClass]>,
    family: Family,
}

impl Whole {
    pub(crate) fn new(classes: &[AnswerClass], family: Family) -> Self {
        Self { classes: classes.into(), family }
    }

    /// Reads a frame into a row, as far as it needs no address of ours, and returns its payload; `None` when it is
    /// neither what its class says nor whole.
    pub(crate) fn read<'a>(&self, row: &mut Row, record: Record<'a>) -> Option<Option<&'a [u8]>> {
        let number = record.flags & flags::CLASS_MASK;
        // The mask has eight bits.
        let index = number.checked_sub(1)? as u8;
        let success = self.classes.get(usize::from(index))?.success;
        row.class = Class::OfProbe { index, success };
        let packet = Packet::parse(&Ethernet::parse(record.body)?)?;
        if packet.v6 != (self.family == Family::V6) {
            return None;
        }
        (row.saddr, row.daddr) = (packet.source, packet.destination);
        (row.ttl, row.ipid) = (packet.ttl, packet.id);
        match (packet.protocol, packet.v6) {
            (protocol::TCP, _) => {
                let tcp = Tcp::parse(packet.payload)?;
                (row.sport, row.dport) = (tcp.source_port, tcp.destination_port);
                (row.seqnum, row.acknum, row.window) = (tcp.seq, tcp.ack, tcp.window);
                Some(Some(tcp.payload))
            }
            (protocol::UDP, _) => {
                let udp = Udp::parse(packet.payload)?;
                (row.sport, row.dport) = (udp.source_port, udp.destination_port);
                row.udp_len = u16_at(packet.payload, 4);
                Some(Some(udp.payload))
            }
            (protocol::ICMP, false) | (protocol::ICMPV6, true) => self.icmp(row, &packet),
            _ => None,
        }
    }

    /// An echo's reply, or an error that quotes our probe: then the row is about whom we probed, and not about the router
    /// that answered for it.
    fn icmp<'a>(&self, row: &mut Row, packet: &Packet<'a>) -> Option<Option<&'a [u8]>> {
        let icmp = Icmp::parse(packet.payload)?;
        row.icmp = Some(IcmpHeader { kind: icmp.kind, code: icmp.code, rest: u32_at(&icmp.rest, 0) });
        if icmp.kind == if packet.v6 { 129 } else { 0 } {
            row.dport = u16_at(&icmp.rest, 0)?;
            row.seqnum = u32::from(u16_at(&icmp.rest, 2)?);
            return Some(Some(icmp.payload));
        }
        row.responder = row.saddr;
        let quoted = icmp.payload;
        let (at, number) = if packet.v6 {
            row.saddr = u128_at(quoted, 24)?;
            (40, *quoted.get(6)?)
        } else {
            row.saddr = u128::from(u32_at(quoted, 16)?);
            (usize::from(quoted.first()? & 15) * 4, *quoted.get(9)?)
        };
        let transport = quoted.get(at..)?;
        match number {
            protocol::TCP | protocol::UDP => {
                (row.dport, row.sport) = (u16_at(transport, 0)?, u16_at(transport, 2)?);
                row.seqnum = if number == protocol::TCP { u32_at(transport, 4)? } else { 0 };
            }
            _ => {
                row.dport = u16_at(transport, 4)?;
                row.seqnum = u32::from(u16_at(transport, 6)?);
            }
        }
        Some(None)
    }
}
