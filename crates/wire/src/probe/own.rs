//! Probes of a user's own, declared as texts that a plan keeps:
//!
//! | argument | says |
//! |---|---|
//! | `name` | what it is called |
//! | `protocol` | `tcp`, `udp` or `icmp` |
//! | `template` | hexadecimal: TCP's header and what follows; for UDP and ICMP echo what follows the header of 8 bytes |
//! | `patches` | `payload[4:4] = cookie; transport[8:4] = cookie>>32`: what is written for each target |
//! | `match` | `+version: payload[0] & 0x80 == 0x80, payload[6:4] == cookie; other:` : classes of answers, `+` a success |
//! | `fields` | `versions uint8; draft utf8`: columns that a program makes of the answers |

use serde::{Deserialize, Serialize};

use super::answer::{class, cookie};
use super::names::{Args, refuse_others, unhex};
use super::udp::HEADER;
use super::{AnswerClass, Base, Expect, MAX_PAYLOAD, MatchRule, Patch, PatchSource, Probe, ProbeError, Protocol, icmp};

/// A column that a program makes of the answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The type of its values.
    pub kind: FieldType,
}

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum FieldType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int64,
    Float64,
    Utf8,
    Binary,
}

impl FieldType {
    /// All of them by name.
    pub const ALL: [(&str, Self); 9] = [
        ("bool", Self::Bool),
        ("uint8", Self::Uint8),
        ("uint16", Self::Uint16),
        ("uint32", Self::Uint32),
        ("uint64", Self::Uint64),
        ("int64", Self::Int64),
        ("float64", Self::Float64),
        ("utf8", Self::Utf8),
        ("binary", Self::Binary),
    ];
}

/// The filter looks no further into a frame; with the longest headers before it, so far into a payload.
const MATCHED: u16 = 400;
/// TCP's header at its shortest and longest.
const TCP_HEADER: usize = 20;
const TCP_LONGEST: usize = 60;

pub(super) fn own(args: &Args) -> Result<Probe, ProbeError> {
    const TAKES: &str = "name, protocol, template, patches, match and fields";
    refuse_others("own", args, &["name", "protocol", "template", "patches", "match", "fields"], TAKES)?;
    let given = |name| args.get(name).map_or("", String::as_str);
    let name = given("name");
    if !is_name(name) {
        return Err(bad("name", name, "a name has letters, digits and _, and begins with a letter"));
    }
    let protocol = match given("protocol") {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        other => return Err(bad("protocol", other, "it is tcp, udp or icmp")),
    };
    let template = template(protocol, given("template"))?;
    let header = header_len(protocol, &template);
    let mut patches: Vec<Patch> = if protocol == Protocol::Icmp { icmp::PATCHES.to_vec() } else { Vec::new() };
    for text in items(given("patches")) {
        let patch = patch(text, header).map_err(|reason| bad("patches", text, reason))?;
        check_patch(text, &patch, &template, &patches, protocol)?;
        patches.push(patch);
    }
    let mut answers = Vec::new();
    for text in items(given("match")) {
        let read = answer_class(text, protocol).map_err(|reason| bad("match", text, reason))?;
        answers.push(read);
    }
    check_answers(protocol, &patches, &answers, given("match"))?;
    if !answers.iter().any(|each| each.protocol == Protocol::Icmp && !each.success) {
        answers.push(class("icmp", false, Protocol::Icmp, quoted(protocol, &patches)));
    }
    let fields = items(given("fields")).map(field).collect::<Result<_, _>>()?;
    Ok(Probe { template, patches, answers, fields, by_rules: true, ..Probe::named(name, protocol) })
}

fn bad(argument: &'static str, value: &str, reason: impl Into<String>) -> ProbeError {
    ProbeError::bad("own", argument, value, reason)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|each| each.is_ascii_alphanumeric() || each == '_')
}

/// What is separated by semicolons or lines.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', '\n']).map(str::trim).filter(|item| !item.is_empty())
}

fn template(protocol: Protocol, digits: &str) -> Result<Vec<u8>, ProbeError> {
    let shown =
        || if digits.len() > 40 { format!("{}...", &digits.get(..40).unwrap_or("")) } else { digits.to_owned() };
    let refuse = |reason: String| Err(bad("template", &shown(), reason));
    let Some(bytes) = unhex(digits) else {
        return refuse("an even number of hexadecimal digits is needed".to_owned());
    };
    if protocol == Protocol::Tcp {
        let header = bytes.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
        if !(TCP_HEADER..=TCP_LONGEST).contains(&header) || header > bytes.len() {
            return refuse(
                "TCP's header begins it: 20 bytes or more, whose 13th (0x50 for 20) says how many".to_owned(),
            );
        }
        if bytes.len() > MAX_PAYLOAD + HEADER {
            return refuse(format!("it has {} bytes, and a frame room for {}", bytes.len(), MAX_PAYLOAD + HEADER));
        }
        return Ok(bytes);
    }
    if bytes.len() > MAX_PAYLOAD {
        return refuse(format!("it has {} bytes, and a frame room for {MAX_PAYLOAD}", bytes.len()));
    }
    let mut template = vec![0; HEADER];
    template.extend_from_slice(&bytes);
    Ok(template)
}

fn header_len(protocol: Protocol, template: &[u8]) -> u16 {
    match protocol {
        // It was checked: at most 60.
        Protocol::Tcp => u16::from(template[12] >> 4) * 4,
        Protocol::Udp | Protocol::Icmp => HEADER as u16,
    }
}

/// `payload[4:4] = cookie>>32`.
fn patch(text: &str, header: u16) -> Result<Patch, String> {
    let (place, source) = text.split_once('=').ok_or("write payload[OFFSET:WIDTH] = SOURCE")?;
    let (base, offset, width) = place_of(place.trim())?;
    let offset = match base {
        Base::Transport => offset,
        Base::Payload => offset.checked_add(header).ok_or("it is beyond the template")?,
        Base::Network | Base::Quoted => return Err("a patch lies in transport[] or payload[]".to_owned()),
    };
    if !matches!(width, 2 | 4 | 8) {
        return Err(format!("a patch has 2, 4 or 8 bytes, and this one {width}"));
    }
    if !offset.is_multiple_of(2) {
        return Err("its offset is odd, and checksums are made of even words: move it by one".to_owned());
    }
    let source = match source.trim() {
        "probe_num" => PatchSource::ProbeNumber,
        "sport" => PatchSource::SourcePort,
        "dport" => PatchSource::TargetPort,
        "microseconds" => PatchSource::Microseconds,
        "nanoseconds" => PatchSource::Nanoseconds,
        other => match cookie_of(other)? {
            Some((shift, 0)) => PatchSource::Cookie(shift),
            Some(_) => return Err("a patch writes the cookie as it is: nothing is added".to_owned()),
            None => {
                return Err(format!(
                    "{other} is nothing to write: there are cookie, cookie>>N, probe_num, sport, dport, microseconds, \
                     nanoseconds"
                ));
            }
        },
    };
    Ok(Patch { offset, width, source })
}

/// Whether it lies inside the template, on nothing that something else is written to.
fn check_patch(
    text: &str,
    patch: &Patch,
    template: &[u8],
    others: &[Patch],
    protocol: Protocol,
) -> Result<(), ProbeError> {
    let bytes = |patch: &Patch| usize::from(patch.offset)..usize::from(patch.offset) + usize::from(patch.width);
    let mine = bytes(patch);
    if mine.end > template.len() {
        let reason = format!("it ends at byte {} of a template of {} (headers counted)", mine.end, template.len());
        return Err(bad("patches", text, reason));
    }
    let filled = match protocol {
        Protocol::Tcp => [0..4, 16..18],
        Protocol::Udp | Protocol::Icmp => [0..6, 6..HEADER],
    };
    if filled.into_iter().chain(others.iter().map(bytes)).any(|other| mine.start < other.end && other.start < mine.end)
    {
        let reason = "it lies on another patch, or on what is always filled in: ports, length, type, echo id, checksum";
        return Err(bad("patches", text, reason));
    }
    Ok(())
}

/// `+NAME: RULE, RULE`, or `NAME/icmp: RULE` for an ICMP error.
fn answer_class(text: &str, probe: Protocol) -> Result<AnswerClass, String> {
    let (head, rules) = text.split_once(':').ok_or("write NAME: RULE, RULE, with a + before the name of a success")?;
    let (success, name) = match head.trim().strip_prefix('+') {
        Some(name) => (true, name.trim()),
        None => (false, head.trim()),
    };
    let (name, protocol) = match name.split_once('/') {
        Some((name, "icmp")) => (name, Protocol::Icmp),
        Some((_, other)) => return Err(format!("only /icmp may follow a name, not /{other}")),
        None if name == "icmp" => (name, Protocol::Icmp),
        None => (name, probe),
    };
    if !is_name(name) {
        return Err("a class's name has letters, digits and _, and begins with a letter".to_owned());
    }
    let mut read = Vec::new();
    let error = probe == Protocol::Icmp && !success || protocol != probe;
    if probe == Protocol::Icmp {
        // An echo has no port to be known by.
        read.extend(icmp::ours(if error { Base::Quoted } else { Base::Transport }));
    }
    for text in rules.split(',').map(str::trim).filter(|rule| !rule.is_empty()) {
        read.push(rule(text).map_err(|reason| format!("{text}: {reason}"))?);
    }
    Ok(class(name, success, protocol, read))
}

/// `payload[0] & 0x80 == 0x80` or `transport[4:4] == cookie>>32+1`.
fn rule(text: &str) -> Result<MatchRule, String> {
    let (left, right) = text.split_once("==").ok_or("write PLACE == VALUE, or PLACE & MASK == VALUE")?;
    let (place, mask) = match left.split_once('&') {
        Some((place, mask)) => (place, Some(mask.trim())),
        None => (left, None),
    };
    let (base, offset, width) = place_of(place.trim())?;
    if !matches!(width, 1 | 2 | 4) {
        return Err(format!("a rule looks at 1, 2 or 4 bytes, not at {width}"));
    }
    if offset > MATCHED {
        return Err(format!("the filter looks at the first bytes alone: an offset is at most {MATCHED}"));
    }
    let fits = |value: u32| width == 4 || value >> (8 * width) == 0;
    let checked = |text: &str| number(text).filter(|value| fits(*value));
    let none = |text: &str| format!("{text} is no number of {width} bytes, nor a part of the cookie");
    let mask =
        mask.map_or(Ok(u32::MAX >> (32 - 8 * u32::from(width))), |text| checked(text).ok_or_else(|| none(text)))?;
    let right = right.trim();
    let expect = match cookie_of(right)? {
        Some((shift, add)) => Expect::Cookie { shift, add },
        None => Expect::Value(checked(right).ok_or_else(|| none(right))?),
    };
    if let Expect::Value(value) = expect
        && value & !mask != 0
    {
        return Err("it never holds: the value has bits that the mask has not".to_owned());
    }
    Ok(MatchRule { base, offset, width, mask, expect })
}

/// `payload[4:2]`, or `payload[4]` for one byte.
fn place_of(text: &str) -> Result<(Base, u16, u8), String> {
    let how = || format!("{text} is no place: write payload[OFFSET:WIDTH], or transport[], ip[], quoted[]");
    let (base, rest) = text.split_once('[').ok_or_else(how)?;
    let inner = rest.strip_suffix(']').ok_or_else(how)?;
    let (offset, width) = inner.split_once(':').unwrap_or((inner, "1"));
    let base = match base {
        "ip" => Base::Network,
        "transport" => Base::Transport,
        "payload" => Base::Payload,
        "quoted" => Base::Quoted,
        _ => return Err(how()),
    };
    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| how());
    Ok((base, number(offset)?, u8::try_from(number(width)?).map_err(|_| how())?))
}

/// `cookie`, `cookie>>32`, `cookie+1`, `cookie>>32+1`, as shift and what is added; `None` when it is something else.
fn cookie_of(text: &str) -> Result<Option<(u8, u32)>, String> {
    let Some(rest) = text.strip_prefix("cookie") else { return Ok(None) };
    let how = || format!("{text} is no part of the cookie: write cookie, cookie>>32 or cookie>>32+1");
    let rest = rest.replace(' ', "");
    let (shift, add) = match rest.split_once('+') {
        Some((shift, add)) => (shift, number(add).ok_or_else(how)?),
        None => (rest.as_str(), 0),
    };
    let shift = match shift {
        "" => 0,
        _ => shift.strip_prefix(">>").and_then(|bits| bits.parse().ok()).filter(|bits| *bits < 64).ok_or_else(how)?,
    };
    Ok(Some((shift, add)))
}

fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Whether each success can be told from what others send.
fn check_answers(protocol: Protocol, patches: &[Patch], answers: &[AnswerClass], text: &str) -> Result<(), ProbeError> {
    let refuse = |reason: String| Err(bad("match", text, reason));
    let Some(_) = answers.iter().find(|each| each.success) else {
        return refuse("no class of answers counts as a success: put a + before the name of one".to_owned());
    };
    if protocol != Protocol::Tcp {
        // The port carries a part of the cookie, and identifier and sequence number of an echo do.
        return Ok(());
    }
    if !patches.iter().any(|patch| matches!(patch.source, PatchSource::Cookie(_))) {
        let reason = "no patch writes the cookie, so that answers could not be told from others' frames: write \
                      transport[4:4] = cookie";
        return Err(bad("patches", "", reason));
    }
    let compares = |each: &AnswerClass| each.rules.iter().any(|rule| matches!(rule.expect, Expect::Cookie { .. }));
    match answers.iter().find(|each| each.success && !compares(each)) {
        Some(each) => refuse(format!(
            "the class {} compares no field with the cookie, and a port alone is soon guessed: say where its answers \
             carry it, such as transport[8:4] == cookie+1",
            each.name
        )),
        None => Ok(()),
    }
}

/// What an ICMP error that quotes the probe shows of the cookie: TCP's sequence number, an echo's identifiers. The port
/// is compared in any case.
fn quoted(protocol: Protocol, patches: &[Patch]) -> Vec<MatchRule> {
    match protocol {
        Protocol::Udp => Vec::new(),
        Protocol::Icmp => icmp::ours(Base::Quoted),
        Protocol::Tcp => patches
            .iter()
            .filter_map(|patch| match patch {
                Patch { offset: 4, width: 4, source: PatchSource::Cookie(shift) } => {
                    Some(cookie(Base::Quoted, 4, 4, *shift, 0))
                }
                _ => None,
            })
            .collect(),
    }
}

/// `NAME TYPE`.
fn field(text: &str) -> Result<Field, ProbeError> {
    let types = || FieldType::ALL.map(|(name, _)| name).join(", ");
    let refuse = |reason: String| Err(bad("fields", text, reason));
    let Some((name, kind)) = text.split_once([' ', ':']) else {
        return refuse(format!("write NAME TYPE, where TYPE is one of {}", types()));
    };
    if !is_name(name) {
        return refuse("a field's name has letters, digits and _, and begins with a letter".to_owned());
    }
    match FieldType::ALL.iter().find(|(known, _)| *known == kind.trim()) {
        Some((_, kind)) => Ok(Field { name: name.to_owned(), kind: *kind }),
        None => refuse(format!("the types are {}", types())),
    }
}
