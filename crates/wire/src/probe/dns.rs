//! A question of DNS.

use super::answer::{class, cookie};
use super::names::{Args, refuse_others};
use super::udp::HEADER;
use super::{Base, Expect, MatchRule, Patch, PatchSource, Probe, ProbeError, Protocol};

/// What is asked unless something else is given: a name that IANA keeps for such uses.
const QUESTION: &str = "A,example.com";
/// ZMap's types, and a few more.
const TYPES: [(&str, u16); 14] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("DS", 43),
    ("RRSIG", 46),
    ("DNSKEY", 48),
    ("ALL", 255),
    ("ANY", 255),
];
/// The longest name, in its encoded form, and the longest label (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

/// Id, flags, counts, then the question. The id is the cookie's low half word: beside the port, 16 bits more that an
/// answer has to repeat.
pub(super) fn dns(args: &Args) -> Result<Probe, ProbeError> {
    refuse_others("dns", args, &["question"], "question=TYPE,NAME, for example A,example.com")?;
    let asked = args.get("question").map_or(QUESTION, String::as_str);
    let question = Question::parse(asked).map_err(|reason| ProbeError::bad("dns", "question", asked, reason))?;
    let mut template = vec![0; HEADER];
    template.extend_from_slice(&[0, 0, u8::from(question.recursion), 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    template.extend_from_slice(&question.name);
    template.extend_from_slice(&question.kind.to_be_bytes());
    template.extend_from_slice(&[0, 1]); // the class Internet
    let patches = vec![Patch { offset: HEADER as u16, width: 2, source: PatchSource::Cookie(0) }];
    let flags =
        |mask, value| MatchRule { base: Base::Payload, offset: 2, width: 2, mask, expect: Expect::Value(value) };
    let id = cookie(Base::Payload, 0, 2, 0, 0);
    let answers = vec![
        // QR says that it is a response, the last four bits whether there was an error.
        class("dns", true, Protocol::Udp, vec![id, flags(0x800f, 0x8000)]),
        class("dns_formerr", true, Protocol::Udp, vec![id, flags(0x800f, 0x8001)]),
        class("dns_servfail", true, Protocol::Udp, vec![id, flags(0x800f, 0x8002)]),
        class("dns_nxdomain", true, Protocol::Udp, vec![id, flags(0x800f, 0x8003)]),
        class("dns_notimp", true, Protocol::Udp, vec![id, flags(0x800f, 0x8004)]),
        class("dns_refused", true, Protocol::Udp, vec![id, flags(0x800f, 0x8005)]),
        class("dns_error", true, Protocol::Udp, vec![id, flags(0x8000, 0x8000)]),
        // To the right port, and no response to this question.
        class("udp", false, Protocol::Udp, Vec::new()),
        class("icmp", false, Protocol::Icmp, Vec::new()),
    ];
    Ok(Probe { template, patches, answers, by_rules: true, ..Probe::named("dns", Protocol::Udp) })
}

struct Question {
    kind: u16,
    recursion: bool,
    /// Label by label, with the root's.
    name: Vec<u8>,
}

impl Question {
    /// ZMap's form: `A,example.com`, or `A:nr,example.com` for no recursion.
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains(';') {
            return Err("one question a run: measure each with a plan of its own".to_owned());
        }
        let (kind, name) = text.split_once(',').ok_or("write TYPE,NAME, for example A,example.com")?;
        let (kind, recursion) = match kind.split_once(':') {
            None => (kind, true),
            Some((kind, "nr")) => (kind, false),
            Some((_, other)) => return Err(format!("the type's suffix is nr (no recursion), not {other}")),
        };
        let number = TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind)).map(|(_, number)| *number);
        let kind = number
            .or_else(|| kind.parse().ok())
            .ok_or_else(|| format!("the types are {} or a number", TYPES.map(|(name, _)| name).join(", ")))?;
        let mut encoded = Vec::new();
        let name = name.strip_suffix('.').unwrap_or(name);
        for label in name.split('.').filter(|_| !name.is_empty()) {
            if label.is_empty() || label.len() > MAX_LABEL || !label.is_ascii() {
                return Err(format!("a label of a name has 1 to {MAX_LABEL} bytes of ASCII, and {label:?} does not"));
            }
            encoded.push(label.len() as u8);
            encoded.extend_from_slice(label.as_bytes());
        }
        encoded.push(0);
        if encoded.len() > MAX_NAME {
            return Err(format!("a name has at most {MAX_NAME} bytes"));
        }
        Ok(Self { kind, recursion, name: encoded })
    }
}
