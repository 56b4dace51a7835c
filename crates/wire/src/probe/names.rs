//! The probes there are, by name.

use std::collections::BTreeMap;

use super::{Probe, ProbeError, dns, icmp, ntp, own, tcp, udp};

/// The arguments of a probe: texts by name.
pub(super) type Args = BTreeMap<String, String>;

/// The probes there are, and what each does.
pub const NAMES: [(&str, &str); 7] = [
    ("tcp_synscan", "sends a SYN and hopes for a SYN-ACK"),
    ("tcp_synackscan", "sends a SYN-ACK, which whoever is there resets"),
    ("icmp_echoscan", "sends an ICMP or ICMPv6 echo request"),
    ("udp", "sends text:TEXT, hex:DIGITS, file:PATH or template:PATH"),
    ("dns", "asks a question, TYPE,NAME or TYPE:nr,NAME (no recursion)"),
    ("ntp", "asks an NTP server for its time"),
    ("own", "one that you declare, in a plan or in Python (docs/probes.md)"),
];

/// The probe of this name with these arguments.
pub(super) fn resolve(name: &str, args: &Args) -> Result<Probe, ProbeError> {
    match name {
        "tcp_synscan" => tcp::synscan(args),
        "tcp_synackscan" => tcp::synackscan(args),
        "icmp_echoscan" => icmp::echoscan(args),
        "udp" => udp::udp(args),
        "dns" => dns::dns(args),
        "ntp" => ntp::ntp(args),
        "own" => own::own(args),
        _ => Err(ProbeError::UnknownName(name.to_owned())),
    }
}

/// Refuses arguments that the probe does not know.
pub(super) fn refuse_others(
    probe: &'static str,
    args: &Args,
    known: &[&str],
    takes: &'static str,
) -> Result<(), ProbeError> {
    match args.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(ProbeError::UnknownArgument { probe, argument: name.clone(), takes }),
        None => Ok(()),
    }
}

/// The bytes of an even number of hexadecimal digits.
pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}
