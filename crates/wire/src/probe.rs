//! Probes as values: a template of the transport header, what is patched into it, and what counts as an answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cookie::Cookie;

/// A range of source ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl PortRange {
    /// Outside Linux's ephemeral ports, so that the host's own connections stay clear of it (facts of design 4).
    pub const DEFAULT: Self = Self { first: 61000, last: 65535 };

    /// How many ports there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u32 {
        u32::from(self.last.saturating_sub(self.first)) + 1
    }

    /// Whether a port is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// The source port of a probe: `first + (port part of the cookie + probe number) mod len`.
    #[inline]
    pub fn source_port(self, cookie: Cookie, probe_num: u16) -> u16 {
        let offset = (u32::from(cookie.port_part()) + u32::from(probe_num)) % self.len();
        // Below len, and first + len - 1 is last.
        self.first + offset as u16
    }

    /// Which probe of a target left from this port; `None` when the port is not in the range. The answer is below
    /// `len`; the caller compares it with the number of probes.
    #[inline]
    pub fn probe_num(self, cookie: Cookie, port: u16) -> Option<u16> {
        if !self.contains(port) {
            return None;
        }
        let len = self.len();
        let offset = u32::from(port - self.first);
        let num = (offset + len - u32::from(cookie.port_part()) % len) % len;
        u16::try_from(num).ok()
    }
}

/// The transport a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP over IPv4, ICMPv6 over IPv6.
    Icmp,
}

/// Where a match rule counts its offset from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// The IP header.
    Network,
    /// The transport header.
    Transport,
    /// What follows the transport header.
    Payload,
    /// The transport header of the packet that an ICMP error quotes.
    Quoted,
}

/// What a match rule wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// This value.
    Value(u32),
    /// The cookie shifted right by `shift` bits, plus `add` (wrapping at the field's width).
    Cookie {
        /// Bits to shift by.
        shift: u8,
        /// What the answer adds, as an acknowledgement adds 1.
        add: u32,
    },
}

/// A condition on one field of an answer: `field & mask == expected & mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MatchRule {
    /// Where the offset counts from.
    pub base: Base,
    /// Offset in bytes.
    pub offset: u16,
    /// Width in bytes: 1, 2 or 4; network byte order.
    pub width: u8,
    /// The bits that count.
    pub mask: u32,
    /// What they must be.
    pub expect: Expect,
}

/// A kind of answer: its name in the `classification` column, and when it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AnswerClass {
    /// ZMap's word for it, such as `synack`.
    pub name: String,
    /// Whether it is what the probe hoped for.
    pub success: bool,
    /// The transport of the answer.
    pub protocol: Protocol,
    /// All of them must hold.
    pub rules: Vec<MatchRule>,
}

/// What is written into a probe's template for each target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchSource {
    /// The cookie shifted right by so many bits.
    Cookie(u8),
    /// Our port.
    SourcePort,
    /// The target's port.
    TargetPort,
    /// The send time in microseconds, 32 bits, with the key's offset: a TSval.
    Microseconds,
    /// The send time in nanoseconds, 64 bits, with the key's offset.
    Nanoseconds,
    /// Which probe of the target this is.
    ProbeNumber,
}

/// A field of the template that differs from target to target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Patch {
    /// Offset in bytes from the transport header; even, so that checksums can be patched along.
    pub offset: u16,
    /// Width in bytes: 2, 4 or 8.
    pub width: u8,
    /// What is written.
    pub source: PatchSource,
}

/// A declarative probe: plain data that can be stored, sent and compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Probe {
    name: String,
    protocol: Protocol,
    template: Vec<u8>,
    patches: Vec<Patch>,
    answers: Vec<AnswerClass>,
    fields: Vec<String>,
}

/// Why a probe is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// There is no probe of that name.
    #[error("there is no probe '{0}'; there are {names}", names = NAMES.join(", "))]
    UnknownName(String),
    /// The probe has no such argument.
    #[error("the probe {probe} takes no argument '{argument}'; it takes {takes}")]
    UnknownArgument {
        /// The probe.
        probe: &'static str,
        /// What was given.
        argument: String,
        /// What it does take.
        takes: &'static str,
    },
    /// An argument's value is wrong.
    #[error("the probe {probe} cannot use {argument}={value}: {reason}")]
    BadArgument {
        /// The probe.
        probe: &'static str,
        /// The argument.
        argument: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A template that cannot be built into a frame.
    #[error("the probe's template cannot be sent: {0}")]
    Template(&'static str),
}

/// The probes there are.
pub const NAMES: [&str; 3] = ["tcp_synscan", "icmp_echoscan", "udp"];

/// The longest payload of a UDP probe: what fits an Ethernet frame over IPv6.
pub const MAX_PAYLOAD: usize = 1500 - 40 - 8;

const SYN_LINUX: [u8; 40] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // ports, sequence number, no acknowledgement
    0xa0, 0x02, 0xfa, 0xf0, 0, 0, 0, 0, // 40 bytes, SYN, window 64,240
    2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7, // MSS, SACK, timestamps, NOP, window scale
];
const SYN_SMALLEST: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
/// Offset of the MSS value in [`SYN_LINUX`]; the builder lowers it by 20 for IPv6.
pub(crate) const LINUX_MSS_OFFSET: usize = 22;

impl Probe {
    /// The probe of this name with these arguments.
    ///
    /// `tcp_synscan` takes `layout` (`linux`, the default, or `smallest`); `icmp_echoscan` takes nothing; `udp` takes
    /// one of `text`, `hex` (an even number of digits) or `payload` (as `hex`).
    ///
    /// # Errors
    /// [`ProbeError`], in words for the person who typed it.
    pub fn resolve(name: &str, args: &BTreeMap<String, String>) -> Result<Self, ProbeError> {
        match name {
            "tcp_synscan" => tcp_synscan(args),
            "icmp_echoscan" => icmp_echoscan(args),
            "udp" => udp(args),
            _ => Err(ProbeError::UnknownName(name.to_owned())),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its transport.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The transport header and payload, with zeros where patches go.
    pub fn template(&self) -> &[u8] {
        &self.template
    }

    /// What differs from target to target.
    pub fn patches(&self) -> &[Patch] {
        &self.patches
    }

    /// What counts as an answer.
    pub fn answers(&self) -> &[AnswerClass] {
        &self.answers
    }

    /// Columns of its own, beside those of every scan.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Whether an answer tells when its probe was sent.
    pub fn carries_time(&self) -> bool {
        self.patches.iter().any(|p| matches!(p.source, PatchSource::Microseconds | PatchSource::Nanoseconds))
    }

    /// Whether targets have ports.
    pub fn needs_port(&self) -> bool {
        self.protocol != Protocol::Icmp
    }
}

fn refuse_others(
    probe: &'static str,
    args: &BTreeMap<String, String>,
    known: &[&str],
    takes: &'static str,
) -> Result<(), ProbeError> {
    match args.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(ProbeError::UnknownArgument { probe, argument: name.clone(), takes }),
        None => Ok(()),
    }
}

fn value(offset: u16, mask: u32, value: u32) -> MatchRule {
    MatchRule { base: Base::Transport, offset, width: 1, mask, expect: Expect::Value(value) }
}

fn cookie(base: Base, offset: u16, width: u8, shift: u8, add: u32) -> MatchRule {
    MatchRule { base, offset, width, mask: u32::MAX, expect: Expect::Cookie { shift, add } }
}

fn class(name: &str, success: bool, protocol: Protocol, rules: Vec<MatchRule>) -> AnswerClass {
    AnswerClass { name: name.to_owned(), success, protocol, rules }
}

fn tcp_synscan(args: &BTreeMap<String, String>) -> Result<Probe, ProbeError> {
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
            return Err(ProbeError::BadArgument {
                probe: "tcp_synscan",
                argument: "layout",
                value: other.to_owned(),
                reason: "the layouts are linux and smallest",
            });
        }
    };
    // SYN 0x02, RST 0x04, ACK 0x10; both answers acknowledge the SYN.
    let acknowledges = cookie(Base::Transport, 8, 4, 0, 1);
    let answers = vec![
        class("synack", true, Protocol::Tcp, vec![value(13, 0x16, 0x12), acknowledges]),
        class("rst", false, Protocol::Tcp, vec![value(13, 0x14, 0x14), acknowledges]),
        class("icmp", false, Protocol::Icmp, vec![cookie(Base::Quoted, 4, 4, 0, 0)]),
    ];
    Ok(Probe { name: "tcp_synscan".into(), protocol: Protocol::Tcp, template, patches, answers, fields: Vec::new() })
}

fn icmp_echoscan(args: &BTreeMap<String, String>) -> Result<Probe, ProbeError> {
    refuse_others("icmp_echoscan", args, &[], "none")?;
    // Type and code are the builder's, which knows the family; 8 bytes of time, 2 of probe number, 6 of nothing.
    let patches = vec![
        Patch { offset: 4, width: 2, source: PatchSource::Cookie(0) },
        Patch { offset: 6, width: 2, source: PatchSource::Cookie(16) },
        Patch { offset: 8, width: 8, source: PatchSource::Nanoseconds },
        Patch { offset: 16, width: 2, source: PatchSource::ProbeNumber },
    ];
    let ours = |base| vec![cookie(base, 4, 2, 0, 0), cookie(base, 6, 2, 16, 0)];
    let answers = vec![
        class("echoreply", true, Protocol::Icmp, ours(Base::Transport)),
        class("icmp", false, Protocol::Icmp, ours(Base::Quoted)),
    ];
    Ok(Probe {
        name: "icmp_echoscan".into(),
        protocol: Protocol::Icmp,
        template: vec![0; 24],
        patches,
        answers,
        fields: Vec::new(),
    })
}

fn udp(args: &BTreeMap<String, String>) -> Result<Probe, ProbeError> {
    const TAKES: &str = "text=..., hex=... or payload=...";
    refuse_others("udp", args, &["text", "hex", "payload"], TAKES)?;
    let bad = |argument, value: &str, reason| ProbeError::BadArgument {
        probe: "udp",
        argument,
        value: value.to_owned(),
        reason,
    };
    let payload = match (args.get("text"), args.get("hex").or(args.get("payload"))) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(digits)) => {
            unhex(digits).ok_or_else(|| bad("hex", digits, "an even number of hexadecimal digits is needed"))?
        }
        (None, None) => Vec::new(),
        (Some(text), Some(_)) => return Err(bad("text", text, "only one of text and hex can be given")),
    };
    if payload.len() > MAX_PAYLOAD {
        return Err(bad("payload", "(long)", "it does not fit one Ethernet frame of 1,500 bytes"));
    }
    let mut template = vec![0; 8];
    template.extend_from_slice(&payload);
    let answers = vec![class("udp", true, Protocol::Udp, Vec::new()), class("icmp", false, Protocol::Icmp, Vec::new())];
    Ok(Probe {
        name: "udp".into(),
        protocol: Protocol::Udp,
        template,
        patches: Vec::new(),
        answers,
        fields: vec!["data".into()],
    })
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}
