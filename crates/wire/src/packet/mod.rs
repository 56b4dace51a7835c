//! Whole frames: read as views that never panic, and written header by header.
//!
//! A [`Packet`] is what a frame says of itself, checked for lengths and nothing else; transport views sit on its
//! payload. An [`Envelope`] writes Ethernet and IP around a transport segment and finishes its checksums.

mod envelope;
mod link;
mod network;
mod numbers;
mod tcp;
mod udp_icmp;

pub use envelope::Envelope;
pub use link::{Arp, Ethernet};
pub use network::Packet;
pub use numbers::{ethertype, protocol, tcp_flags};
pub use tcp::{Sacks, Tcp, TcpOptions};
pub use udp_icmp::{Icmp, Udp};

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map(u128::from_be_bytes)
}
