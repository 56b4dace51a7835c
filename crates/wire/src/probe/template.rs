//! ZMap's template language for UDP payloads: bytes as they are, and `${FIELD}` or `${FIELD=n}` in between.
//!
//! What is drawn at random follows from the cookie and the probe's number, so that a plan tells afterwards what exactly
//! was sent to whom.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{MAX_PAYLOAD, ProbeError};
use crate::cookie::Cookie;

/// The fields of a template, and what each is replaced by.
pub const FIELDS: [(&str, &str); 13] = [
    ("SADDR_N", "our address in network byte order, 4 bytes or 16"),
    ("SADDR", "our address as text"),
    ("DADDR_N", "the target's address in network byte order, 4 bytes or 16"),
    ("DADDR", "the target's address as text"),
    ("SPORT_N", "our port in network byte order"),
    ("SPORT", "our port as text"),
    ("DPORT_N", "the target's port in network byte order"),
    ("DPORT", "the target's port as text"),
    ("RAND_BYTE", "=n: so many random bytes"),
    ("RAND_DIGIT", "=n: so many random digits"),
    ("RAND_ALPHA", "=n: so many random letters"),
    ("RAND_ALPHANUM", "=n: so many random letters and digits"),
    ("HEX", "=DIGITS: the bytes of these hexadecimal digits"),
];

const ALPHANUM: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// The letters come first.
const LETTERS: u64 = 52;
/// The text of an IPv6 address at its longest.
const LONGEST_V6: usize = 39;
const LONGEST_V4: usize = 15;
const LONGEST_PORT: usize = 5;

/// A payload with places that are filled in for each target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Part {
    Bytes(Vec<u8>),
    OurAddress,
    OurAddressText,
    TargetAddress,
    TargetAddressText,
    OurPort,
    OurPortText,
    TargetPort,
    TargetPortText,
    RandomBytes(u16),
    RandomDigits(u16),
    RandomLetters(u16),
    RandomAlphanumeric(u16),
}

/// What a template is filled in with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values {
    pub(crate) v6: bool,
    pub(crate) ours: u128,
    pub(crate) our_port: u16,
    pub(crate) target: u128,
    pub(crate) target_port: u16,
    pub(crate) cookie: Cookie,
    pub(crate) probe_num: u16,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`ProbeError::BadArgument`] naming the field that there is not, the number that is none, or that the payload does
    /// not fit a frame.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, ProbeError> {
        let mut parts = Vec::new();
        while let Some(at) = bytes.windows(2).position(|pair| pair == b"${") {
            if at > 0 {
                parts.push(Part::Bytes(bytes[..at].to_vec()));
            }
            let field = &bytes[at + 2..];
            let end = field.iter().position(|byte| *byte == b'}');
            let end =
                end.ok_or_else(|| bad("${", "a field begins there, and no } ends it; a ${ as it is: ${HEX=247b}"))?;
            let text = String::from_utf8_lossy(&field[..end]);
            parts.push(Part::parse(&text)?);
            bytes = &field[end + 1..];
        }
        if !bytes.is_empty() {
            parts.push(Part::Bytes(bytes.to_vec()));
        }
        let template = Self { parts };
        if template.longest(true) > MAX_PAYLOAD {
            return Err(bad("(long)", "it does not fit one Ethernet frame of 1,500 bytes, filled in"));
        }
        Ok(template)
    }

    /// The most bytes that it may become.
    pub fn longest(&self, v6: bool) -> usize {
        self.parts.iter().map(|part| part.longest(v6)).sum()
    }

    /// Writes it, filled in, to the front of `out`, and returns its length.
    ///
    /// # Panics
    /// When `out` is shorter than [`Template::longest`].
    pub(crate) fn write(&self, out: &mut [u8], values: &Values) -> usize {
        let mut at = 0;
        let mut draws = Draws::new(values);
        for part in &self.parts {
            at += part.write(&mut out[at..], values, &mut draws);
        }
        at
    }
}

fn bad(value: &str, reason: impl Into<String>) -> ProbeError {
    ProbeError::bad("udp", "template", value, reason)
}

impl Part {
    /// What stands between `${` and `}`.
    fn parse(text: &str) -> Result<Self, ProbeError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let count = || match value {
            None => Ok(1),
            Some(number) => number.parse().map_err(|_| bad(text, format!("{number} is no number of characters"))),
        };
        Ok(match name {
            "SADDR_N" => Self::OurAddress,
            "SADDR" => Self::OurAddressText,
            "DADDR_N" => Self::TargetAddress,
            "DADDR" => Self::TargetAddressText,
            "SPORT_N" => Self::OurPort,
            "SPORT" => Self::OurPortText,
            "DPORT_N" => Self::TargetPort,
            "DPORT" => Self::TargetPortText,
            "RAND_BYTE" => Self::RandomBytes(count()?),
            "RAND_DIGIT" => Self::RandomDigits(count()?),
            "RAND_ALPHA" => Self::RandomLetters(count()?),
            "RAND_ALPHANUM" => Self::RandomAlphanumeric(count()?),
            "HEX" => Self::Bytes(
                super::names::unhex(value.unwrap_or_default())
                    .ok_or_else(|| bad(text, "an even number of hexadecimal digits is needed"))?,
            ),
            "UNIXTIME_SEC" | "UNIXTIME_USEC" | "NTP_TIMESTAMP" => {
                return Err(bad(
                    text,
                    "the time is left out, so that a plan tells what was sent; ntp asks for the time",
                ));
            }
            _ => {
                let names = FIELDS.map(|(name, _)| name).join(", ");
                return Err(bad(text, format!("there is no such field; there are {names}")));
            }
        })
    }

    fn longest(&self, v6: bool) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::OurAddress | Self::TargetAddress => {
                if v6 {
                    16
                } else {
                    4
                }
            }
            Self::OurAddressText | Self::TargetAddressText => {
                if v6 {
                    LONGEST_V6
                } else {
                    LONGEST_V4
                }
            }
            Self::OurPort | Self::TargetPort => 2,
            Self::OurPortText | Self::TargetPortText => LONGEST_PORT,
            Self::RandomBytes(count)
            | Self::RandomDigits(count)
            | Self::RandomLetters(count)
            | Self::RandomAlphanumeric(count) => usize::from(*count),
        }
    }

    fn write(&self, out: &mut [u8], values: &Values, draws: &mut Draws) -> usize {
        match self {
            Self::Bytes(bytes) => copy(out, bytes),
            Self::OurAddress => address(out, values.v6, values.ours),
            Self::OurAddressText => address_text(out, values.v6, values.ours),
            Self::TargetAddress => address(out, values.v6, values.target),
            Self::TargetAddressText => address_text(out, values.v6, values.target),
            Self::OurPort => copy(out, &values.our_port.to_be_bytes()),
            Self::OurPortText => text(out, format_args!("{}", values.our_port)),
            Self::TargetPort => copy(out, &values.target_port.to_be_bytes()),
            Self::TargetPortText => text(out, format_args!("{}", values.target_port)),
            Self::RandomBytes(count) => draws.fill(out, *count, |draws| draws.below(256) as u8),
            Self::RandomDigits(count) => draws.fill(out, *count, |draws| b'0' + draws.below(10) as u8),
            Self::RandomLetters(count) => draws.fill(out, *count, |draws| ALPHANUM[draws.below(LETTERS)]),
            Self::RandomAlphanumeric(count) => draws.fill(out, *count, |draws| ALPHANUM[draws.below(62)]),
        }
    }
}

fn copy(out: &mut [u8], bytes: &[u8]) -> usize {
    out[..bytes.len()].copy_from_slice(bytes);
    bytes.len()
}

fn text(mut out: &mut [u8], what: std::fmt::Arguments<'_>) -> usize {
    let room = out.len();
    // The room is that of the longest text there is.
    out.write_fmt(what).expect("the text has room");
    room - out.len()
}

fn address(out: &mut [u8], v6: bool, address: u128) -> usize {
    if v6 { copy(out, &address.to_be_bytes()) } else { copy(out, &(address as u32).to_be_bytes()) }
}

fn address_text(out: &mut [u8], v6: bool, address: u128) -> usize {
    if v6 {
        text(out, format_args!("{}", Ipv6Addr::from_bits(address)))
    } else {
        text(out, format_args!("{}", Ipv4Addr::from_bits(address as u32)))
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014) from the cookie, which only the key's holder can tell, and the probe's number.
struct Draws(u64);

impl Draws {
    fn new(values: &Values) -> Self {
        Self(values.cookie.0 ^ (u64::from(values.probe_num) << 48))
    }

    /// Evenly, but for less than 2^-24.
    fn below(&mut self, bound: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The product of a 32-bit number and a bound of at most 256 has 40 bits.
        (((mixed >> 32) * bound) >> 32) as usize
    }

    fn fill(&mut self, out: &mut [u8], count: u16, mut draw: impl FnMut(&mut Self) -> u8) -> usize {
        let count = usize::from(count);
        for byte in &mut out[..count] {
            *byte = draw(self);
        }
        count
    }
}
