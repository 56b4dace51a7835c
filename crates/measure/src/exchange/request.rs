//! What is sent to a target, by offset and length: TCP asks again for what it sends again, and nobody keeps a copy.

use std::io::Write;
use std::net::IpAddr;

use irl_targets::{Family, Target};

use crate::error::MeasureError;

/// The longest text of an address or port.
const LONGEST: usize = 48;

/// The target that a request is for, and what its row of the list says about it.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// The address family.
    pub family: Family,
    /// Where it goes.
    pub target: Target,
    /// The row's name of the host, where it has one.
    pub host: Option<&'a str>,
    /// The row's own request, where the list has a column of them.
    pub request: Option<&'a [u8]>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The same bytes for every target.
    Bytes(Vec<u8>),
    /// Text with places that each target fills.
    Template(Template),
    /// What the target's row of the list holds.
    Column,
}

impl Request {
    /// A text in which `{address}`, `{port}` and `{host}` stand for the target's; `{{` and `}}` are braces. The host is the
    /// address, too (IPv6 in brackets), where the list names none.
    ///
    /// # Errors
    /// [`MeasureError::Config`] for another name, and for a brace without its fellow.
    pub fn template(text: &[u8]) -> Result<Self, MeasureError> {
        let mut pieces = Template::parse(text)?.pieces;
        Ok(match pieces.as_mut_slice() {
            [] => Self::Bytes(Vec::new()),
            [Piece::Text(text)] => Self::Bytes(std::mem::take(text)),
            _ => Self::Template(Template { pieces }),
        })
    }

    /// How many bytes it has for a target.
    pub fn len(&self, to: &Recipient<'_>) -> u32 {
        let len = match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Template(template) => template.len(to),
            Self::Column => to.request.unwrap_or_default().len(),
        };
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    /// How many bytes it has at most for targets of a family, whose names have so many at most.
    pub fn longest(&self, family: Family, name: usize) -> u32 {
        let address = if family == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
        let target = Target { address, port: u16::MAX };
        let name = "x".repeat(name);
        let with = |host| self.len(&Recipient { family, target, host, request: None });
        with(None).max(with(Some(&name)))
    }

    /// Whether it has none.
    pub fn is_empty(&self, to: &Recipient<'_>) -> bool {
        self.len(to) == 0
    }

    /// Writes its bytes from `offset` on, as many as fit `into` and are there, and says how many.
    pub fn bytes(&self, to: &Recipient<'_>, offset: u32, into: &mut [u8]) -> usize {
        let mut part = Part { skip: offset as usize, into, written: 0 };
        match self {
            Self::Bytes(bytes) => part.take(bytes),
            Self::Template(template) => template.write(to, &mut part),
            Self::Column => part.take(to.request.unwrap_or_default()),
        }
        part.written
    }
}

/// Text with places in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Address,
    Port,
    Host,
}

impl Template {
    fn parse(text: &[u8]) -> Result<Self, MeasureError> {
        let wrong = |what: String| {
            let there = "{address}, {port} and {host} are there, and {{ and }} are braces of the request's own";
            MeasureError::Config(format!("the request cannot be read: {what}; {there}"))
        };
        let (mut pieces, mut plain, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'{' | b'}')) {
            plain.extend_from_slice(&rest[..at]);
            let brace = rest[at];
            let after = &rest[at + 1..];
            if after.first() == Some(&brace) {
                plain.push(brace);
                rest = &after[1..];
                continue;
            }
            if brace == b'}' {
                return Err(wrong(format!("the }} at byte {} closes nothing", text.len() - rest.len() + at)));
            }
            let Some(end) = after.iter().position(|byte| *byte == b'}') else {
                return Err(wrong(format!("the {{ at byte {} is not closed", text.len() - rest.len() + at)));
            };
            let piece = match &after[..end] {
                b"address" => Piece::Address,
                b"port" => Piece::Port,
                b"host" => Piece::Host,
                name => return Err(wrong(format!("there is no {{{}}}", String::from_utf8_lossy(name)))),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
            rest = &after[end + 1..];
        }
        plain.extend_from_slice(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self { pieces })
    }

    /// The text that it was read from.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => {
                    for byte in plain {
                        text.push(*byte);
                        text.extend(matches!(byte, b'{' | b'}').then_some(*byte));
                    }
                }
                Piece::Address => text.extend_from_slice(b"{address}"),
                Piece::Port => text.extend_from_slice(b"{port}"),
                Piece::Host => text.extend_from_slice(b"{host}"),
            }
        }
        text
    }

    fn len(&self, to: &Recipient<'_>) -> usize {
        self.pieces.iter().map(|piece| piece.with(to, <[u8]>::len)).sum()
    }

    fn write(&self, to: &Recipient<'_>, part: &mut Part<'_>) {
        for piece in &self.pieces {
            if part.is_full() {
                break;
            }
            piece.with(to, |bytes| part.take(bytes));
        }
    }
}

impl Piece {
    /// Hands out its bytes for a target.
    fn with<T>(&self, to: &Recipient<'_>, then: impl FnOnce(&[u8]) -> T) -> T {
        let mut text = [0; LONGEST];
        let mut rest = text.as_mut_slice();
        let address = to.family.address(to.target.address);
        // Writing to memory that holds the longest of them cannot fail.
        let _ = match (self, to.host) {
            (Self::Text(text), _) => return then(text),
            (Self::Host, Some(host)) => return then(host.as_bytes()),
            (Self::Port, _) => write!(rest, "{}", to.target.port),
            (Self::Host, None) if matches!(address, IpAddr::V6(_)) => write!(rest, "[{address}]"),
            (Self::Address | Self::Host, _) => write!(rest, "{address}"),
        };
        let len = LONGEST - rest.len();
        then(&text[..len])
    }
}

/// A part of the request in the making.
struct Part<'a> {
    /// Bytes before it that are still to come.
    skip: usize,
    into: &'a mut [u8],
    written: usize,
}

impl Part<'_> {
    fn is_full(&self) -> bool {
        self.written == self.into.len()
    }

    /// Takes what lies in the part of the next bytes of the request.
    fn take(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        let len = (bytes.len() - skipped).min(self.into.len() - self.written);
        self.into[self.written..self.written + len].copy_from_slice(&bytes[skipped..skipped + len]);
        self.written += len;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to(host: Option<&str>) -> Recipient<'_> {
        Recipient {
            family: Family::V4,
            target: Target { address: 0x0a01_0203, port: 8080 },
            host,
            request: Some(b"its own"),
        }
    }

    fn to6() -> Recipient<'static> {
        Recipient {
            family: Family::V6,
            target: Target { address: u128::MAX - 1, port: 65535 },
            host: None,
            request: None,
        }
    }

    fn whole(request: &Request, to: &Recipient<'_>) -> String {
        let mut bytes = vec![0; request.len(to) as usize];
        assert_eq!(request.bytes(to, 0, &mut bytes), bytes.len());
        String::from_utf8(bytes).expect("the tests' requests are text")
    }

    #[test]
    fn a_template_is_filled_by_each_target() {
        let request = Request::template(b"GET / HTTP/1.0\r\nHost: {host}:{port}\r\nX: {{{address}}}\r\n\r\n").unwrap();
        let head = "GET / HTTP/1.0\r\n";
        assert_eq!(whole(&request, &to(None)), format!("{head}Host: 10.1.2.3:8080\r\nX: {{10.1.2.3}}\r\n\r\n"));
        assert_eq!(whole(&request, &to(Some("a.test"))), format!("{head}Host: a.test:8080\r\nX: {{10.1.2.3}}\r\n\r\n"));
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe";
        assert_eq!(whole(&request, &to6()), format!("{head}Host: [{longest}]:65535\r\nX: {{{longest}}}\r\n\r\n"));
    }

    #[test]
    fn a_template_tells_its_text_and_how_long_it_can_be() {
        let text = b"{host}:{port} {{ {address} }}";
        let Request::Template(template) = Request::template(text).unwrap() else { panic!("it has places") };
        assert_eq!(template.text(), text);
        let request = Request::Template(template);
        assert_eq!(request.longest(Family::V4, 0), 15 + 1 + 5 + 3 + 15 + 2);
        assert_eq!(request.longest(Family::V4, 100), 100 + 1 + 5 + 3 + 15 + 2);
        assert_eq!(request.longest(Family::V6, 0), 41 + 1 + 5 + 3 + 39 + 2);
    }

    #[test]
    fn a_text_without_places_is_the_same_bytes_for_all() {
        assert_eq!(Request::template(b"a {{b}} c").unwrap(), Request::Bytes(b"a {b} c".to_vec()));
        assert_eq!(Request::template(b"").unwrap(), Request::Bytes(Vec::new()));
        assert!(Request::template(b"").unwrap().is_empty(&to(None)));
    }

    #[test]
    fn a_column_gives_each_target_its_own() {
        assert_eq!(whole(&Request::Column, &to(None)), "its own");
        assert_eq!(whole(&Request::Column, &to6()), "");
    }

    #[test]
    fn what_is_no_template_is_refused_with_what_there_is() {
        for (text, what) in [
            (&b"{hots}"[..], "there is no {hots}"),
            (b"ab{host", "the { at byte 2 is not closed"),
            (b"ab}", "the } at byte 2 closes nothing"),
            (b"{}", "there is no {}"),
        ] {
            let error = Request::template(text).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("{address}, {port} and {host}"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_part_is_that_part_of_the_whole(offset in 0u32..80, len in 0usize..80, v6: bool, named: bool) {
            let request = Request::template(b"{host}|{address}|{port}|{{some text at the end}}").unwrap();
            let to = if v6 { to6() } else { to(named.then_some("name.test")) };
            let whole = whole(&request, &to).into_bytes();
            let mut part = vec![0xff; len];
            let written = request.bytes(&to, offset, &mut part);
            let from = (offset as usize).min(whole.len());
            prop_assert_eq!(&part[..written], &whole[from..(from + len).min(whole.len())]);
            prop_assert!(part[written..].iter().all(|byte| *byte == 0xff));
        }
    }
}
