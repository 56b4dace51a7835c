//! Segments as they come in and go out.

use std::ops::Deref;

pub use irl_wire::packet::{Sacks, TcpOptions as Options};

use crate::seq::Seq;

/// Whose segment it is: a connection's two ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Which of our addresses, by its place in the caller's list.
    pub ours: u16,
    /// Our port.
    pub our_port: u16,
    /// The peer's address; an IPv4 address is its plain 32-bit value.
    pub theirs: u128,
    /// The peer's port.
    pub their_port: u16,
}

/// A received segment without its data. Its checksum was right, or nobody should have made one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Whose.
    pub flow: Flow,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// See [`irl_wire::packet::tcp_flags`].
    pub flags: u8,
    /// Window, as it stands in the header.
    pub window: u16,
    /// Options.
    pub options: Options,
}

impl Segment {
    #[inline]
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(crate) fn seq(&self) -> Seq {
        Seq(self.seq)
    }

    #[inline]
    pub(crate) fn ack(&self) -> Seq {
        Seq(self.ack)
    }
}

/// Segments that are taken in together, and their data, copied in: while one is worked on, the memory that the next ones
/// need is under way to the cache.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) segments: Vec<(Segment, u32, u32)>,
    pub(crate) data: Vec<u8>,
    /// Of each segment's flow, while they are taken in.
    pub(crate) hashes: Vec<u32>,
}

impl Batch {
    /// How many segments a batch takes.
    pub const LIMIT: usize = 64;

    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a segment.
    ///
    /// # Panics
    /// When the data of the batch come to 4 GiB.
    #[inline]
    pub fn push(&mut self, segment: Segment, payload: &[u8]) {
        let start = self.data.len();
        self.data.extend_from_slice(payload);
        let end = u32::try_from(self.data.len()).expect("a batch is emptied long before it has 4 GiB");
        self.segments.push((segment, start as u32, end));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether it is time to hand them over.
    pub fn is_full(&self) -> bool {
        self.segments.len() >= Self::LIMIT
    }

    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        self.data.clear();
        self.hashes.clear();
    }
}

/// What an ICMP error says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// The way is disturbed: network or host unreachable, time exceeded, parameter problem (RFC 9293, MUST-56).
    Soft,
    /// Protocol or port unreachable: there is no such peer.
    Hard,
    /// The packet was too big for a link of this MTU; 0 where an old router did not say.
    TooBig(u16),
}

/// The options of a segment to be sent, as they stand in its header: a multiple of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionBytes {
    bytes: [u8; 40],
    length: u8,
}

impl OptionBytes {
    pub(crate) const NONE: Self = Self { bytes: [0; 40], length: 0 };

    /// Two NOPs, and timestamps, as RFC 7323 recommends (appendix A).
    pub(crate) fn push_timestamps(&mut self, value: u32, echo: u32) {
        let at = usize::from(self.length);
        self.bytes[at..at + 4].copy_from_slice(&[1, 1, 8, 10]);
        self.bytes[at + 4..at + 8].copy_from_slice(&value.to_be_bytes());
        self.bytes[at + 8..at + 12].copy_from_slice(&echo.to_be_bytes());
        self.length += 12;
    }

    /// Two NOPs, and as many of the blocks as fit.
    pub(crate) fn push_sacks(&mut self, sacks: &Sacks) {
        let at = usize::from(self.length);
        let room = (self.bytes.len() - at).saturating_sub(4) / 8;
        let count = sacks.len().min(room);
        if count == 0 {
            return;
        }
        self.bytes[at..at + 4].copy_from_slice(&[1, 1, 5, 2 + 8 * count as u8]);
        for (place, (left, right)) in self.bytes[at + 4..].chunks_exact_mut(8).zip(sacks.iter().take(count)) {
            place[..4].copy_from_slice(&left.to_be_bytes());
            place[4..].copy_from_slice(&right.to_be_bytes());
        }
        self.length += 4 + 8 * count as u8;
    }
}

impl Deref for OptionBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// A segment to be sent. Its data are bytes `offset..offset + len` of what the connection's owner sends, counted from the
/// first byte after the SYN: the same bytes each time they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<S> {
    /// Whose.
    pub flow: Flow,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; 0 without ACK.
    pub ack: u32,
    /// See [`irl_wire::packet::tcp_flags`].
    pub flags: u8,
    /// Window, as it stands in the header.
    pub window: u16,
    /// Options.
    pub options: OptionBytes,
    /// Where its data begin.
    pub offset: u32,
    /// How many bytes they are.
    pub len: u16,
    /// The connection's state; the default where there is no connection (any more).
    pub state: S,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_written_are_read_back() {
        let mut sacks = Sacks::default();
        for block in 0..5 {
            sacks.push(block * 10, block * 10 + 5);
        }
        assert_eq!(sacks.len(), 4, "a header has no room for a fifth");
        let mut bytes = OptionBytes::NONE;
        bytes.push_timestamps(7, 9);
        bytes.push_sacks(&sacks);
        assert_eq!(bytes.len(), 12 + 4 + 3 * 8, "three blocks fit beside timestamps (RFC 2018, section 3)");
        let read = Options::parse(&bytes);
        assert_eq!(read.timestamps, Some((7, 9)));
        assert_eq!(read.sacks.iter().collect::<Vec<_>>(), [(0, 5), (10, 15), (20, 25)]);
        let mut alone = OptionBytes::NONE;
        alone.push_sacks(&sacks);
        assert_eq!((alone.len(), Options::parse(&alone).sacks), (36, sacks));
    }

    #[test]
    fn whatever_the_bytes_the_options_end() {
        for bytes in [&[5, 10][..], &[2], &[8, 1, 0], &[5, 9, 0, 0, 0, 0, 0, 0, 0], &[254, 4, 1, 2, 4, 2]] {
            let options = Options::parse(bytes);
            assert!(options.sacks.is_empty() && options.mss.is_none(), "{bytes:?}");
        }
        assert!(Options::parse(&[254, 4, 1, 2, 4, 2]).sack_permitted, "an unknown option is skipped");
        assert!(Options::parse(&[1, 1, 1, 4, 2]).sack_permitted, "options may begin anywhere (RFC 9293, MUST-64)");
    }
}
