//! UDP and ICMP.

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The data, as long as the header says.
    pub payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Reads a datagram; `None` when lengths contradict.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<8>()?;
        let length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        Some(Self {
            source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
            payload: bytes.get(8..length)?,
        })
    }
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp<'a> {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum: identifier and sequence number, an MTU, or nothing.
    pub rest: [u8; 4],
    /// What follows.
    pub payload: &'a [u8],
}

impl<'a> Icmp<'a> {
    /// Reads a message; `None` when it is shorter than its header.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, payload) = bytes.split_first_chunk::<8>()?;
        Some(Self { kind: fixed[0], code: fixed[1], rest: [fixed[4], fixed[5], fixed[6], fixed[7]], payload })
    }
}
