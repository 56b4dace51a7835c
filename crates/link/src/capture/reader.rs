//! Reads captures: pcapng and classic pcap, of either byte order, with whatever resolution of time.
//!
//! What is in the file is not believed. A length that cannot be is an error with its place; a file that ends within a
//! packet, as that of a program that was killed does, is read up to there, and [`Reader::end`] says so.

use std::io::{self, BufReader, Read};
use std::net::IpAddr;

use super::pcapng::{BYTE_ORDER_MAGIC, COMMENT, ENHANCED_PACKET, IF_TSOFFSET, IF_TSRESOL, INTERFACE, SECTION_HEADER};
use super::{CLOCK_WORDS, LINK_ETHERNET, LINK_RAW, SOURCE_WORDS};
use crate::error::LinkError;

/// The longest block, and packet, that is taken for one.
const LONGEST: u32 = 16 << 20;
/// The most interfaces of one section.
const MOST_INTERFACES: usize = 65_536;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// A packet of a capture, as an Ethernet frame whatever it was.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// UTC in ns, as the capture has it; `None` where it has none.
    pub time_ns: Option<u64>,
    /// What was captured of the frame.
    pub frame: &'a [u8],
    /// How much more of it there was.
    pub missing: u32,
}

/// How a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Behind its last packet.
    Whole,
    /// Within a packet.
    Cut,
}

/// A capture being read.
#[derive(Debug)]
pub struct Reader<R> {
    input: BufReader<R>,
    name: String,
    format: Format,
    big: bool,
    /// Bytes read so far.
    at: u64,
    block: Vec<u8>,
    frame: Vec<u8>,
    end: Option<End>,
    clock: Option<i64>,
    sources: Vec<IpAddr>,
}

#[derive(Debug)]
enum Format {
    Pcap { link: Link, ns_per_tick: u64 },
    Pcapng { interfaces: Vec<Interface> },
}

/// An interface of a section.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: Link,
    /// As in the file: a power of ten, or with the highest bit a power of two.
    resolution: u8,
    /// Seconds to be added to its times.
    offset_s: i64,
}

/// What packets begin with.
#[derive(Clone, Copy, Debug)]
enum Link {
    Ethernet,
    Raw,
    /// So many bytes before the IP header, which itself says what it is.
    Behind(usize),
    /// Linux's cooked header of so many bytes, with the type of what follows at a place in it.
    Cooked(usize, usize),
}

impl Link {
    fn of(number: u32) -> Option<Self> {
        Some(match number {
            n if n == u32::from(LINK_ETHERNET) => Self::Ethernet,
            n if n == u32::from(LINK_RAW) => Self::Raw,
            // What other systems call raw, and IPv4 or IPv6 alone.
            12 | 14 | 228 | 229 => Self::Raw,
            // The loopback of BSD.
            0 | 108 => Self::Behind(4),
            // What `tcpdump -i any` writes, old and new.
            113 => Self::Cooked(16, 14),
            276 => Self::Cooked(20, 0),
            _ => return None,
        })
    }

    /// Writes a packet as an Ethernet frame.
    fn dress(self, packet: &[u8], frame: &mut Vec<u8>) {
        frame.clear();
        let (ethertype, packet) = match self {
            Self::Ethernet => return frame.extend_from_slice(packet),
            Self::Raw => (of_version(packet), packet),
            Self::Behind(header) => {
                let packet = packet.get(header..).unwrap_or_default();
                (of_version(packet), packet)
            }
            Self::Cooked(header, at) => {
                let ethertype = packet.get(at..at + 2).map_or([0; 2], |bytes| [bytes[0], bytes[1]]);
                (ethertype, packet.get(header..).unwrap_or_default())
            }
        };
        frame.extend_from_slice(&[0; 12]);
        frame.extend_from_slice(&ethertype);
        frame.extend_from_slice(packet);
    }
}

fn of_version(packet: &[u8]) -> [u8; 2] {
    if packet.first().is_some_and(|first| first >> 4 == 6) { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }
}

impl<R: Read> Reader<R> {
    /// Begins to read; `name` is for messages.
    ///
    /// # Errors
    /// [`LinkError::Config`] for what is no capture, [`LinkError::Os`] when it cannot be read.
    pub fn new(input: R, name: impl Into<String>) -> Result<Self, LinkError> {
        let mut reader = Self {
            input: BufReader::with_capacity(1 << 18, input),
            name: name.into(),
            format: Format::Pcapng { interfaces: Vec::new() },
            big: false,
            at: 0,
            block: Vec::new(),
            frame: Vec::new(),
            end: None,
            clock: None,
            sources: Vec::new(),
        };
        let mut magic = [0; 4];
        if reader.fill(&mut magic)? < magic.len() {
            return Err(reader.no_capture());
        }
        if u32::from_le_bytes(magic) == SECTION_HEADER {
            reader.section(true)?;
            return Ok(reader);
        }
        let (little, big) = (u32::from_le_bytes(magic), u32::from_be_bytes(magic));
        let (order, ns_per_tick) = match (little, big) {
            (0xa1b2_c3d4, _) => (false, 1000),
            (0xa1b2_3c4d, _) => (false, 1),
            (_, 0xa1b2_c3d4) => (true, 1000),
            (_, 0xa1b2_3c4d) => (true, 1),
            _ => return Err(reader.no_capture()),
        };
        reader.big = order;
        let mut header = [0; 20];
        if reader.fill(&mut header)? < header.len() {
            return Err(reader.no_capture());
        }
        // Above the link type's 16 bits are those of a frame check sequence.
        let number = reader.u32(&header[16..]) & 0xffff;
        let link = Link::of(number).ok_or_else(|| reader.unknown_link(number))?;
        reader.format = Format::Pcap { link, ns_per_tick };
        Ok(reader)
    }

    /// The next packet; `None` at the end, however often it is asked for.
    ///
    /// # Errors
    /// [`LinkError::Config`] where the file contradicts itself, [`LinkError::Os`] when it cannot be read.
    pub fn read(&mut self) -> Result<Option<Captured<'_>>, LinkError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let found = match self.format {
            Format::Pcap { link, ns_per_tick } => self.next_record(link, ns_per_tick)?,
            Format::Pcapng { .. } => self.next_packet()?,
        };
        Ok(found.map(|(time_ns, missing)| Captured { time_ns, frame: &self.frame, missing }))
    }

    /// How it ended; `None` before that.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// What was added to the monotonic clock of the run for its times, where the section says so.
    pub fn clock(&self) -> Option<i64> {
        self.clock
    }

    /// The addresses that probes came from, where the section says so.
    pub fn sources(&self) -> &[IpAddr] {
        &self.sources
    }

    fn next_record(&mut self, link: Link, ns_per_tick: u64) -> Result<Option<(Option<u64>, u32)>, LinkError> {
        let mut header = [0; 16];
        if !self.all(&mut header, true)? {
            return Ok(None);
        }
        let [seconds, fraction, captured, length] = [0, 4, 8, 12].map(|at| self.u32(&header[at..]));
        if captured > LONGEST {
            return Err(self.wrong(&format!("a packet of {captured} bytes")));
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize(captured as usize, 0);
        let whole = self.all(&mut block, false)?;
        if whole {
            link.dress(&block, &mut self.frame);
        }
        self.block = block;
        let time_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * ns_per_tick;
        Ok(whole.then_some((Some(time_ns), length.saturating_sub(captured))))
    }

    /// Reads blocks until one is a packet.
    fn next_packet(&mut self) -> Result<Option<(Option<u64>, u32)>, LinkError> {
        loop {
            let mut kind = [0; 4];
            if !self.all(&mut kind, true)? {
                return Ok(None);
            }
            // The type of a section's header reads the same in both orders.
            if u32::from_le_bytes(kind) == SECTION_HEADER {
                if !self.section(false)? {
                    return Ok(None);
                }
                continue;
            }
            let kind = self.u32(&kind);
            if !self.body()? {
                return Ok(None);
            }
            let block = std::mem::take(&mut self.block);
            let found = match kind {
                INTERFACE => self.interface(&block).map(|()| None),
                ENHANCED_PACKET => self.packet(&block).map(Some),
                _ => Ok(None),
            };
            self.block = block;
            if let Some(found) = found? {
                return Ok(Some(found));
            }
        }
    }

    /// Reads the rest of a section's header; whether it is there.
    fn section(&mut self, first: bool) -> Result<bool, LinkError> {
        let mut start = [0; 8];
        if !self.all(&mut start, false)? {
            return if first { Err(self.no_capture()) } else { Ok(false) };
        }
        self.big = match (&start[4..8]).try_into().map(u32::from_le_bytes) {
            Ok(BYTE_ORDER_MAGIC) => false,
            Ok(swapped) if swapped.swap_bytes() == BYTE_ORDER_MAGIC => true,
            _ if first => return Err(self.no_capture()),
            _ => return Err(self.wrong("a section without its byte order")),
        };
        let length = self.u32(&start);
        if !self.body_of(length, 12)? {
            return if first { Err(self.no_capture()) } else { Ok(false) };
        }
        self.format = Format::Pcapng { interfaces: Vec::new() };
        let options = self.block.get(12..).unwrap_or_default();
        let comment = options_of(options, self.big).find(|(code, _)| *code == COMMENT);
        let comment = comment.and_then(|(_, text)| std::str::from_utf8(text).ok()).unwrap_or_default();
        let clock = clock(comment);
        if first {
            self.sources = sources(comment);
        }
        if !first && clock != self.clock {
            return Err(self.wrong("a section of another clock: replay each capture by itself, not what joins them,"));
        }
        self.clock = clock;
        Ok(true)
    }

    /// Reads a block's length and its body, of which nothing was read yet, into `block`; whether they are there.
    fn body(&mut self) -> Result<bool, LinkError> {
        let mut length = [0; 4];
        if !self.all(&mut length, false)? {
            return Ok(false);
        }
        let length = self.u32(&length);
        self.body_of(length, 8)
    }

    /// Reads the rest of a block of this length, of which so many bytes were read; whether it is there. What ends it is
    /// its length again.
    fn body_of(&mut self, length: u32, read: u32) -> Result<bool, LinkError> {
        if !length.is_multiple_of(4) || length < read + 4 || length > LONGEST {
            return Err(self.wrong(&format!("a block of {length} bytes")));
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize((length - read) as usize, 0);
        let whole = self.all(&mut block, false)?;
        self.block = block;
        if !whole {
            return Ok(false);
        }
        let end = self.block.len() - 4;
        let again = self.u32(&self.block[end..]);
        if again != length {
            return Err(self.wrong(&format!("a block of {length} bytes that says at its end that it has {again}")));
        }
        self.block.truncate(end);
        Ok(true)
    }

    fn interface(&mut self, block: &[u8]) -> Result<(), LinkError> {
        let Some(number) = block.get(..2).map(|bytes| self.u16(bytes)) else {
            return Err(self.wrong("an interface without a link type"));
        };
        let link = Link::of(number.into()).ok_or_else(|| self.unknown_link(number.into()))?;
        let mut interface = Interface { link, resolution: 6, offset_s: 0 };
        for (code, value) in options_of(block.get(8..).unwrap_or_default(), self.big) {
            match (code, value) {
                (IF_TSRESOL, [resolution, ..]) => interface.resolution = *resolution,
                (IF_TSOFFSET, value) => {
                    if let Ok(bytes) = <[u8; 8]>::try_from(value) {
                        interface.offset_s =
                            if self.big { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
                    }
                }
                _ => {}
            }
        }
        if let Format::Pcapng { interfaces } = &mut self.format {
            if interfaces.len() >= MOST_INTERFACES {
                return Err(self.wrong("more interfaces than can be"));
            }
            interfaces.push(interface);
        }
        Ok(())
    }

    fn packet(&mut self, block: &[u8]) -> Result<(Option<u64>, u32), LinkError> {
        let Some(header) = block.first_chunk::<20>() else {
            return Err(self.wrong("a packet's block that is too short for one"));
        };
        let [interface, high, low, captured, length] = [0, 4, 8, 12, 16].map(|at| self.u32(&header[at..]));
        let Format::Pcapng { interfaces } = &self.format else { return Ok((None, 0)) };
        let Some(interface) = interfaces.get(interface as usize).copied() else {
            return Err(self.wrong(&format!("a packet of interface {interface}, which there is not,")));
        };
        let Some(bytes) = block[20..].get(..captured as usize) else {
            return Err(self.wrong(&format!("a packet of {captured} bytes in a block that is shorter")));
        };
        interface.link.dress(bytes, &mut self.frame);
        let ticks = u64::from(high) << 32 | u64::from(low);
        Ok((interface.ns(ticks), length.saturating_sub(captured)))
    }

    /// Reads as much as there is.
    fn fill(&mut self, into: &mut [u8]) -> Result<usize, LinkError> {
        let mut read = 0;
        while read < into.len() {
            match self.input.read(&mut into[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(LinkError::os(format!("reading {}", self.name), source)),
            }
        }
        self.at += read as u64;
        Ok(read)
    }

    /// Reads all of it; otherwise the capture ends here, which is as it should be where something new `begins`.
    fn all(&mut self, into: &mut [u8], begins: bool) -> Result<bool, LinkError> {
        let read = self.fill(into)?;
        if read < into.len() {
            self.end = Some(if read == 0 && begins { End::Whole } else { End::Cut });
        }
        Ok(read == into.len())
    }

    /// # Panics
    /// When there are fewer than four bytes, which no caller gives.
    fn u32(&self, bytes: &[u8]) -> u32 {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u16(&self, bytes: &[u8]) -> u16 {
        let bytes = [bytes[0], bytes[1]];
        if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn no_capture(&self) -> LinkError {
        LinkError::config(format!("{} is no capture: pcapng and pcap files can be read", self.name))
    }

    fn unknown_link(&self, number: u32) -> LinkError {
        LinkError::config(format!(
            "{} has packets of link type {number}, which cannot be read: capture Ethernet, raw IP or Linux's cooked packets",
            self.name
        ))
    }

    fn wrong(&self, what: &str) -> LinkError {
        LinkError::config(format!(
            "{} cannot be read on: {what} stands before byte {}, so that it is damaged from there on",
            self.name, self.at
        ))
    }
}

impl Interface {
    /// A time of its packets in ns; `None` for one that cannot be.
    fn ns(self, ticks: u64) -> Option<u64> {
        let exponent = u32::from(self.resolution & 0x7f);
        let ticks = u128::from(ticks);
        let ns = if self.resolution & 0x80 != 0 {
            (ticks * 1_000_000_000).checked_shr(exponent)?
        } else if exponent <= 9 {
            ticks * 10u128.pow(9 - exponent)
        } else {
            ticks / 10u128.checked_pow(exponent - 9)?
        };
        let ns = i128::try_from(ns).ok()? + i128::from(self.offset_s) * 1_000_000_000;
        u64::try_from(ns).ok()
    }
}

/// The options of a block; what does not fit ends them.
fn options_of(mut bytes: &[u8], big: bool) -> impl Iterator<Item = (u16, &[u8])> {
    let number = move |bytes: [u8; 2]| if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let (code, length) = (number([head[0], head[1]]), usize::from(number([head[2], head[3]])));
        let value = rest.get(..length).filter(|_| code != 0)?;
        bytes = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((code, value))
    })
}

/// The clock that a comment names.
fn clock(comment: &str) -> Option<i64> {
    let (_, rest) = comment.split_once(CLOCK_WORDS.0)?;
    rest.split_once(CLOCK_WORDS.1)?.0.parse().ok()
}

/// The addresses that a comment names.
fn sources(comment: &str) -> Vec<IpAddr> {
    let line = comment.lines().find_map(|line| line.strip_prefix(SOURCE_WORDS)).unwrap_or_default();
    line.split(", ").filter_map(|address| address.parse().ok()).collect()
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
