//! Claims about the order: it is a bijection for every size, seeks both ways, agrees with its written specification,
//! and any prefix of it is an equal-probability sample. All seeds are fixed, so a test that passes passes always.

mod support;

use irl_targets::{Permutation, permutation};
use proptest::prelude::*;
use support::{assert_bijection, check_both_ways, check_vectors};

/// Large: 5 standard deviations above the mean of a chi-square variable.
fn bound(degrees: f64) -> f64 {
    degrees + 5.0 * (2.0 * degrees).sqrt()
}

fn chi_square(observed: &[u32], expected: f64) -> f64 {
    observed.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

#[test]
fn every_small_size_is_a_bijection() {
    for size in 1..=4096u128 {
        let order = Permutation::new(size, size as u64 ^ 0xabcd);
        assert_bijection(size, &order);
    }
}

#[test]
fn sizes_around_the_change_of_rounds_are_bijections() {
    for size in [(1 << 22) - 1, 1 << 22, (1 << 22) + 1, 5_000_011u128] {
        let order = Permutation::new(size, 1);
        let mut seen = vec![false; size as usize];
        for (position, index) in order.walk(0, 1).enumerate() {
            assert!(!std::mem::replace(&mut seen[index as usize], true), "size {size} visits {index} twice");
            assert_eq!(order.position(index), position as u128);
        }
        assert!(seen.iter().all(|&seen| seen));
    }
}

#[test]
fn the_vectors_of_the_specification_hold() {
    let text = include_str!("../vectors/permutation-v1.json");
    let checked = check_vectors(text, permutation::VERSION, Permutation::new);
    assert!(checked > 500);
}

fn any_size() -> impl Strategy<Value = u128> {
    // Every bit length alike, and the edges.
    let edges = [1, 2, 1 << 32, (1 << 32) + 1, u64::MAX as u128, 1 << 64, (1 << 64) + 1, 1 << 127, u128::MAX];
    prop_oneof![
        8 => (0u32..128, any::<u128>()).prop_map(|(shift, bits)| (bits >> shift).max(1)),
        1 => proptest::sample::select(edges.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn position_undoes_index(size in any_size(), seed: u64, at: u128) {
        check_both_ways(size, &Permutation::new(size, seed), at)?;
    }

    #[test]
    fn a_walk_is_the_positions_it_names(size in any_size(), seed: u64, start: u128, step in 1u64..) {
        let order = Permutation::new(size, seed);
        let start = start % size;
        for (i, index) in order.walk(start, step).take(5).enumerate() {
            prop_assert_eq!(index, order.index(start + i as u128 * u128::from(step)));
        }
    }
}

#[test]
fn the_first_percent_is_an_equal_probability_sample() {
    const CELLS: usize = 64;
    const SEEDS: u64 = 20;
    let sizes =
        [1_000_003, 16_777_216, 16_777_213, 3_702_258_432, 1 << 32, 1_110_677_529_600, (1 << 64) - 59, (1 << 100) + 7];
    for size in sizes {
        let sample = (size / 100).min(50_000);
        let mut sum = 0.0;
        for seed in 0..SEEDS {
            let order = Permutation::new(size, seed);
            let mut cells = [0u32; CELLS];
            for index in order.walk(0, 1).take(sample as usize) {
                // (index * 64) / size without overflow at 2^100.
                cells[(index / (size / CELLS as u128 + 1)) as usize] += 1;
            }
            let chi = chi_square(&cells, sample as f64 / CELLS as f64);
            assert!(chi < bound(63.0), "size {size} seed {seed}: {chi}");
            sum += chi;
        }
        let degrees = 63.0 * SEEDS as f64;
        assert!((sum - degrees).abs() < 5.0 * (2.0 * degrees).sqrt(), "size {size}: {sum} of {degrees}");
    }
}

#[test]
fn low_bits_of_the_sample_are_even_too() {
    for size in [16_777_213u128, 3_702_258_432, (1 << 64) - 59, (1 << 100) + 7] {
        for step in [1, 3, 256, 65_536] {
            let order = Permutation::new(size, 11);
            let (mut low, mut count) = ([0u32; 256], 0u32);
            for index in order.walk(0, step).take(100_000) {
                low[(index % 251) as usize] += 1;
                count += 1;
            }
            let chi = chi_square(&low[..251], f64::from(count) / 251.0);
            assert!(chi < bound(250.0), "size {size} step {step}: {chi}");
        }
    }
}

#[test]
fn over_seeds_every_index_is_as_likely_to_be_in_a_prefix() {
    for (size, prefix) in [(97usize, 10), (1000, 33), (12, 5), (6, 1)] {
        const SEEDS: u64 = 40_000;
        let mut counts = vec![0u32; size];
        for seed in 0..SEEDS {
            for index in Permutation::new(size as u128, seed).walk(0, 1).take(prefix) {
                counts[index as usize] += 1;
            }
        }
        let chi = chi_square(&counts, (SEEDS as usize * prefix) as f64 / size as f64);
        assert!(chi < bound(size as f64 - 1.0), "size {size} prefix {prefix}: {chi}");
    }
}

#[test]
fn over_seeds_every_pair_and_every_order_is_as_likely() {
    const SEEDS: u64 = 100_000;
    for size in [3usize, 5, 6, 8, 11, 13, 16, 17, 23, 30, 64, 65] {
        for (a, b) in [(0, 1), (0, size - 1), (1, size / 2 + 1)] {
            let mut pairs = vec![0u32; size * size];
            for seed in 0..SEEDS {
                let order = Permutation::new(size as u128, seed);
                pairs[order.index(a as u128) as usize * size + order.index(b as u128) as usize] += 1;
            }
            let pairs: Vec<u32> =
                (0..size * size).filter(|cell| cell / size != cell % size).map(|cell| pairs[cell]).collect();
            let chi = chi_square(&pairs, SEEDS as f64 / pairs.len() as f64);
            assert!(chi < bound(pairs.len() as f64 - 1.0), "size {size} positions {a}, {b}: {chi}");
        }
    }
    let mut orders = std::collections::HashMap::<Vec<u128>, u32>::new();
    for seed in 0..SEEDS {
        *orders.entry(Permutation::new(4, seed).walk(0, 1).collect()).or_default() += 1;
    }
    let orders: Vec<u32> = orders.into_values().collect();
    assert_eq!(orders.len(), 24);
    let chi = chi_square(&orders, SEEDS as f64 / 24.0);
    assert!(chi < bound(23.0), "orders of four: {chi}");
}

#[test]
fn neighbours_in_the_order_are_unrelated() {
    const GRID: u128 = 16;
    for size in [16_777_216u128, 3_702_258_432, (1 << 64) - 59, (1 << 96) + 1] {
        let order = Permutation::new(size, 5);
        let mut cells = [0u32; (GRID * GRID) as usize];
        let cell = |index: u128| (index / (size / GRID + 1)) as usize;
        let mut before = cell(order.index(0));
        for index in order.walk(1, 1).take(200_000) {
            let here = cell(index);
            cells[before * GRID as usize + here] += 1;
            before = here;
        }
        let chi = chi_square(&cells, 200_000.0 / cells.len() as f64);
        assert!(chi < bound(255.0), "size {size}: {chi}");
    }
}
