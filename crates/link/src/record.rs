//! What the filter hands to user space: a 16-byte header and a body, in a BPF ring buffer or in memory.
//!
//! The C twin of this file is `bpf/record.h`; a test compares sizes and offsets. All multi-byte *header* fields are in
//! the host's byte order; addresses, ports, sequence numbers and every other field copied from the wire are in network
//! byte order, as they came, and so are the lengths that bodies carry. Version 1 is frozen: a change of layout is a new version.
//!
//! Header (16 bytes):
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 1 | version = 1 |
//! | 1 | 1 | kind: 1 TCP4, 2 TCP6, 3 ICMP, 4 UDP, 5 frame |
//! | 2 | 2 | flags, see [`flags`]; the low byte is the answer class + 1 when match rules decided, else 0 |
//! | 4 | 2 | length of the body in bytes |
//! | 6 | 2 | owner |
//! | 8 | 8 | receive time, CLOCK_MONOTONIC, ns |
//!
//! TCP4 body (40 bytes): saddr 0..4, daddr 4..8, sport 8..10, dport 10..12, seq 12..16, ack 16..20, window 20..22,
//! TCP flags 22, TTL 23, IP ID 24..26, MSS 26..28 (0 = absent), window scale 28 (255 = absent), option bits 29
//! (see [`options`]), payload length 30..32, TSval 32..36, TSecr 36..40.
//!
//! TCP6 body (64 bytes): saddr 0..16, daddr 16..32, and then the TCP4 body from its byte 8 on (32..64).
//!
//! ICMP body (80 bytes), v4 and v6, IPv4 addresses mapped (`::ffff:a.b.c.d`): saddr 0..16, daddr 16..32, type 32,
//! code 33, TTL 34, quoted protocol 35 (0 = nothing quoted, as for an echo), IP ID 36..38, id or quoted source port
//! 38..40, sequence or quoted destination port 40..42, payload length 42..44, quoted TCP sequence number, or where
//! something else is quoted the MTU word, 44..48, quoted destination 48..64 (the probed target), the first 16 bytes of an echo's payload 64..80.
//!
//! UDP body (48 bytes), IPv4 addresses mapped: saddr 0..16, daddr 16..32, sport 32..34, dport 34..36, UDP length
//! 36..38, TTL 38, zero 39, IP ID 40..42, zero 42..44, length of the payload in bytes 44..46, zero 46..48.
//!
//! Frame body: the whole frame from its Ethernet header on, cut at [`MAX_FRAME_BODY`].

/// The version this file describes.
pub const VERSION: u8 = 1;
/// Bytes of a record's header.
pub const HEADER_LEN: usize = 16;
/// The longest body of a frame record; longer frames are cut and flagged.
pub const MAX_FRAME_BODY: usize = 3520;

/// What a record's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A TCP segment over IPv4, compact.
    Tcp4 = 1,
    /// A TCP segment over IPv6, compact.
    Tcp6 = 2,
    /// An ICMP or ICMPv6 message that answers us or quotes us, compact.
    Icmp = 3,
    /// A UDP datagram, compact.
    Udp = 4,
    /// A whole frame: payload, own probes, ARP, ND, fragments.
    Frame = 5,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Tcp4,
            2 => Self::Tcp6,
            3 => Self::Icmp,
            4 => Self::Udp,
            5 => Self::Frame,
            _ => return None,
        })
    }

    /// Bytes of the body, where it is fixed.
    pub fn body_len(self) -> Option<usize> {
        match self {
            Self::Tcp4 => Some(40),
            Self::Tcp6 => Some(64),
            Self::Icmp => Some(80),
            Self::Udp => Some(48),
            Self::Frame => None,
        }
    }
}

/// Bits of the header's flags.
pub mod flags {
    /// The low byte: 0, or 1 + the index of the answer class whose match rules held.
    pub const CLASS_MASK: u16 = 0x00ff;
    /// The cookie was checked and is right.
    pub const COOKIE: u16 = 0x0100;
    /// A checksum of the frame is wrong.
    pub const BAD_CHECKSUM: u16 = 0x0200;
    /// The transport checksum was not looked at (a payload too long for the filter).
    pub const UNCHECKED: u16 = 0x0400;
    /// The frame carried one VLAN tag.
    pub const VLAN: u16 = 0x0800;
    /// A frame body that was cut.
    pub const CUT: u16 = 0x1000;
    /// An IP fragment.
    pub const FRAGMENT: u16 = 0x2000;
    /// ARP or neighbour discovery.
    pub const NEIGHBOUR: u16 = 0x4000;
}

/// Bits of a TCP body's option byte.
pub mod options {
    /// SACK permitted.
    pub const SACK_PERMITTED: u8 = 1;
    /// Timestamps; TSval and TSecr are valid.
    pub const TIMESTAMPS: u8 = 2;
    /// The options were malformed (a length of 0 or 1, or past the header's end): parsing stopped there.
    pub const MALFORMED: u8 = 4;
}

/// A record as it lies in the ring: parsed, and not believed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What the body is.
    pub kind: Kind,
    /// See [`flags`].
    pub flags: u16,
    /// The owner the filter chose.
    pub owner: u16,
    /// CLOCK_MONOTONIC in ns when the filter saw the frame.
    pub time_ns: u64,
    /// As long as [`Kind::body_len`] says, where that is fixed.
    pub body: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a record; `None` when version, kind or length are not of this layout.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let kind = Kind::from_u8(header[1])?;
        let length = usize::from(u16::from_ne_bytes([header[4], header[5]]));
        if header[0] != VERSION || kind.body_len().is_some_and(|fixed| fixed != length) {
            return None;
        }
        Some(Self {
            kind,
            flags: u16::from_ne_bytes([header[2], header[3]]),
            owner: u16::from_ne_bytes([header[6], header[7]]),
            time_ns: u64::from_ne_bytes(header[8..16].try_into().ok()?),
            body: rest.get(..length)?,
        })
    }

    /// Appends a record to `out` in its stored form.
    ///
    /// # Panics
    /// When the body is longer than 65,535 bytes; [`MAX_FRAME_BODY`] keeps callers below that.
    pub fn write(&self, out: &mut Vec<u8>) {
        let length = u16::try_from(self.body.len()).expect("a body is at most MAX_FRAME_BODY bytes");
        out.extend_from_slice(&[VERSION, self.kind as u8]);
        out.extend_from_slice(&self.flags.to_ne_bytes());
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&self.owner.to_ne_bytes());
        out.extend_from_slice(&self.time_ns.to_ne_bytes());
        out.extend_from_slice(self.body);
    }
}
