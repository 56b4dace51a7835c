//! SYNs, and SYN-ACKs that nobody asked for.

use super::answer::{class, cookie, value};
use super::names::{Args, refuse_others};
use super::{Base, Patch, PatchSource, Probe, ProbeError, Protocol};

const SYN_LINUX: [u8; 40] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // ports, sequence number, no acknowledgement
    0xa0, 0x02, 0xfa, 0xf0, 0, 0, 0, 0, // 40 bytes, SYN, window 64,240
    2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7, // MSS, SACK, timestamps, NOP, window scale
];
const SYN_SMALLEST: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
/// As ZMap's: with an MSS, of which the builder takes 20 for IPv6.
const SYN_ACK: [u8; 24] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 0x12, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];
/// Offset of the MSS value in [`SYN_LINUX`] and [`SYN_ACK`]; the builder lowers it by 20 for IPv6.
pub(crate) const MSS_OFFSET: usize = 22;

const SYN: u32 = 0x02;
const RST: u32 = 0x04;
const ACK: u32 = 0x10;

pub(super) fn synscan(args: &Args) -> Result<Probe, ProbeError> {
    refuse_others("tcp_synscan", args, &["layout"], "layout=linux or layout=smallest")?;
    let layout = args.get("layout").map_or("linux", String::as_str);
    let mut patches = vec![Patch { offset: 4, width: 4, source: PatchSource::Cookie(0) }];
    let template = match layout {
        "linux" => {
            patches.push(Patch { offset: 28, width: 4, source: PatchSource::Microseconds });
            SYN_LINUX.to_vec()
        }
        "smallest" => SYN_SMALLEST.to_vec(),
        other => {
            return Err(ProbeError::bad("tcp_synscan", "layout", other, "the layouts are linux and smallest"));
        }
    };
    // Both answers acknowledge the SYN.
    let acknowledges = cookie(Base::Transport, 8, 4, 0, 1);
    let answers = vec![
        class("synack", true, Protocol::Tcp, vec![value(13, RST | SYN | ACK, SYN | ACK), acknowledges]),
        class("rst", false, Protocol::Tcp, vec![value(13, RST | ACK, RST | ACK), acknowledges]),
        class("icmp", false, Protocol::Icmp, vec![cookie(Base::Quoted, 4, 4, 0, 0)]),
    ];
    Ok(Probe { template, patches, answers, ..Probe::named("tcp_synscan", Protocol::Tcp) })
}

/// A host that has sent no SYN resets it, with our acknowledgement number as its sequence number (RFC 9293, 3.10.7.1
/// and 3.10.7.2). That carries the low half of the cookie, our sequence number the high one, half of which is in the
/// port too.
pub(super) fn synackscan(args: &Args) -> Result<Probe, ProbeError> {
    refuse_others("tcp_synackscan", args, &[], "none")?;
    let patches = vec![
        Patch { offset: 4, width: 4, source: PatchSource::Cookie(32) },
        Patch { offset: 8, width: 4, source: PatchSource::Cookie(0) },
    ];
    let answers = vec![
        class("rst", true, Protocol::Tcp, vec![value(13, RST, RST), cookie(Base::Transport, 4, 4, 0, 0)]),
        // As ZMap does, also one with a sequence number past ours, or that acknowledges us.
        class("rst", true, Protocol::Tcp, vec![value(13, RST, RST), cookie(Base::Transport, 4, 4, 0, 1)]),
        class("rst", true, Protocol::Tcp, vec![value(13, RST | ACK, RST | ACK), cookie(Base::Transport, 8, 4, 32, 1)]),
        class(
            "synack",
            false,
            Protocol::Tcp,
            vec![value(13, RST | SYN | ACK, SYN | ACK), cookie(Base::Transport, 8, 4, 32, 1)],
        ),
        class("icmp", false, Protocol::Icmp, vec![cookie(Base::Quoted, 4, 4, 32, 0)]),
    ];
    Ok(Probe {
        template: SYN_ACK.to_vec(),
        patches,
        answers,
        by_rules: true,
        ..Probe::named("tcp_synackscan", Protocol::Tcp)
    })
}
