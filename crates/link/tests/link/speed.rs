//! What the way out costs. Run by hand:
//! `cargo test --release -p irl-link --test link speed -- --ignored --nocapture --test-threads 1`

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use irl_link::{Arena, Gate, NullSender, Policy, PolicySettings, Rate, Targets};
use irl_targets::{Family, PrefixSet};

use crate::engine::syn;
use crate::wire::{Shell, Wire, ip, worker};

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// All of 10.0.0.0/8, less so many prefixes.
fn policy_with_holes(count: u128) -> Policy {
    let holes = (0..count).map(|i| (0x0a00_0000 + i * 54_321, 0x0a00_0000 + i * 54_321 + 255)).collect();
    let settings = PolicySettings {
        sources: vec![ip("198.18.0.10")],
        rate: Rate::Unlimited,
        arena: Arena::Simulated,
        deny: vec![PrefixSet::from_ranges(Family::V4, holes)],
        ..PolicySettings::default()
    };
    settings.authorise(Targets::Items(&[PrefixSet::parse_items(["10.0.0.0/8"]).unwrap()])).unwrap()
}

fn judging(policy: &Policy, frames: &[[u8; 64]], holes: u128) {
    let mut best = f64::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        for _ in 0..4000 {
            for frame in frames {
                black_box(policy.check(black_box(&frame[..54])));
            }
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (4000.0 * frames.len() as f64));
    }
    say(&format!("policy check, IPv4, random targets, {holes} denied prefixes in 10.0.0.0/8: {best:.2} ns"));
}

#[test]
#[ignore = "a measurement"]
fn a_policy_check() {
    let mut frames = vec![[0u8; 64]; 256];
    let mut number = 1u32;
    for frame in &mut frames {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        syn(frame, [2, 0, 0, 0, 0, 9], number >> 8);
    }
    for holes in [0, 300] {
        judging(&policy_with_holes(holes), &frames, holes);
    }
    let policy = Arc::new(policy_with_holes(300));
    let mut gate = Gate::new(Box::new(NullSender::new(256, 64)), policy);
    let mut best = f64::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        for _ in 0..4000 {
            let mut next = 0;
            gate.fill(256, 64, |slot| {
                slot[..54].copy_from_slice(&frames[next][..54]);
                next += 1;
                Some(54)
            })
            .unwrap();
            gate.kick().unwrap();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (4000.0 * 256.0));
    }
    say(&format!("gate into a null sender, frames copied from memory: {best:.2} ns a frame"));
}

#[test]
#[ignore = "a measurement"]
fn sending_on_veth() {
    let Some(wire) = Wire::new() else { return };
    for space in [&wire.near, &wire.far] {
        space.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    }
    let stack = wire.stack(&["198.18.0.10"], true);
    let far = wire.far_interface();
    for batch in [1, 16, 64, 256, 512] {
        let mut worker = worker(&stack);
        let before = far.counters().unwrap();
        let start = Instant::now();
        let mut next = 0;
        while start.elapsed().as_secs_f64() < 1.0 {
            worker
                .gate
                .fill(batch, 64, |slot| {
                    next += 1;
                    syn(slot, far.mac.0, next & 0xff_ffff)
                })
                .unwrap();
            worker.gate.kick().unwrap();
        }
        let elapsed = start.elapsed().as_secs_f64();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let after = far.counters().unwrap();
        let counters = worker.gate.counters();
        say(&format!(
            "packet, {batch} a call: {:.3} Mpps sent, {:.3} arrived, {} times full",
            counters.probes.sent as f64 / elapsed / 1e6,
            (after.rx_packets - before.rx_packets) as f64 / elapsed / 1e6,
            counters.device_full
        ));
        irl_link::Network::release(&stack, &[worker.owner]);
    }
}
