//! Lines of a list: the quick readers that most lists need, and the strict one that has the last word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::entries::Entries;
use crate::error::{Origin, Result, TargetsError};
use crate::family::{Family, address_bits};

/// What the lines until now have told.
pub(super) struct ListParser {
    origin: Origin,
    pub(super) list: Option<(Family, Entries)>,
}

impl ListParser {
    pub(super) fn new(path: &Path) -> Self {
        Self { origin: Origin::line(path, 0), list: None }
    }

    /// Takes the next line, whatever it ends with.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<()> {
        self.origin.line += 1;
        let line = if self.origin.line == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let origin = &self.origin;
        let wrong = |reason| TargetsError::ListLine {
            origin: origin.clone(),
            text: String::from_utf8_lossy(line).into_owned(),
            reason,
        };
        let quick = parse_ipv4(line).map(|(address, port)| (IpAddr::V4(Ipv4Addr::from_bits(address)), port));
        let quick = quick.or_else(|| Some((IpAddr::V6(Ipv6Addr::from_bits(parse_ipv6(line)?)), None)));
        let (address, port) = match quick {
            Some(target) => target,
            None => {
                let text = std::str::from_utf8(line).map_err(|_| wrong("the line is not text"))?;
                parse_target(text).map_err(wrong)?
            }
        };
        let found = Family::of(address);
        let (expected, entries) = self.list.get_or_insert_with(|| (found, Entries::new(found)));
        if *expected != found {
            let text = String::from_utf8_lossy(line).into_owned();
            return Err(TargetsError::MixedFamilies { origin: origin.clone(), text, expected: *expected, found });
        }
        if entries.len() > 0 && entries.has_ports() != port.is_some() {
            return Err(wrong(match port {
                Some(_) => "the lines before it have no port, so this one cannot have one",
                None => "the lines before it have a port, so this one needs one",
            }));
        }
        // The table of `Lookup` numbers entries with 32 bits and keeps the highest for "empty".
        if entries.len() >= u32::MAX as usize {
            return Err(TargetsError::ListTooLong { path: origin.file.clone().unwrap_or_default() });
        }
        entries.push(address_bits(address), port);
        Ok(())
    }
}

/// Reads the lines that most lists are made of, in a third of the time of [`parse_target`], which has the last word on
/// what this does not take.
fn parse_ipv4(line: &[u8]) -> Option<(u32, Option<u16>)> {
    let (mut address, mut dots, mut part, mut digits) = (0u32, 0, 0u32, 0);
    let mut rest = line.iter();
    for &byte in rest.by_ref() {
        match byte {
            // A part that begins with 0 and goes on, or has four digits, is for the strict reader to refuse.
            b'0'..=b'9' if digits < 3 && !(digits > 0 && part == 0) => {
                part = part * 10 + u32::from(byte - b'0');
                digits += 1;
            }
            b'.' if dots < 3 && digits > 0 && part < 256 => {
                address = address << 8 | part;
                (dots, part, digits) = (dots + 1, 0, 0);
            }
            b':' => return Some((finish(address, dots, part, digits)?, Some(parse_port(rest.as_slice())?))),
            _ => return None,
        }
    }
    Some((finish(address, dots, part, digits)?, None))
}

/// The same for IPv6 addresses without a port and without dots.
fn parse_ipv6(line: &[u8]) -> Option<u128> {
    let (mut address, mut count, mut gap) = (0u128, 0, None);
    let mut rest = line;
    if let Some(after) = rest.strip_prefix(b"::") {
        (gap, rest) = (Some(0), after);
    }
    while !rest.is_empty() {
        let digits = rest.iter().take(5).take_while(|byte| byte.is_ascii_hexdigit()).count();
        if !(1..=4).contains(&digits) || count == 8 {
            return None;
        }
        let group =
            rest[..digits].iter().fold(0, |group, &byte| group << 4 | char::from(byte).to_digit(16).unwrap_or(0));
        address = address << 16 | u128::from(group);
        count += 1;
        rest = match &rest[digits..] {
            [] => break,
            [b':', b':', after @ ..] if gap.is_none() => {
                gap = Some(count);
                after
            }
            [b':', after @ ..] if !after.is_empty() => after,
            _ => return None,
        };
    }
    match gap {
        None => (count == 8).then_some(address),
        Some(_) if count == 0 => Some(0),
        // What stands behind the gap stays at the low end; what stands before it moves up.
        Some(before) if count < 8 => {
            let behind = 16 * (count - before);
            let low = address & ((1 << behind) - 1);
            Some(address.checked_shr(behind).unwrap_or(0).checked_shl(128 - 16 * before).unwrap_or(0) | low)
        }
        Some(_) => None,
    }
}

fn finish(address: u32, dots: u32, part: u32, digits: u32) -> Option<u32> {
    (dots == 3 && digits > 0 && part < 256).then_some(address << 8 | part)
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    let plain = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let port = plain.then(|| digits.iter().fold(0u32, |port, &digit| port * 10 + u32::from(digit - b'0')))?;
    u16::try_from(port).ok()
}

/// Reads `address` or `address:port`.
pub(crate) fn parse_target(text: &str) -> std::result::Result<(IpAddr, Option<u16>), &'static str> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    if let Ok(both) = text.parse::<SocketAddr>() {
        return match both {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Err("an address with a zone cannot be a target"),
            _ => Ok((both.ip(), Some(both.port()))),
        };
    }
    let port = text.rsplit_once(':').map(|(_, port)| port).unwrap_or_default();
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_err() {
        return Err("ports end at 65535");
    }
    Err("it is neither an address nor address:port")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quick reader takes nothing that the strict one does not take, and reads it alike.
    #[test]
    fn the_quick_reader_agrees_with_the_strict_one() {
        let parts = ["", "0", "00", "1", "01", "9", "25", "255", "256", "1000", "x", "+1", " 1"];
        let ends = ["", ".", ":", ":80", ":0", ":65535", ":65536", ":080", ":+80", ":00080", ":000080", ":8x", "/24"];
        let mut taken = 0;
        for a in parts {
            for b in parts {
                for d in parts {
                    for end in ends {
                        let text = format!("{a}.{b}.7.{d}{end}");
                        let strict = parse_target(&text).ok();
                        if let Some((address, port)) = parse_ipv4(text.as_bytes()) {
                            let found = (IpAddr::V4(Ipv4Addr::from_bits(address)), port);
                            assert_eq!(Some(found), strict, "{text}");
                            taken += 1;
                        } else {
                            assert!(strict.is_none() || end.len() > 6, "{text} is plain, and was left");
                        }
                    }
                }
            }
        }
        assert!(taken > 500);
        for text in ["1.2.3", "1.2.3.4.5", "1.2.3.4:", "::1", "1.2.3.4 ", ""] {
            assert!(parse_ipv4(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn the_quick_reader_of_ipv6_agrees_with_the_strict_one() {
        let groups = ["", "0", "1", "ffff", "2001", "00ab", "12345", "g", "DB8"];
        let (mut taken, mut state) = (0, 1u64);
        for _ in 0..200_000 {
            let mut next = |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((state >> 33) % bound) as usize
            };
            // Mostly plain groups, so that many of the texts are addresses.
            let count = 1 + next(9);
            let text: Vec<&str> =
                (0..count).map(|_| if next(4) > 0 { groups[1 + next(5)] } else { groups[next(9)] }).collect();
            let text = text.join(":");
            let text = [text.clone(), format!("::{text}"), format!("{text}::")][next(3)].clone();
            if let Some(address) = parse_ipv6(text.as_bytes()) {
                assert_eq!(text.parse(), Ok(Ipv6Addr::from_bits(address)), "{text}");
                taken += 1;
            } else {
                assert!(text.parse::<Ipv6Addr>().is_err(), "{text} is plain, and was left");
            }
        }
        assert!(taken > 10_000, "{taken}");
        assert_eq!(parse_ipv6(b"::"), Some(0));
        for text in ["", ":", ":::", "1:2:3:4:5:6:7:", "::1.2.3.4", "[::1]:80"] {
            assert_eq!(parse_ipv6(text.as_bytes()), None, "{text}");
        }
    }
}
