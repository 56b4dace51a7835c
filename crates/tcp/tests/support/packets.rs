//! IPv4 packets of TCP: what the machine sends as bytes, and what a peer sends as segments.

use irl_tcp::{Flow, Options, Segment};
use irl_wire::checksum;
use irl_wire::packet::{Packet, Tcp, protocol};

/// Our address in every simulated network.
pub const OURS: u32 = 0x0a00_0001;
/// The peer's.
pub const THEIRS: u32 = 0x0a00_0002;
/// The peer's port.
pub const PORT: u16 = 80;

/// The flow of one of our ports.
pub fn flow(our_port: u16) -> Flow {
    Flow { ours: 0, our_port, theirs: u128::from(THEIRS), their_port: PORT }
}

/// A header's numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header<'a> {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: &'a [u8],
}

/// A packet from us to the peer, or back.
pub fn packet(from_us: bool, our_port: u16, header: &Header<'_>, data: &[u8]) -> Vec<u8> {
    let (source, destination) = if from_us { (OURS, THEIRS) } else { (THEIRS, OURS) };
    let (source_port, destination_port) = if from_us { (our_port, PORT) } else { (PORT, our_port) };
    let tcp_len = 20 + header.options.len() + data.len();
    let mut bytes = vec![0x45, 0];
    bytes.extend(((20 + tcp_len) as u16).to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, protocol::TCP, 0, 0]);
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    let sum = checksum::finish(checksum::add(0, &bytes));
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(source_port.to_be_bytes());
    bytes.extend(destination_port.to_be_bytes());
    bytes.extend(header.seq.to_be_bytes());
    bytes.extend(header.ack.to_be_bytes());
    bytes.extend([((20 + header.options.len()) as u8 / 4) << 4, header.flags]);
    bytes.extend(header.window.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(header.options);
    bytes.extend(data);
    let pseudo = checksum::pseudo_v4(source, destination, protocol::TCP, tcp_len as u16);
    let sum = checksum::finish(checksum::add(pseudo, &bytes[20..]));
    bytes[36..38].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The segment in a packet for us, if its checksums are right: what is wrong ends before the table.
pub fn segment(bytes: &[u8]) -> Option<(Segment, Vec<u8>)> {
    let packet = Packet::parse_v4(bytes)?;
    if !packet.header_intact() || !packet.payload_intact() || packet.destination != u128::from(OURS) {
        return None;
    }
    let tcp = Tcp::parse(packet.payload)?;
    let flow = Flow { ours: 0, our_port: tcp.destination_port, theirs: packet.source, their_port: tcp.source_port };
    let Tcp { seq, ack, flags, window, .. } = tcp;
    Some((Segment { flow, seq, ack, flags, window, options: Options::parse(tcp.options) }, tcp.payload.to_vec()))
}

/// The options of the SYNs that the table's connections answer.
pub fn syn_options(mss: u16, stamp: Option<u32>) -> Vec<u8> {
    let mut bytes = vec![2, 4];
    bytes.extend(mss.to_be_bytes());
    bytes.extend([4, 2]);
    if let Some(stamp) = stamp {
        bytes.extend([8, 10]);
        bytes.extend(stamp.to_be_bytes());
        bytes.extend([0; 4]);
    } else {
        bytes.extend([1, 1]);
    }
    bytes.extend([1, 3, 3, 7]);
    bytes
}
