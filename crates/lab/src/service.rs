//! What stands behind an open port: how data is answered. Written spec: `docs/world.md`, "Services".
//!
//! An answer is a template into which sixteen hexadecimal digits are written that follow from the World, so that the
//! responder in the kernel says the same at no price: it copies, and adds the digits to a sum that was made beforehand.

use std::fmt;
use std::str::FromStr;

use irl_link::LinkError;
use irl_wire::checksum;

/// The digits of an answer that are its own.
pub const DIGITS: usize = 16;
/// The shortest answer of [`Service::Exchange`]: the digits.
pub const LEAST_BYTES: u16 = DIGITS as u16;
/// The longest: what fits one frame of 1,514 bytes over IPv6 with timestamps.
pub const MOST_BYTES: u16 = 1428;
/// What [`Service::Exchange`] answers unless told otherwise.
const DEFAULT_BYTES: u16 = 100;
/// Neighbours of a Gnutella peer.
const NEIGHBOURS: u32 = 10;

/// How the services of a World's open ports answer; each answers every segment by itself and keeps no state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// Data meets [`World::response`](crate::World::response) and a FIN, from user space.
    #[default]
    Response,
    /// Data is acknowledged and answered at once, in the kernel too.
    Exchange {
        /// How many bytes, [`LEAST_BYTES`] to [`MOST_BYTES`].
        bytes: u16,
        /// Whether the answer carries the FIN; otherwise the client's FIN is answered with one.
        fin: bool,
    },
    /// A Gnutella ultrapeer that tells its neighbours and waits for the client to close, as those that the paper's crawler
    /// asked (section 4.3).
    Gnutella,
}

/// What a service says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The template; zeros where the digits go.
    pub template: Vec<u8>,
    /// Where that is: an even offset.
    pub digits_at: usize,
    /// Whether a FIN goes with it.
    pub fin: bool,
}

impl Service {
    /// What it says to data; `None` when only the responder in user space says it.
    pub fn reply(self) -> Option<Reply> {
        match self {
            Self::Response => None,
            Self::Exchange { bytes, fin } => {
                let mut template = vec![0; DIGITS];
                while template.len() < usize::from(bytes) {
                    // Numbered, so that no piece looks like another.
                    template.extend(format!("{:07}\n", template.len()).bytes());
                }
                template.truncate(usize::from(bytes));
                Some(Reply { template, digits_at: 0, fin })
            }
            Self::Gnutella => {
                let mut template = b"GNUTELLA/0.6 593 Hi\r\nUser-Agent: World/1\r\nX-Guid: ".to_vec();
                let digits_at = template.len();
                template.extend([0; DIGITS]);
                template.extend(b"\r\nPeers: ");
                let peers = (1..=NEIGHBOURS).map(|each| format!("10.{0}.{0}.{0}:6346", 20 * each));
                template.extend(peers.collect::<Vec<_>>().join(",").bytes());
                template.extend(b"\r\n\r\n");
                Some(Reply { template, digits_at, fin: false })
            }
        }
    }
}

impl Reply {
    /// The bytes of the host whose [`World::response_draw`](crate::World::response_draw) this is.
    pub fn said(&self, draw: u64) -> Vec<u8> {
        let mut said = self.template.clone();
        said[self.digits_at..self.digits_at + DIGITS].copy_from_slice(format!("{draw:016x}").as_bytes());
        said
    }

    /// The template's part of a checksum, in the order of memory, as the kernel counts.
    pub fn sum(&self) -> u16 {
        let sum = !checksum::finish(checksum::add(0, &self.template));
        u16::from_ne_bytes(sum.to_be_bytes())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response => out.write_str("response"),
            Self::Exchange { bytes, fin } => write!(out, "exchange:{bytes}{}", if *fin { ":fin" } else { "" }),
            Self::Gnutella => out.write_str("gnutella"),
        }
    }
}

impl FromStr for Service {
    type Err = LinkError;

    /// Reads what [`Display`](fmt::Display) writes; `exchange` alone is of 100 bytes.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        let unknown = || {
            LinkError::config(format!(
                "there is no service {text:?}; there are response, exchange:BYTES with {LEAST_BYTES} to {MOST_BYTES} \
                 bytes, exchange:BYTES:fin, and gnutella"
            ))
        };
        let mut words = text.split(':');
        let service = match words.next() {
            Some("response") => Self::Response,
            Some("gnutella") => Self::Gnutella,
            Some("exchange") => {
                let bytes = words.next().map_or(Ok(DEFAULT_BYTES), str::parse).map_err(|_| unknown())?;
                let fin = match words.next() {
                    None => false,
                    Some("fin") => true,
                    Some(_) => return Err(unknown()),
                };
                if !(LEAST_BYTES..=MOST_BYTES).contains(&bytes) {
                    return Err(unknown());
                }
                Self::Exchange { bytes, fin }
            }
            _ => return Err(unknown()),
        };
        if words.next().is_some() { Err(unknown()) } else { Ok(service) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_read_as_it_is_written() {
        let all = ["response", "exchange:16", "exchange:100", "exchange:1428:fin", "gnutella"];
        for text in all {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
        }
        assert_eq!("exchange".parse::<Service>().unwrap(), Service::Exchange { bytes: 100, fin: false });
    }

    #[test]
    fn what_is_no_service_is_told_those_there_are() {
        for text in ["", "echo", "exchange:15", "exchange:1429", "exchange:x", "exchange:100:rst", "gnutella:1"] {
            let said = text.parse::<Service>().unwrap_err().to_string();
            assert!(said.contains("exchange:BYTES with 16 to 1428 bytes"), "{text}: {said}");
        }
    }

    #[test]
    fn an_answer_has_its_length_and_no_piece_twice() {
        for bytes in [16, 17, 100, 101, 1428] {
            let said = Service::Exchange { bytes, fin: false }.reply().unwrap().said(0x0123_4567_89ab_cdef);
            assert_eq!(said.len(), usize::from(bytes));
            assert!(said.starts_with(b"0123456789abcdef"));
            let pieces: std::collections::HashSet<_> = said.chunks_exact(8).collect();
            assert_eq!(pieces.len(), said.len() / 8);
        }
    }

    #[test]
    fn gnutella_answers_with_headers_that_fit_a_frame() {
        let reply = Service::Gnutella.reply().unwrap();
        assert_eq!(reply.digits_at % 2, 0);
        let said = String::from_utf8(reply.said(0xfeed)).unwrap();
        assert!(said.contains("X-Guid: 000000000000feed\r\nPeers: 10.20.20.20:6346,"), "{said}");
        assert!(said.ends_with("10.200.200.200:6346\r\n\r\n") && said.len() < usize::from(MOST_BYTES));
    }

    #[test]
    fn the_sum_beforehand_is_that_of_the_bytes() {
        for service in [Service::Exchange { bytes: 101, fin: true }, Service::Gnutella] {
            let reply = service.reply().unwrap();
            let draw = 0xfedc_ba98_7654_3210;
            let whole = checksum::finish(checksum::add(0, &reply.said(draw)));
            let digits = checksum::add(0, format!("{draw:016x}").as_bytes());
            let parts = u32::from(u16::from_be_bytes(reply.sum().to_ne_bytes())) + digits;
            assert_eq!(checksum::finish(parts), whole);
        }
    }
}
