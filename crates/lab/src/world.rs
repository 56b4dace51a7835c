//! What every (address, port) of a synthetic Internet is: a pure function of a seed. Written spec: `docs/world.md`.
//!
//! Only 64-bit addition, exclusive or, shifts and multiplication, so that the responder in the kernel computes the same
//! (`bpf/world.h`).

use serde::{Deserialize, Serialize};

/// The version of the spec.
pub const VERSION: u32 = 1;

/// What fixes a World.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorldConfig {
    /// Everything follows from it.
    pub seed: u64,
    /// Every port of every address is open and every host answers echoes: for benchmarks, where each probe counts.
    pub everything_open: bool,
}

/// What a TCP probe of an (address, port) meets. The list may grow; match with a wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum Class {
    /// Nobody there, or somebody who says nothing.
    Absent = 0,
    /// RST.
    Closed = 1,
    /// SYN-ACK, and a service behind it.
    Open = 2,
    /// ICMP: communication administratively prohibited.
    Filtered = 3,
    /// Open, and every answer comes twice.
    Duplicate = 4,
    /// A middlebox opens every port of every address of its /24.
    Middlebox = 5,
    /// A SYN-ACK with a wrong acknowledgement number: not an answer to us.
    WrongAck = 6,
}

impl Class {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Absent, Self::Closed, Self::Open, Self::Filtered, Self::Duplicate, Self::Middlebox, Self::WrongAck];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Filtered => "filtered",
            Self::Duplicate => "duplicate",
            Self::Middlebox => "middlebox",
            Self::WrongAck => "wrong_ack",
        }
    }

    /// Whether a SYN scan must find it.
    pub fn accepts(self) -> bool {
        matches!(self, Self::Open | Self::Duplicate | Self::Middlebox)
    }
}

/// Bits of [`Truth::flags`].
pub mod flags {
    /// The host is there.
    pub const ALIVE: u8 = 1;
    /// It answers ICMP echo.
    pub const ECHO: u8 = 2;
    /// Its UDP port sends back what it gets; the other UDP ports of a host that is there are unreachable.
    pub const UDP_ECHO: u8 = 4;
}

/// What an (address, port) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Truth {
    /// For TCP.
    pub class: Class,
    /// For the rest, see [`flags`].
    pub flags: u8,
    /// Which answer its service gives: see [`World::response`].
    pub response_id: u16,
}

/// A synthetic Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    config: WorldConfig,
}

const M1: u64 = 0x9e37_79b9_7f4a_7c15;
const M2: u64 = 0xbf58_476d_1ce4_e5b9;
const M3: u64 = 0x94d0_49bb_1331_11eb;

/// Stirs 64 bits.
#[inline]
fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(M2);
    x ^= x >> 27;
    x = x.wrapping_mul(M3);
    x ^ (x >> 31)
}

/// What a draw is for; part of the spec.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Draw {
    Region = 1,
    Block = 2,
    Host = 3,
    Port = 4,
    Response = 5,
    Udp = 6,
    Isn = 7,
}

impl World {
    /// The World of a configuration.
    pub fn new(config: WorldConfig) -> Self {
        Self { config }
    }

    /// What it was made from.
    pub fn config(&self) -> WorldConfig {
        self.config
    }

    #[inline]
    fn draw(&self, draw: Draw, address: u128, extra: u64) -> u64 {
        let (high, low) = ((address >> 64) as u64, address as u64);
        let start = mix(self.config.seed.wrapping_add((draw as u64).wrapping_mul(M1)));
        mix(mix(mix(start ^ high).wrapping_add(low)) ^ extra)
    }

    /// What an (address, port) is.
    #[inline]
    pub fn truth(&self, address: u128, port: u16) -> Truth {
        let response_id = (self.response_draw(address, port) & 0xffff) as u16;
        if self.config.everything_open {
            let flags = flags::ALIVE | flags::ECHO | flags::UDP_ECHO;
            return Truth { class: Class::Open, flags, response_id };
        }
        let host = self.host(address);
        if host & HOST_ALIVE == 0 {
            return Truth { class: Class::Absent, flags: 0, response_id };
        }
        let udp = self.draw(Draw::Udp, address, u64::from(port)) & 3 == 0;
        let flags =
            flags::ALIVE | if host & HOST_ECHO != 0 { flags::ECHO } else { 0 } | if udp { flags::UDP_ECHO } else { 0 };
        Truth { class: self.class(host, address, port), flags, response_id }
    }

    fn class(&self, host: u64, address: u128, port: u16) -> Class {
        if host & HOST_MIDDLEBOX != 0 {
            return Class::Middlebox;
        }
        let draw = self.draw(Draw::Port, address, u64::from(port));
        // Of 256.
        let open = match port {
            80 | 443 => 128,
            22 | 53 => 64,
            21 | 25 | 8080 => 32,
            _ => 4,
        };
        if draw & 0xff >= open {
            // The rest is refused, silent or forbidden, by the host's temper.
            return match (host & HOST_FIREWALL != 0, draw >> 8 & 3) {
                (false, _) => Class::Closed,
                (true, 0 | 1) => Class::Absent,
                (true, 2) => Class::Filtered,
                (true, _) => Class::Closed,
            };
        }
        match host >> 32 & 31 {
            0 => Class::Duplicate,
            1 => Class::WrongAck,
            _ => Class::Open,
        }
    }

    /// What all ports of an address share.
    fn host(&self, address: u128) -> u64 {
        let region = self.draw(Draw::Region, address >> 16, 0);
        // Hosts in 65,536 addresses of a /16: most are empty, few are full.
        let density = match region & 0xff {
            0..96 => return 0,
            96..192 => 1_000,
            192..240 => 8_000,
            _ => 40_000,
        };
        let block = self.draw(Draw::Block, address >> 8, 0);
        if block & 0xff < 2 {
            return HOST_ALIVE | HOST_ECHO | HOST_MIDDLEBOX;
        }
        if block & 0xff < 66 {
            return 0;
        }
        let host = self.draw(Draw::Host, address, 0);
        if host & 0xffff >= density {
            return 0;
        }
        // Bits 16 to 18 decide on echoes, bit 19 on the firewall; 32 to 36 are the host's quirk.
        HOST_ALIVE
            | if host >> 16 & 7 != 0 { HOST_ECHO } else { 0 }
            | if host >> 19 & 1 != 0 { HOST_FIREWALL } else { 0 }
            | host & (31 << 32)
    }

    /// The sequence number that a SYN-ACK from (address, port) to one of our endpoints starts with.
    pub fn isn(&self, address: u128, port: u16, ours: u128, our_port: u16) -> u32 {
        let peer = (ours as u64) ^ ((ours >> 64) as u64).rotate_left(32) ^ u64::from(our_port) << 48;
        self.draw(Draw::Isn, address, u64::from(port) ^ peer) as u32
    }

    /// What the answers of the service behind (address, port) follow from: see
    /// [`Reply::said`](crate::service::Reply::said).
    #[inline]
    pub fn response_draw(&self, address: u128, port: u16) -> u64 {
        self.draw(Draw::Response, address, u64::from(port))
    }

    /// What the service behind an open port sends when it is asked anything.
    pub fn response(&self, truth: Truth, port: u16) -> Vec<u8> {
        let id = truth.response_id;
        match port {
            22 => format!("SSH-2.0-World_{id:04x}\r\n").into_bytes(),
            21 | 25 => format!("220 host-{id:04x}.world.invalid ready\r\n").into_bytes(),
            _ => {
                let body = format!("<p>{id:04x}</p>\n");
                format!("HTTP/1.0 200 OK\r\nServer: world\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
            }
        }
    }
}

const HOST_ALIVE: u64 = 1;
const HOST_ECHO: u64 = 2;
const HOST_FIREWALL: u64 = 4;
const HOST_MIDDLEBOX: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Vector {
        seed: u64,
        address: String,
        port: u16,
        class: Class,
        flags: u8,
        response_id: u16,
        isn: u32,
    }

    fn vectors() -> Vec<Vector> {
        let mut out = Vec::new();
        for seed in [1, 42] {
            let world = World::new(WorldConfig { seed, everything_open: false });
            let mut seen = [0; Class::ALL.len()];
            for low in (0..4_000_000_u128).step_by(37) {
                for (base, port) in [(0x0a00_0000_u128, 80), (0xfd00_u128 << 112, 7777)] {
                    let address = base + low;
                    let truth = world.truth(address, port);
                    if seen[truth.class as usize] < 6 {
                        seen[truth.class as usize] += 1;
                        let isn = world.isn(address, port, 0xc612_000a, 61_000);
                        let Truth { class, flags, response_id } = truth;
                        out.push(Vector {
                            seed,
                            address: format!("{address:x}"),
                            port,
                            class,
                            flags,
                            response_id,
                            isn,
                        });
                    }
                }
            }
        }
        out
    }

    /// Frozen: when the spec changes, raise [`VERSION`] and write the file anew with `IRL_WRITE_VECTORS=1`.
    #[test]
    fn agrees_with_the_published_vectors() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/world-v1.json");
        let ours = vectors();
        if std::env::var_os("IRL_WRITE_VECTORS").is_some() {
            let lines: Vec<_> = ours.iter().map(|v| serde_json::to_string(v).unwrap()).collect();
            std::fs::write(path, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
        }
        let published: Vec<Vector> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(ours, published);
        for class in Class::ALL {
            assert!(ours.iter().any(|vector| vector.class == class), "no vector of {}", class.name());
        }
    }

    #[test]
    fn density_differs_by_prefix() {
        let world = World::new(WorldConfig { seed: 7, everything_open: false });
        let alive = |region: u128| {
            (0..65_536_u128).filter(|low| world.truth(region << 16 | low, 80).flags & flags::ALIVE != 0).count()
        };
        let counts: Vec<usize> = (0x0a00..0x0a40).map(alive).collect();
        assert!(counts.iter().filter(|count| **count == 0).count() > 10, "no empty /16s: {counts:?}");
        assert!(counts.iter().any(|count| *count > 20_000), "no dense /16: {counts:?}");
        assert!(counts.iter().any(|count| (100..3_000).contains(count)), "no sparse /16: {counts:?}");
    }

    #[test]
    fn is_all_open_when_told() {
        let world = World::new(WorldConfig { seed: 7, everything_open: true });
        assert!((0..1000).all(|low| world.truth(low, low as u16).class == Class::Open));
    }
}
