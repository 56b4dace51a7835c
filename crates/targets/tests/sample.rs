//! The claim that a scan's first percent stands for the whole: what a plan probes first is an equal-probability sample
//! of its targets, whatever its prefixes, ports and deny list. Seeds are fixed, so a test that passes passes always.

use std::path::PathBuf;
use std::sync::LazyLock;

use irl_targets::{CompiledPlan, Order, Plan, Target};

const BLOCKS: usize = 64;
const SEEDS: u64 = 400;

/// How unlikely the whole test would be to fail for a fair order: one in a million, on either side.
const NORMAL_AT_1E_6: f64 = 4.75;

/// The standard normal deviate of a chi-square variable (Wilson and Hilferty 1931).
fn deviate(chi: f64, degrees: f64) -> f64 {
    let spread = 2.0 / (9.0 * degrees);
    ((chi / degrees).cbrt() - (1.0 - spread)) / spread.sqrt()
}

/// Written once, because tests that run side by side read it.
static DENIED: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sample-deny-{}.txt", std::process::id()));
    std::fs::write(&path, "10.1.128.0/19\n10.9.0.16/28\n10.9.3.0-10.9.3.77\n").unwrap();
    path
});

/// Six unequal prefixes with three ports, less a deny list that cuts two of them.
fn plan(seed: u64, order: Order) -> CompiledPlan {
    let targets = ["10.1.0.0/16", "10.3.3.0/24", "10.9.0.0/20", "10.40.0.0/15", "10.77.7.7", "10.80.0.0/18"];
    let builder = Plan::builder().targets(targets).blocklist(&*DENIED).ports("80,443,8080".parse().unwrap());
    builder.seed(seed).order(order).build().unwrap().compile(0).unwrap()
}

fn first_percent(plan: &CompiledPlan) -> Vec<(u64, Target)> {
    let mut out = vec![(0, Target::default()); (plan.total() / 100) as usize];
    assert_eq!(plan.fill(0, &mut out), out.len());
    out
}

/// Chi-square of the sample's counts by block of `block`, corrected for a sample without replacement.
fn chi_square(plan: &CompiledPlan, block: impl Fn(u64, Target) -> usize, whole: &[u64]) -> f64 {
    let sample = first_percent(plan);
    let mut found = vec![0u64; whole.len()];
    sample.iter().for_each(|&(slot, target)| found[block(slot, target)] += 1);
    let share = sample.len() as f64 / plan.total() as f64;
    let squares = whole.iter().zip(&found).filter(|&(&all, _)| all > 0).map(|(&all, &found)| {
        let expected = all as f64 * share;
        (found as f64 - expected).powi(2) / expected
    });
    squares.sum::<f64>() / (1.0 - share)
}

/// How many targets of the whole plan are in each block.
fn blocks_of(plan: &CompiledPlan, block: impl Fn(u64, Target) -> usize, blocks: usize) -> Vec<u64> {
    let mut whole = vec![0; blocks];
    for index in 0..plan.total() {
        whole[block(index, plan.targets().get(u128::from(index)))] += 1;
    }
    whole
}

#[test]
fn the_first_percent_of_a_plan_is_an_equal_probability_sample() {
    // By parts of the index space, by port, by the host's last octet, and by the /24s' last bits.
    type Block = Box<dyn Fn(u64, Target) -> usize>;
    let total = plan(0, Order::Random).total();
    let views: [(&str, usize, Block); 4] = [
        ("part of the targets", BLOCKS, Box::new(move |slot, _| (slot * BLOCKS as u64 / total) as usize)),
        ("port", 3, Box::new(|_, target| [80, 443, 8080].iter().position(|&port| port == target.port).unwrap())),
        ("last octet", 256, Box::new(|_, target| (target.address & 0xff) as usize)),
        ("network", BLOCKS, Box::new(|_, target| (target.address >> 8) as usize % BLOCKS)),
    ];
    for (name, blocks, block) in views {
        let whole = blocks_of(&plan(0, Order::Random), &block, blocks);
        let degrees = (blocks - 1) as f64;
        let all: Vec<f64> = (0..SEEDS).map(|seed| chi_square(&plan(seed, Order::Random), &block, &whole)).collect();
        // Together they are one chi-square variable; too small a sum would be a sample that is too even.
        let together = deviate(all.iter().sum(), degrees * SEEDS as f64);
        assert!(together.abs() < NORMAL_AT_1E_6, "{name}: {together} standard deviations over {SEEDS} seeds");
        // And one by one they are below the 95th percentile in 95 of 100 seeds, give or take 4.75 standard deviations.
        let above = all.iter().filter(|&&chi| deviate(chi, degrees) > 1.6449).count() as f64 / SEEDS as f64;
        let error = NORMAL_AT_1E_6 * (0.05 * 0.95 / SEEDS as f64).sqrt();
        assert!((above - 0.05).abs() < error + 0.01, "{name}: {above} of the seeds above the 95th percentile");
    }
}

/// What holds for order spread: its first percent is more even than chance, so a statistic of random samples does not
/// apply to it; each part has its share to a few targets.
#[test]
fn the_first_percent_of_a_spread_plan_is_more_even_than_a_random_sample() {
    let total = plan(0, Order::Spread).total();
    let block = |slot: u64, _| (slot * BLOCKS as u64 / total) as usize;
    let whole = blocks_of(&plan(0, Order::Spread), block, BLOCKS);
    for seed in 0..10 {
        let chi = chi_square(&plan(seed, Order::Spread), block, &whole);
        assert!(deviate(chi, BLOCKS as f64 - 1.0) < -NORMAL_AT_1E_6, "{chi}");
    }
}
