//! Probing a sample again when all is done (`--recheck`): how many of those that were found answer once more, and how many
//! of the others do now.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::estimate::wilson;
use crate::stats::Stats;

/// Positions that are probed again: every so-manieth of the shard, so that the sample is spread over the whole run. Positions
/// are in random order, so that it is a random sample of the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Again {
    len: u64,
    count: u64,
    offset: u64,
}

impl Again {
    /// A share of `len` positions, at least one; `seed` says where it begins.
    pub(crate) fn new(share: f64, len: u64, seed: u64) -> Self {
        let count = ((len as f64 * share).ceil() as u64).clamp(u64::from(len > 0), len);
        let stride = len.checked_div(count).unwrap_or(1).max(1);
        Self { len, count, offset: seed % stride }
    }

    /// How many.
    pub(crate) fn count(self) -> u64 {
        self.count
    }

    /// Which position is the n-th of them.
    pub(crate) fn position(self, n: u64) -> u64 {
        // Below `len`: n is below `count`, and the offset below the stride.
        (u128::from(n) * u128::from(self.len) / u128::from(self.count.max(1))) as u64 + self.offset
    }
}

/// Targets that answered when they were probed again, and whether they had been found before. A target's first answer
/// decides; what it repeats tells nothing.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<HashMap<u64, bool>>);

impl Heard {
    /// Whether this is the first answer of a target.
    pub(crate) fn first(&self, slot: u64, found_before: bool) -> bool {
        // One insertion.
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(slot, found_before).is_none_or(|before| {
            heard.insert(slot, before);
            false
        })
    }
}

/// What probing again told; intervals hold in 95 of 100 runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recheck {
    /// Found targets that were probed again.
    pub found_probed: u64,
    /// Those that answered again.
    pub found_again: u64,
    /// The share that did not: lost, or gone since.
    pub loss: Option<f64>,
    /// Its interval.
    pub loss_low: Option<f64>,
    /// Its interval.
    pub loss_high: Option<f64>,
    /// Targets that had not been found and were probed again.
    pub others_probed: u64,
    /// Those that were found now.
    pub others_found: u64,
    /// Targets of the whole run that had not been found and would be, by one more probe that is not lost.
    pub missed: Option<f64>,
    /// Its interval.
    pub missed_low: Option<u64>,
    /// Its interval.
    pub missed_high: Option<u64>,
}

impl Recheck {
    pub(crate) fn of(stats: &Stats) -> Self {
        let (probed, again) = (stats.recheck_found_probed, stats.recheck_found_again.min(stats.recheck_found_probed));
        let (others, new) = (stats.recheck_others_probed, stats.recheck_others_found.min(stats.recheck_others_probed));
        let loss = wilson(probed - again, probed);
        let best = (probed > 0).then(|| (probed - again) as f64 / probed as f64);
        let unfound = (stats.targets + stats.recheck_others_found).saturating_sub(stats.found) as f64;
        // Never more than there are, however many of the sample happened to answer.
        let scaled =
            |share: f64, lost: f64| if lost < 1.0 { (unfound * share / (1.0 - lost)).min(unfound) } else { unfound };
        let share = wilson(new, others);
        let (low, high) = (best.map(|_| loss.map_or(0.0, |loss| loss.0)), loss.map(|loss| loss.1));
        Self {
            found_probed: probed,
            found_again: again,
            loss: best,
            loss_low: low,
            loss_high: high,
            others_probed: others,
            others_found: new,
            missed: share.map(|_| scaled(new as f64 / others as f64, best.unwrap_or(0.0))),
            missed_low: share.map(|share| scaled(share.0, low.unwrap_or(0.0)).floor() as u64),
            missed_high: share.map(|share| scaled(share.1, high.unwrap_or(0.0)).ceil() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_spread_over_all_positions_and_none_is_taken_twice() {
        for (share, len, count) in [(0.001, 1 << 20, 1049), (0.5, 10, 5), (1.0, 7, 7), (1e-9, 3, 1), (0.3, 0, 0)] {
            for seed in [0, 1, 12_345] {
                let again = Again::new(share, len, seed);
                assert_eq!(again.count(), count, "{share} of {len}");
                let positions: Vec<_> = (0..count).map(|n| again.position(n)).collect();
                assert!(positions.windows(2).all(|pair| pair[0] < pair[1]), "{positions:?}");
                assert!(positions.iter().all(|position| *position < len), "{positions:?}");
            }
        }
        assert_ne!(Again::new(0.001, 1 << 20, 5), Again::new(0.001, 1 << 20, 6));
    }

    #[test]
    fn what_a_target_repeats_is_not_counted_again() {
        let heard = Heard::default();
        assert!(heard.first(5, false) && heard.first(6, true));
        assert!(!heard.first(5, true) && !heard.first(5, true) && !heard.first(6, true));
    }

    #[test]
    fn the_sample_stands_for_all() {
        let stats = Stats {
            targets: 100_000,
            found: 10_002,
            recheck_found_probed: 100,
            recheck_found_again: 90,
            recheck_others_probed: 900,
            recheck_others_found: 2,
            ..Stats::default()
        };
        let said = Recheck::of(&stats);
        assert_eq!((said.loss, said.missed), (Some(0.1), Some(90_000.0 * (2.0 / 900.0) / 0.9)));
        assert!(said.loss_low < Some(0.1) && Some(0.1) < said.loss_high);
        assert!(said.missed_low.unwrap() < 222 && 222 < said.missed_high.unwrap(), "{said:?}");
        let nobody = Recheck::of(&Stats { targets: 10, recheck_others_probed: 1, ..Stats::default() });
        assert_eq!((nobody.loss, nobody.missed, nobody.missed_low), (None, Some(0.0), Some(0)));
        assert_eq!(Recheck::of(&Stats::default()).missed_high, None);
    }

    #[test]
    fn no_more_were_missed_than_were_not_found() {
        let stats = Stats {
            targets: 1024,
            found: 912,
            recheck_found_probed: 413,
            recheck_found_again: 318,
            recheck_others_probed: 99,
            recheck_others_found: 80,
            ..Stats::default()
        };
        let said = Recheck::of(&stats);
        assert_eq!((said.missed, said.missed_high), (Some(192.0), Some(192)));
        assert!(said.missed_low < Some(192));
    }
}
