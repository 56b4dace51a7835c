//! How often a network may be probed (`--prefix-budget`): so many probes a second to each /24 of IPv4 or /48 of IPv6.
//!
//! A target whose network has had its share waits; nothing is left out. The table has a place for each /24 there is. The
//! /48s of IPv6 are spread over the places by a hash: those that share one share its budget, so that none ever gets more.

use std::sync::atomic::{AtomicU64, Ordering};

use irl_targets::Family;

use crate::error::MeasureError;
use crate::map::zeroed;
use crate::scan::ScanConfig;

/// Places of the largest table: the /24s of IPv4. At 8 bytes each, 128 MiB of address space; what is not touched takes no
/// memory.
const MOST_PLACES: usize = 1 << 24;
const LEAST_PLACES: usize = 1 << 10;
/// Places for each IPv6 target, so that few share one.
const PLACES_A_TARGET: u128 = 4;
/// Odd, and its bits look random: 2^64 over the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What each network may still get. Shared by all workers.
#[derive(Debug)]
pub(crate) struct Budget {
    /// When a place's next target may be probed, by the monotonic clock in ns.
    free_ns: Vec<AtomicU64>,
    /// How far apart the targets of a network are probed: all probes of a target go at once.
    apart_ns: u64,
    family: Family,
}

impl Budget {
    /// The budget of a run; `None` where its policy sets none.
    ///
    /// # Errors
    /// [`MeasureError::Config`] for what is no rate, and when the memory is not there.
    pub(crate) fn of(config: &ScanConfig) -> Result<Option<Self>, MeasureError> {
        let Some(per_second) = config.policy.settings().prefix_budget else { return Ok(None) };
        Self::new(per_second, config.plan.family, u128::from(config.compiled.len()), config.plan.probes).map(Some)
    }

    fn new(per_second: f64, family: Family, targets: u128, probes: u16) -> Result<Self, MeasureError> {
        if !(per_second.is_finite() && per_second > 0.0) {
            return Err(MeasureError::Config(format!(
                "a prefix budget of {per_second} is not possible: give probes a second, above 0"
            )));
        }
        let places = match family {
            Family::V4 => MOST_PLACES,
            Family::V6 => {
                let wanted = targets.saturating_mul(PLACES_A_TARGET).min(MOST_PLACES as u128) as usize;
                wanted.next_power_of_two().max(LEAST_PLACES)
            }
        };
        let free_ns = zeroed(places)
            .ok_or_else(|| MeasureError::Config("the memory for a prefix budget is not there".to_owned()))?;
        // Casts to integers saturate: what is longer than a run may last is as good as for ever.
        let apart_ns = (f64::from(probes.max(1)) * 1e9 / per_second).ceil() as u64;
        Ok(Self { free_ns, apart_ns, family })
    }

    /// Whether the network of this address may get another probe.
    #[inline]
    pub(crate) fn has_room(&self, address: u128, now_ns: u64) -> bool {
        self.place(address).load(Ordering::Relaxed) <= now_ns
    }

    /// Takes the network's turn; `false` when it has none, or another worker was first.
    #[inline]
    pub(crate) fn take(&self, address: u128, now_ns: u64) -> bool {
        let place = self.place(address);
        let free = place.load(Ordering::Relaxed);
        let next = now_ns.saturating_add(self.apart_ns);
        free <= now_ns && place.compare_exchange(free, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    #[inline]
    fn place(&self, address: u128) -> &AtomicU64 {
        let at = match self.family {
            // An IPv4 address has 32 bits.
            Family::V4 => address as usize >> 8,
            Family::V6 => {
                let prefix = (address >> 80) as u64;
                // There are 2^10 places at least, so that fewer than 64 bits are shifted away.
                (prefix.wrapping_mul(SPREAD) >> (64 - self.free_ns.len().trailing_zeros())) as usize
            }
        };
        &self.free_ns[at]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_network_gets_its_share_and_another_one_its_own() {
        let budget = Budget::new(10.0, Family::V4, 1 << 20, 1).unwrap();
        let (one, same, other) = (0x0a00_0001, 0x0a00_00ff, 0x0a00_0100);
        let start = 5000 * MS;
        assert!(budget.has_room(one, start) && budget.take(one, start));
        assert!(!budget.has_room(same, start) && !budget.take(same, start + 100 * MS - 1));
        assert!(budget.take(other, start));
        assert!(budget.take(same, start + 100 * MS));
        let taken = (0..10_000).filter(|ms| budget.take(one + ms % 200, start + (1000 + ms) as u64 * MS)).count();
        assert_eq!(taken, 100, "10 a second for 10 s");
        assert!(budget.take(u128::from(u32::MAX), start), "the last /24 there is");
    }

    #[test]
    fn the_probes_of_a_target_go_together_and_all_count() {
        let budget = Budget::new(4.0, Family::V4, 256, 2).unwrap();
        let taken = (0..10_000).filter(|ms| budget.take(0x0a00_0000, (1000 + ms) * MS)).count();
        assert_eq!(taken, 20, "two probes each, 4 a second for 10 s");
        let slow = Budget::new(0.1, Family::V4, 256, 1).unwrap();
        assert!(slow.take(0, MS) && !slow.take(0, 10_000 * MS) && slow.take(0, 10_001 * MS));
    }

    #[test]
    fn no_48_gets_more_than_its_share_and_few_share_a_place() {
        let budget = Budget::new(1.0, Family::V6, 1000, 1).unwrap();
        let addresses: Vec<u128> = (0..1000).map(|prefix| 0x2001_0db8_u128 << 96 | prefix << 80 | prefix).collect();
        let mut taken: HashMap<u128, u32> = HashMap::new();
        for ms in 0..3000_u64 {
            for address in &addresses {
                *taken.entry(address >> 80).or_default() += u32::from(budget.take(*address, (1000 + ms) * MS));
            }
        }
        assert!(taken.values().all(|count| *count <= 3));
        let whole = taken.values().filter(|count| **count == 3).count();
        assert!(whole >= 750, "{whole} of 1000 have a place of their own");
        let same = 0x2001_0db8_u128 << 96;
        assert!(budget.take(same, 9000 * MS) && !budget.take(same | 7, 9000 * MS), "of the same /48");
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Budget::new(wrong, Family::V4, 1, 1).is_err(), "{wrong}");
        }
    }
}
