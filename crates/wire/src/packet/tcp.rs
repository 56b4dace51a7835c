//! TCP segments and their options.

use super::{tcp_flags, u32_at};

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// See [`tcp_flags`].
    pub flags: u8,
    /// Window, unscaled.
    pub window: u16,
    /// The options' bytes.
    pub options: &'a [u8],
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// Reads a segment; `None` when it is shorter than its header says.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<20>()?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        Some(Self {
            source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
            seq: u32_at(bytes, 4)?,
            ack: u32_at(bytes, 8)?,
            flags: fixed[13],
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            options: bytes.get(20..header_len)?,
            payload: bytes.get(header_len..)?,
        })
    }

    /// The options, up to the first that is malformed.
    pub fn options(&self) -> TcpOptions {
        TcpOptions::parse(self.options)
    }

    /// How much sequence space the segment takes.
    pub fn sequence_len(&self) -> u32 {
        self.payload.len() as u32
            + u32::from(self.flags & tcp_flags::SYN != 0)
            + u32::from(self.flags & tcp_flags::FIN != 0)
    }
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

/// TCP options that are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale.
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks.
    pub sacks: Sacks,
    /// An option had a length of 0 or 1, or reached past the header: parsing stopped there.
    pub malformed: bool,
}

impl TcpOptions {
    /// Reads options; unknown ones are skipped (RFC 9293, MUST-6), a bad length ends it (MUST-7).
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        loop {
            let length = match *bytes {
                [] | [0, ..] => return options,
                [1, ..] => 1,
                [_, length, ..] if length >= 2 && usize::from(length) <= bytes.len() => usize::from(length),
                _ => {
                    options.malformed = true;
                    return options;
                }
            };
            match bytes[..length] {
                [2, 4, a, b] => options.mss = Some(u16::from_be_bytes([a, b])),
                [3, 3, shift] => options.window_scale = Some(shift),
                [4, 2] => options.sack_permitted = true,
                [5, _, ref blocks @ ..] if blocks.len() % 8 == 0 => {
                    options.sacks = Sacks::default();
                    for block in blocks.chunks_exact(8) {
                        let word = |at| u32_at(block, at).unwrap_or_default();
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
