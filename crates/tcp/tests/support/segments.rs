//! Segments as tests write and read them: sequence numbers count from the side's own SYN.

use std::fmt;

use irl_tcp::Outgoing;
use irl_wire::packet::tcp_flags::{ACK, FIN, PSH, RST, SYN};

/// The letters of packetdrill, and the bits that they stand for.
const LETTERS: [(char, u8); 8] =
    [('S', SYN), ('F', FIN), ('R', RST), ('P', PSH), ('.', ACK), ('U', 0x20), ('E', 0x40), ('W', 0x80)];

/// Flags from letters; `None` for a letter that is none.
pub fn flags_from(text: &str) -> Option<u8> {
    let bit = |letter| LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| bit);
    text.chars().try_fold(0, |flags, letter| Some(flags | bit(letter)?))
}

/// Letters from flags.
pub fn letters(flags: u8) -> String {
    LETTERS.iter().filter(|(_, bit)| flags & bit != 0).map(|(letter, _)| letter).collect()
}

/// A segment that the machine sent, read back from its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub at_ns: u64,
    pub flags: u8,
    /// From our SYN.
    pub seq: i64,
    /// From the peer's SYN; meaningless without ACK.
    pub ack: i64,
    pub len: u16,
    /// Unscaled, as in the header.
    pub window: u16,
    pub timestamps: Option<(u32, u32)>,
    /// From the peer's SYN.
    pub sacks: Vec<(i64, i64)>,
    pub option_bytes: usize,
}

impl Sent {
    /// Reads what the machine wants to send; panics where the options are not well formed, because ours have to be.
    pub fn read<S>(out: &Outgoing<S>, at_ns: u64, ours: u32, theirs: u32) -> Self {
        let bytes: &[u8] = &out.options;
        assert!(bytes.len().is_multiple_of(4) && bytes.len() <= 40, "options of {} bytes", bytes.len());
        let mut sent = Self {
            at_ns,
            flags: out.flags,
            seq: relative(out.seq, ours),
            ack: relative(out.ack, theirs),
            len: out.len,
            window: out.window,
            timestamps: None,
            sacks: Vec::new(),
            option_bytes: bytes.len(),
        };
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let mut rest = bytes;
        while let [kind, ..] = *rest {
            let length = if kind <= 1 { 1 } else { usize::from(rest[1]) };
            match (kind, &rest[..length]) {
                (0 | 1, _) => {}
                (8, body) if length == 10 => sent.timestamps = Some((word(&body[2..6]), word(&body[6..10]))),
                (5, body) if length > 2 && length % 8 == 2 => {
                    let block = |pair: &[u8]| (relative(word(&pair[..4]), theirs), relative(word(&pair[4..]), theirs));
                    sent.sacks.extend(body[2..].chunks(8).map(block));
                }
                (kind, body) => panic!("an option that has no place in our segments: kind {kind}, {body:?}"),
            }
            rest = &rest[length..];
        }
        sent
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number after it.
    pub fn end(&self) -> i64 {
        self.seq + i64::from(self.len) + i64::from(self.has(SYN)) + i64::from(self.has(FIN))
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}({})", letters(self.flags), self.seq, self.len)?;
        if self.has(ACK) {
            write!(f, " ack {}", self.ack)?;
        }
        write!(f, " win {}", self.window)?;
        if let Some((value, echo)) = self.timestamps {
            write!(f, " ts {value} {echo}")?;
        }
        if !self.sacks.is_empty() {
            let blocks: Vec<_> = self.sacks.iter().map(|(left, right)| format!("{left}:{right}")).collect();
            write!(f, " sack {}", blocks.join(" "))?;
        }
        Ok(())
    }
}

/// How far a sequence number is past another: within half the number space either way.
pub fn relative(number: u32, base: u32) -> i64 {
    i64::from(number.wrapping_sub(base).cast_signed())
}

/// The sequence number so far past another.
pub fn absolute(offset: i64, base: u32) -> u32 {
    base.wrapping_add(offset as u32)
}

/// The byte that a stream has at an offset: any slip, repeat or swap shows.
pub fn byte_at(stream: u64, offset: u64) -> u8 {
    let mixed = (offset ^ stream << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// A piece of a stream.
pub fn bytes_at(stream: u64, offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|at| byte_at(stream, at)).collect()
}
