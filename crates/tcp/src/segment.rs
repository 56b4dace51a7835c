//! Segments as they come in and go out.

use std::ops::Deref;

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

/// The blocks of a SACK option: at most four, each from its left edge up to its right one (RFC 2018).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sacks {
    count: u8,
    blocks: [(u32, u32); 4],
}

impl Sacks {
    /// Adds a block; what does not fit is left out.
    pub fn push(&mut self, left: u32, right: u32) {
        if let Some(block) = self.blocks.get_mut(usize::from(self.count)) {
            *block = (left, right);
            self.count += 1;
        }
    }

    /// The blocks in their order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.blocks.iter().take(usize::from(self.count)).copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }
}

/// The options of a segment that this TCP looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size; looked at in a SYN-ACK only (RFC 9293, MUST-65).
    pub mss: Option<u16>,
    /// Window scale; looked at in a SYN-ACK only.
    pub window_scale: Option<u8>,
    /// SACK permitted; looked at in a SYN-ACK only.
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks.
    pub sacks: Sacks,
}

impl Options {
    /// Reads the options of a TCP header. Unknown ones are skipped (RFC 9293, MUST-6), and a bad length ends it (MUST-7).
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        loop {
            let length = match *bytes {
                [] | [0, ..] => return options,
                [1, ..] => 1,
                [_, length, ..] if length >= 2 && usize::from(length) <= bytes.len() => usize::from(length),
                _ => return options,
            };
            match bytes[..length] {
                [2, 4, a, b] => options.mss = Some(u16::from_be_bytes([a, b])),
                [3, 3, shift] => options.window_scale = Some(shift),
                [4, 2] => options.sack_permitted = true,
                [5, _, ref blocks @ ..] if blocks.len() % 8 == 0 => {
                    options.sacks = Sacks::default();
                    for block in blocks.chunks_exact(8) {
                        let word =
                            |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
                        options.sacks.push(word(0), word(4));
                    }
                }
                [8, 10, a, b, c, d, e, f, g, h] => {
                    options.timestamps = Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
                }
                _ => {}
            }
            bytes = &bytes[length..];
        }
    }
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
