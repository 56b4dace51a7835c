//! Datagrams of a fixed payload, or of a template's.

use super::answer::class;
use super::names::{Args, refuse_others, unhex};
use super::template::Template;
use super::{MAX_PAYLOAD, Probe, ProbeError, Protocol};

/// What UDP's header takes.
pub(super) const HEADER: usize = 8;

pub(super) fn udp(args: &Args) -> Result<Probe, ProbeError> {
    const TAKES: &str = "text=..., hex=..., payload=..., template=... or template_hex=...";
    refuse_others("udp", args, &["text", "hex", "payload", "template", "template_hex"], TAKES)?;
    if args.len() > 1 {
        let given = args.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(ProbeError::bad("udp", "payload", &given, "only one of these can be given"));
    }
    let digits = |name, value: &str| {
        let reason = "an even number of hexadecimal digits is needed";
        unhex(value).ok_or_else(|| ProbeError::bad("udp", name, value, reason))
    };
    let (payload, filling) = match args.first_key_value() {
        None => (Vec::new(), None),
        Some((name, text)) => match name.as_str() {
            "text" => (text.as_bytes().to_vec(), None),
            "template" => (Vec::new(), Some(Template::parse(text.as_bytes())?)),
            "template_hex" => (Vec::new(), Some(Template::parse(&digits("template_hex", text)?)?)),
            _ => (digits("hex", text)?, None),
        },
    };
    if payload.len() > MAX_PAYLOAD {
        return Err(ProbeError::bad("udp", "payload", "(long)", "it does not fit one Ethernet frame of 1,500 bytes"));
    }
    let mut template = vec![0; HEADER];
    template.extend_from_slice(&payload);
    let answers = vec![class("udp", true, Protocol::Udp, Vec::new()), class("icmp", false, Protocol::Icmp, Vec::new())];
    Ok(Probe { template, answers, filling, ..Probe::named("udp", Protocol::Udp) })
}
