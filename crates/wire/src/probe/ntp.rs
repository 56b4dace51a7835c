//! A client's request of NTP.

use super::answer::{class, cookie};
use super::names::{Args, refuse_others};
use super::udp::HEADER;
use super::{Base, Expect, MatchRule, Patch, PatchSource, Probe, ProbeError, Protocol};

/// Bytes of a message without extensions (RFC 5905, 7.3).
const MESSAGE: usize = 48;
/// Clock unsynchronised, version 4, mode 3 (client): ZMap's.
const REQUEST: u8 = 0xe3;
/// The mode of a server's answer.
const SERVER: u32 = 4;
/// Where in a message the time stands that a request was sent at; a server copies it to [`ORIGINATE`]. It may be
/// anything that its sender recognises.
const TRANSMIT: usize = 40;
const ORIGINATE: u16 = 24;

pub(super) fn ntp(args: &Args) -> Result<Probe, ProbeError> {
    refuse_others("ntp", args, &[], "none")?;
    let mut template = vec![0; HEADER + MESSAGE];
    template[HEADER] = REQUEST;
    let patches = vec![Patch { offset: (HEADER + TRANSMIT) as u16, width: 8, source: PatchSource::Cookie(0) }];
    let mode = MatchRule { base: Base::Payload, offset: 0, width: 1, mask: 0x07, expect: Expect::Value(SERVER) };
    let answers = vec![
        class(
            "ntp",
            true,
            Protocol::Udp,
            vec![mode, cookie(Base::Payload, ORIGINATE, 4, 32, 0), cookie(Base::Payload, ORIGINATE + 4, 4, 0, 0)],
        ),
        // To the right port, and no answer to this request.
        class("udp", false, Protocol::Udp, Vec::new()),
        class("icmp", false, Protocol::Icmp, Vec::new()),
    ];
    Ok(Probe { template, patches, answers, by_rules: true, ..Probe::named("ntp", Protocol::Udp) })
}
