//! Which probes of a sample of the found targets were answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Targets that are remembered at most: some 4 MiB.
const MOST: usize = 1 << 17;

/// A sample of the targets that were found, chosen by a hash of each, so that all answers of one that is in it are known
/// whichever workers they came to. When it grows too large, half of it goes.
#[derive(Debug)]
pub(crate) struct Sample {
    key: u64,
    /// Leading zeros that a target's hash must have.
    level: AtomicU32,
    most: usize,
    answered: Mutex<HashMap<u64, u64>>,
}

impl Sample {
    pub(crate) fn new(key: u64) -> Self {
        Self { key, level: AtomicU32::new(0), most: MOST, answered: Mutex::default() }
    }

    /// Whether a target is in the sample at present.
    #[inline]
    fn holds(&self, slot: u64) -> bool {
        self.hash(slot).leading_zeros() >= self.level.load(Ordering::Relaxed)
    }

    #[inline]
    fn hash(&self, slot: u64) -> u64 {
        let mixed = (slot ^ self.key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    /// Targets were found, or found again, by these numbers of their probes.
    pub(crate) fn note(&self, found: impl IntoIterator<Item = (u64, u16)>) {
        let mut lock = None;
        for (slot, number) in found {
            if number < 64 && self.holds(slot) {
                let answered = lock.get_or_insert_with(|| self.lock());
                *answered.entry(slot).or_default() |= 1 << number;
                if answered.len() > self.most {
                    self.level.fetch_add(1, Ordering::Relaxed);
                    answered.retain(|slot, _| self.holds(*slot));
                }
            }
        }
    }

    /// A word for each: its bit `n` tells whether probe number `n` was answered.
    pub(crate) fn answered(&self) -> Vec<u64> {
        self.lock().values().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        // A count that is whole after each change.
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_answers_of_those_in_the_sample_are_known_however_many_there_are() {
        let sample = Sample { most: 1000, ..Sample::new(7) };
        for number in 0..3 {
            sample.note((0..50_000).filter(|slot| slot % 2 == 0 || number != 1).map(|slot| (slot, number)));
        }
        let answered = sample.lock().clone();
        assert!((500..=1000).contains(&answered.len()), "{}", answered.len());
        assert!(answered.iter().all(|(slot, word)| *word == if slot % 2 == 0 { 0b111 } else { 0b101 }));
        let even = answered.keys().filter(|slot| *slot % 2 == 0).count() as f64 / answered.len() as f64;
        assert!((0.4..0.6).contains(&even), "{even}");
    }

    #[test]
    fn what_is_few_is_all_there() {
        let sample = Sample::new(1);
        sample.note([(5, 0), (6, 3), (5, 1), (7, 64)]);
        let mut answered = sample.answered();
        answered.sort_unstable();
        assert_eq!(answered, [0b11, 0b1000]);
    }
}
