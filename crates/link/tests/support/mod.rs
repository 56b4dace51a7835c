//! What the filter's tests share: namespaces of their own, and frames built by hand.

#![allow(dead_code, reason = "each test file uses a part of it")]

use irl_wire::cookie::Key;

/// Whether the test can run; says so aloud when not.
pub(crate) fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root() && irl_link::filter::FILTER_BUILT;
    if !root {
        eprintln!("SKIPPED {test}: needs root and a build with clang");
    }
    root
}

/// Runs `body` on a thread with a network namespace of its own, which ends with it.
pub(crate) fn in_own_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        body()
    })
    .join()
    .expect("the test's thread does not panic")
}

/// Runs `ip` with these words in this thread's namespace.
pub(crate) fn ip(words: &str) {
    let output = std::process::Command::new("ip").args(words.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// xorshift64*: small, seeded, good enough to choose mutations.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    pub(crate) fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// The one's complement checksum of `bytes` on top of `seed`.
pub(crate) fn checksum(bytes: &[u8], seed: u64) -> u16 {
    let mut sum = seed;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An address of either family as its bytes.
pub(crate) fn octets(address: &str) -> Vec<u8> {
    match address.parse().expect("an address in a test is well formed") {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn number(address: &[u8]) -> u128 {
    address.iter().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

/// The cookie of (ours, target, port) in the family of the addresses.
pub(crate) fn cookie(key: &Key, ours: &[u8], target: &[u8], port: u16) -> irl_wire::cookie::Cookie {
    if ours.len() == 4 {
        key.v4(number(ours) as u32, number(target) as u32, port)
    } else {
        key.v6(number(ours), number(target), port)
    }
}

fn pseudo_header(from: &[u8], to: &[u8], protocol: u8, len: usize) -> u64 {
    u64::from(!checksum(&[from, to].concat(), 0)) + u64::from(protocol) + len as u64
}

/// An IP packet around `transport`, whose checksum at `checksum_at` is filled in; IPv4 options or IPv6 extension
/// headers go into `extra`: for IPv6 complete headers with their types in front of each.
pub(crate) fn ip_packet(
    from: &[u8],
    to: &[u8],
    protocol: u8,
    options: &[u8],
    mut transport: Vec<u8>,
    checksum_at: Option<usize>,
) -> Vec<u8> {
    let v6 = from.len() == 16;
    let protocol = if v6 && protocol == 1 { 58 } else { protocol };
    if let Some(at) = checksum_at.filter(|at| at + 2 <= transport.len()) {
        let seed = if protocol == 1 { 0 } else { pseudo_header(from, to, protocol, transport.len()) };
        transport[at..at + 2].fill(0);
        let sum = checksum(&transport, seed);
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut packet = Vec::new();
    if v6 {
        let (next, extensions) = match options.split_first() {
            Some((first, rest)) => (*first, rest),
            None => (protocol, options),
        };
        packet.extend_from_slice(&[0x60, 0, 0, 0]);
        packet.extend_from_slice(&((extensions.len() + transport.len()) as u16).to_be_bytes());
        packet.extend_from_slice(&[next, if protocol == 58 { 255 } else { 61 }]);
        packet.extend_from_slice(from);
        packet.extend_from_slice(to);
        packet.extend_from_slice(extensions);
    } else {
        let header = 20 + options.len();
        packet.extend_from_slice(&[0x40 | (header / 4) as u8, 0]);
        packet.extend_from_slice(&((header + transport.len()) as u16).to_be_bytes());
        packet.extend_from_slice(&[0xab, 0xcd, 0x40, 0, 57, protocol, 0, 0]);
        packet.extend_from_slice(from);
        packet.extend_from_slice(to);
        packet.extend_from_slice(options);
        let sum = checksum(&packet, 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet.extend_from_slice(&transport);
    packet
}

/// An Ethernet frame.
pub(crate) fn frame(vlan: bool, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if vlan {
        frame.extend_from_slice(&[0x81, 0, 0, 5]);
    }
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

/// The frame of an IP packet of either family.
pub(crate) fn ip_frame(vlan: bool, packet: &[u8]) -> Vec<u8> {
    frame(vlan, if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 }, packet)
}

/// A TCP segment; `options` are padded.
pub(crate) fn tcp(sport: u16, dport: u16, seq: u32, ack: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let options: Vec<u8> =
        options.iter().copied().chain(std::iter::repeat(1)).take(options.len().next_multiple_of(4)).collect();
    let mut segment = Vec::new();
    segment.extend_from_slice(&sport.to_be_bytes());
    segment.extend_from_slice(&dport.to_be_bytes());
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    segment.extend_from_slice(&[((5 + options.len() / 4) << 4) as u8, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend_from_slice(&options);
    segment.extend_from_slice(payload);
    segment
}

/// A UDP datagram.
pub(crate) fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend_from_slice(&sport.to_be_bytes());
    datagram.extend_from_slice(&dport.to_be_bytes());
    datagram.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    datagram
}

/// An ICMP message: type, code, and everything after the checksum.
pub(crate) fn icmp(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0][..], rest].concat()
}

/// Where the transport's checksum lies.
pub(crate) fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 => Some(6),
        1 => Some(2),
        _ => None,
    }
}
