//! What building a frame costs: ns a frame, cookie and checksums included, the least of several rounds.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use irl_wire::{Endpoint, FrameBuilder, Key, Mac, PortRange, Probe};

fn main() {
    const FRAMES: u64 = 1_000_000;
    for (name, args, source) in [
        ("tcp_synscan", &[("layout", "smallest")][..], "198.18.0.10"),
        ("tcp_synscan", &[], "198.18.0.10"),
        ("tcp_synscan", &[], "fd00:18::10"),
        ("icmp_echoscan", &[], "198.18.0.10"),
        ("udp", &[("text", "hello")], "198.18.0.10"),
        ("udp", &[("template", "${DADDR}:${DPORT} ${RAND_ALPHANUM=8}")], "198.18.0.10"),
        ("dns", &[], "198.18.0.10"),
    ] {
        let values: BTreeMap<_, _> = args.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let probe = Probe::resolve(name, &values).expect("a probe of ours");
        let address: IpAddr = source.parse().expect("an address");
        let from = Endpoint { mac: Mac([2; 6]), address, ports: PortRange::DEFAULT, ttl: 64, vlan: None };
        let builder = FrameBuilder::new(&probe, &from, &Key::new([7; 16])).expect("a template of ours");
        let mut slots = vec![0; 256 * 128];
        let mut least = f64::INFINITY;
        for _ in 0..9 {
            let start = Instant::now();
            for number in 0..FRAMES {
                let slot = &mut slots[(number as usize & 255) * 128..][..128];
                let target = u128::from(number.wrapping_mul(0x9e37_79b9) as u32);
                builder.build(slot, Mac([4; 6]), target, 80, 0, number);
                // Somebody might read the frame: its stores cannot be left out.
                black_box(&mut *slot);
            }
            least = least.min(start.elapsed().as_nanos() as f64 / FRAMES as f64);
        }
        println!("{name} {args:?} from {source}: {least:.1} ns a frame of {} bytes", builder.frame_len());
    }
}
