//! Nanoseconds a target of [`CompiledPlan::fill`] and of its parts: the least of several rounds, so that a noisy
//! machine does not matter.
//!
//! ```text
//! cargo run --release -p irl-targets --example speed
//! ```

use std::hint::black_box;
use std::time::Instant;

use irl_targets::{Order, Permutation, Plan, PrefixIndex, PrefixSet, SecretKey, Target};

const ROUNDS: usize = 9;
const TARGETS: u64 = 1 << 20;

fn least(name: &str, mut round: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round();
        best = best.min(start.elapsed().as_nanos() as f64 / TARGETS as f64);
    }
    println!("{name:<52} {best:6.2} ns");
}

/// 300 prefixes of /16 to /24, spread over the unicast space by a fixed rule.
fn deny_list() -> String {
    (0..300u32)
        .map(|i| {
            let address = std::net::Ipv4Addr::from_bits(0x0100_0000 + i * 0x00b8_a5d3);
            format!("{address}/{}\n", 16 + i % 9)
        })
        .collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("irl-targets-speed-{}.txt", std::process::id()));
    std::fs::write(&path, deny_list())?;
    let ordered = |target: &str, ports: &str, order| {
        Plan::builder()
            .target(target)
            .blocklist(&path)
            .ports(ports.parse()?)
            .seed(7)
            .order(order)
            .secret(SecretKey::from_bytes([1; 16]))
            .shards(3)
            .build()?
            .compile(1)
    };
    let plan = |target: &str, ports: &str| ordered(target, ports, Order::Random);
    let mut out = vec![(0, Target::default()); 256];
    let wide = plan("0.0.0.0/0", "80")?;
    let plans = [
        ("fill: 0.0.0.0/0 less 300 prefixes, one port", wide.clone()),
        ("fill: the same, ports 80-379", plan("0.0.0.0/0", "80-379")?),
        ("fill: 10.0.0.0/8, one port", plan("10.0.0.0/8", "80")?),
        ("fill: 2001:db8::/80, one port", plan("2001:db8::/80", "80")?),
        ("fill: 0.0.0.0/0 less 300, one port, order spread", ordered("0.0.0.0/0", "80", Order::Spread)?),
    ];
    for (name, plan) in &plans {
        let end = plan.len().min(TARGETS);
        least(name, || {
            let mut first = 0;
            for _ in 0..TARGETS / 256 {
                first = if first + 256 > end { 0 } else { first };
                first += plan.fill(black_box(first), &mut out) as u64;
                black_box(&mut out);
            }
        });
    }

    let order = Permutation::new(wide.targets().len(), 7);
    least("permutation: index", || {
        black_box((0..u128::from(TARGETS)).fold(0, |sum, position| sum ^ order.index(position)));
    });
    least("permutation: position", || {
        black_box((0..u128::from(TARGETS)).fold(0, |sum, index| sum ^ order.position(index)));
    });
    let big = Permutation::new(1 << 100, 7);
    least("permutation: index, size 2^100", || {
        black_box((0..u128::from(TARGETS)).fold(0, |sum, position| sum ^ big.index(position)));
    });

    let mut targets = Vec::new();
    while targets.len() < TARGETS as usize {
        let count = wide.fill(targets.len() as u64, &mut out);
        targets.extend(out[..count].iter().map(|&(_, target)| target));
    }
    least("slot_of an answer", || {
        let slots = targets[..TARGETS as usize].iter().map(|&target| wide.slot_of(target).unwrap_or(0));
        black_box(slots.fold(0, |sum, slot| sum ^ slot));
    });
    let (denied, _) = PrefixSet::both_from_file(&path)?;
    let index = PrefixIndex::new(denied.clone());
    let count = |contains: &dyn Fn(u128) -> bool| {
        black_box(targets[..TARGETS as usize].iter().filter(|target| contains(target.address)).count());
    };
    least("PrefixIndex::contains, 300 prefixes", || count(&|address| index.contains(address)));
    least("PrefixSet::contains, 300 prefixes", || count(&|address| denied.contains(address)));
    std::fs::remove_file(&path)?;
    Ok(())
}
