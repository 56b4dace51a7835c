//! Claims about order spread: it is a bijection that seeks both ways and agrees with its written specification; no
//! network is probed twice within its share of the run, whatever the plan; and it samples evenly.

mod support;

use std::collections::HashMap;

use irl_targets::{CompiledPlan, Family, Order, Plan, PlanBuilder, Spread, Target, TargetList, spread};
use proptest::prelude::*;
use support::{assert_bijection, check_both_ways, check_vectors};

#[test]
fn every_small_size_is_a_bijection() {
    for size in (1..=600u64).chain([986, 987, 988, 1597, 2048]) {
        let order = Spread::new(size, size ^ 0xabcd);
        assert_bijection(size.into(), &order);
    }
}

#[test]
fn the_vectors_of_the_specification_hold() {
    let make = |size: u128, seed| Spread::new(size.try_into().unwrap(), seed);
    let checked = check_vectors(include_str!("../vectors/spread-v1.json"), spread::VERSION, make);
    assert!(checked > 400);
}

/// The theorem of docs/permutation.md, by brute force: d positions apart and r indices apart, around the circle too,
/// means 3 d (r + 1) > size.
#[test]
fn near_indices_are_far_apart_in_every_small_order() {
    for size in (1..=400u64).chain([610, 987, 1000, 1597]) {
        let order = Spread::new(size, size);
        let indices: Vec<u64> = (0..size).map(|position| order.index(position)).collect();
        for (p, &a) in indices.iter().enumerate() {
            for (q, &b) in indices.iter().enumerate().skip(p + 1) {
                let apart = a.abs_diff(b).min(size - a.abs_diff(b));
                let distance = (q - p) as u64;
                assert!(3 * distance * (apart + 1) > size, "size {size}: {a} and {b} at {p} and {q}");
            }
        }
    }
}

fn any_size() -> impl Strategy<Value = u64> {
    let edges = [1, 2, 3, 1 << 32, 7_540_113_804_746_346_429, 7_540_113_804_746_346_430, spread::LARGEST];
    prop_oneof![
        8 => (1u32..64, any::<u64>()).prop_map(|(shift, bits)| (bits >> shift).max(1)),
        1 => proptest::sample::select(edges.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn position_undoes_index(size in any_size(), seed: u64, at: u64) {
        check_both_ways(size.into(), &Spread::new(size, seed), at.into())?;
    }

    /// The same theorem in orders too large to look at as a whole.
    #[test]
    fn near_indices_are_far_apart_in_large_orders(size in any_size(), seed: u64, at: u64, apart in 1u64..1 << 40) {
        let order = Spread::new(size, seed);
        let (at, apart) = (at % size, apart % size.div_ceil(2));
        let other = (u128::from(at) + u128::from(apart)) % u128::from(size);
        let distance = order.position(at).abs_diff(order.position(other as u64));
        prop_assert!(at == other as u64 || 3 * u128::from(distance) * u128::from(apart + 1) > u128::from(size));
    }
}

/// A plan's targets: prefixes that meet no special-purpose space, unequal ones, with holes.
#[derive(Clone, Debug)]
struct Shape {
    v6: bool,
    /// (offset, bits of the host part): a prefix each.
    prefixes: Vec<(u32, u32)>,
    denied: Vec<(u32, u32)>,
    ports: u16,
    /// Of a list: how many entries each prefix holds at most, some very many and some one.
    listed: Option<Vec<u16>>,
    seed: u64,
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let prefix = || (0u32..1 << 15, 0u32..11);
    let listed = proptest::option::of(proptest::collection::vec(prop_oneof![1u16..3, 1u16..400], 1..40));
    let prefixes = proptest::collection::vec(prefix(), 1..14);
    let denied = proptest::collection::vec(prefix(), 0..4);
    (any::<bool>(), prefixes, denied, 1u16..5, listed, any::<u64>())
        .prop_map(|(v6, prefixes, denied, ports, listed, seed)| Shape { v6, prefixes, denied, ports, listed, seed })
}

impl Shape {
    /// A 15-bit offset becomes an address: in IPv6 its last 8 bits lie inside a /48, at the end.
    fn text(&self, offset: u32) -> String {
        if self.v6 {
            format!("2001:db8:{:x}::{:x}", offset >> 8, offset & 0xff)
        } else {
            std::net::Ipv4Addr::from_bits(0x0a00_0000 + offset).to_string()
        }
    }

    fn range(&self, (offset, host_bits): (u32, u32)) -> String {
        // An IPv6 prefix of more would leave the last 8 bits; ranges are inside one /48.
        let host_bits = if self.v6 { host_bits.min(8) } else { host_bits };
        let first = offset >> host_bits << host_bits;
        format!("{}-{}", self.text(first), self.text(first + (1 << host_bits) - 1))
    }

    fn builder(&self) -> PlanBuilder {
        let ports = format!("80-{}", 79 + self.ports).parse().unwrap();
        Plan::builder().ports(ports).seed(self.seed).order(Order::Spread)
    }

    /// The compiled plan; `None` where nothing is left.
    fn compile(&self, shards: u32) -> Option<CompiledPlan> {
        let deny = self.denied.iter().map(|&prefix| self.range(prefix) + "\n").collect::<String>();
        // Tests that run side by side have a file each.
        let name = format!("irl-spread-{}-{:?}.txt", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, deny).unwrap();
        let builder = self.builder().blocklist(&path).shards(shards);
        let compiled = match &self.listed {
            None => builder.targets(self.prefixes.iter().map(|&prefix| self.range(prefix))).build().unwrap().compile(0),
            Some(counts) => {
                // In an order of lines that has nothing to do with the addresses.
                let mut lines = Vec::new();
                for (nth, &count) in counts.iter().enumerate() {
                    let base = (nth as u32 * 37 % 128) << 8;
                    lines.extend((0..u32::from(count)).map(|i| self.text(base + i * 89 % 256) + "\n"));
                }
                lines.sort_by_key(|line| line.bytes().rev().collect::<Vec<_>>());
                let list = TargetList::from_reader("-", lines.concat().as_bytes()).unwrap();
                builder.list(&list).build().unwrap().compile_with(list, 0)
            }
        };
        std::fs::remove_file(&path).unwrap();
        compiled.ok()
    }
}

fn targets(shard: &CompiledPlan) -> Vec<Target> {
    let mut out = vec![(0, Target::default()); shard.len() as usize];
    assert_eq!(shard.fill(0, &mut out), out.len());
    out.into_iter().map(|(_, target)| target).collect()
}

/// The /24 or /48 of an address.
fn network(family: Family, target: Target) -> u128 {
    target.address >> if family == Family::V4 { 8 } else { 80 }
}

/// By network: how many targets, and the least distance of two of them.
fn distances(family: Family, order: &[Target]) -> HashMap<u128, (u64, u64)> {
    let mut last = HashMap::new();
    let mut networks = HashMap::<u128, (u64, u64)>::new();
    for (position, &target) in order.iter().enumerate() {
        let entry = networks.entry(network(family, target)).or_insert((0, u64::MAX));
        entry.0 += 1;
        if let Some(before) = last.insert(network(family, target), position) {
            entry.1 = entry.1.min((position - before) as u64);
        }
    }
    networks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_network_is_probed_twice_within_its_share(shape in any_shape()) {
        let Some(plan) = shape.compile(1) else { return Ok(()) };
        let family = plan.targets().family();
        let order = targets(&plan);
        let size = order.len() as u64;
        let networks = distances(family, &order);
        let count = networks.len() as f64;
        for (network, &(m, distance)) in &networks {
            let share = size as f64 / m as f64;
            prop_assert!(distance as f64 >= count.min(share) / 4.0, "{network:x}: {m} of {size}, {distance} apart");
            prop_assert!(m == 1 || distance as f64 > share / 3.0, "{network:x}: {m} of {size}, {distance} apart");
        }
    }

    #[test]
    fn shards_are_the_order_s_residues_and_keep_their_part_of_the_distance(shape in any_shape(), shards in 1u32..300) {
        let (Some(whole), Some(first)) = (shape.compile(1), shape.compile(shards)) else { return Ok(()) };
        let family = whole.targets().family();
        let order = targets(&whole);
        let networks = distances(family, &order);
        for number in 0..shards.min(20) {
            let shard = first.shard(number).unwrap();
            let part = targets(&shard);
            let expected: Vec<Target> = order.iter().copied().skip(number as usize).step_by(shards as usize).collect();
            prop_assert_eq!(&part, &expected);
            for (network, (_, distance)) in distances(family, &part) {
                let share = order.len() as f64 / networks[&network].0 as f64;
                prop_assert!(distance as f64 > share / 3.0 / f64::from(shards) || distance == u64::MAX);
            }
        }
    }

    #[test]
    fn a_target_s_position_is_where_it_is_probed(shape in any_shape(), first in 0u64..2000) {
        let Some(plan) = shape.compile(1) else { return Ok(()) };
        let order = targets(&plan);
        let mut out = vec![(0, Target::default()); 40];
        let count = plan.fill(first, &mut out);
        for (i, &(slot, target)) in out[..count].iter().enumerate() {
            let position = first + i as u64;
            prop_assert_eq!(target, order[position as usize]);
            prop_assert_eq!(plan.shard_and_position_of(target), Some((0, position)));
            prop_assert_eq!(plan.slot_of(target), Some(slot));
            prop_assert_eq!(u128::from(slot), plan.index_at(position));
        }
    }
}

/// The same claims where the order matters: a plan of all of IPv4, looked at here and there.
#[test]
fn a_large_plan_keeps_its_distance_too() {
    let plan = Plan::builder().target("0.0.0.0/0").ports("80,443".parse().unwrap()).seed(5).order(Order::Spread);
    let plan = plan.build().unwrap().compile(0).unwrap();
    let share = plan.total() / 512;
    for network in [0x0100_0000u128, 0x0808_0800, 0xdfff_ff00] {
        let mut positions: Vec<u64> = (0..256)
            .flat_map(|host| [80, 443].map(|port| Target { address: network + host, port }))
            .map(|target| plan.position_of(target).unwrap())
            .collect();
        positions.sort_unstable();
        assert!(positions.windows(2).all(|pair| pair[1] - pair[0] > share / 3), "{network:x}");
    }
}

#[test]
fn over_seeds_every_target_is_as_likely_at_every_position() {
    const SEEDS: u64 = 60_000;
    for (size, position) in [(2u64, 0), (7, 3), (97, 0), (97, 50), (1000, 999)] {
        let mut counts = vec![0u32; size as usize];
        for seed in 0..SEEDS {
            counts[Spread::new(size, seed).index(position) as usize] += 1;
        }
        let expected = SEEDS as f64 / size as f64;
        let chi: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        let degrees = size as f64 - 1.0;
        assert!(chi < degrees + 5.0 * (2.0 * degrees).sqrt(), "size {size} position {position}: {chi}");
    }
}

#[test]
fn every_beginning_of_the_order_is_even_to_a_few_targets() {
    const CELLS: u64 = 64;
    for size in [1_000_003u64, 16_777_216, 3_702_258_432, (1 << 63) - 25] {
        for seed in 0..10 {
            let order = Spread::new(size, seed);
            let mut cells = [0i64; CELLS as usize];
            for position in 0..10_000 {
                cells[(order.index(position) / (size / CELLS + 1)) as usize] += 1;
            }
            let off = cells.iter().map(|&count| (count - 10_000 / CELLS as i64).abs()).max().unwrap();
            assert!(off <= 4, "size {size} seed {seed}: {off}");
        }
    }
}

#[test]
fn a_plan_names_its_order() {
    let random = Plan::builder().target("10.0.0.0/16").seed(1).build().unwrap();
    let mut plan = random.clone();
    plan.order = Order::Spread;
    assert!(plan.to_toml().contains("order = \"spread\""), "{}", plan.to_toml());
    assert_eq!(Plan::from_toml(&plan.to_toml()).unwrap(), plan);
    assert_ne!(plan.fingerprint().unwrap(), random.fingerprint().unwrap());
    assert_eq!("spread".parse::<Order>().unwrap(), Order::Spread);
    let message = "shuffled".parse::<Order>().unwrap_err().to_string();
    assert!(message.contains("random or spread"), "{message}");
}

#[test]
fn what_is_too_large_to_spread_is_refused_with_a_way_out() {
    let plan = Plan::builder().target("2001:db8::/64").order(Order::Spread).max_targets(10).build().unwrap();
    let message = plan.compile(0).unwrap_err().to_string();
    assert!(message.contains("2^63") && message.contains("order random"), "{message}");
    let plan = Plan::builder().target("2001:db8::/65").order(Order::Spread).max_targets(10).build().unwrap();
    assert_eq!(plan.compile(0).unwrap().len(), 10);
}
