//! The answered map: what is known of each slot of the target set, shared by all workers.
//!
//! Deduplication, probing the silent again, checkpoints and loss estimates all read this one structure. A host that
//! answered "closed" has answered; but one that is found after an error about it was seen is found all the same, so
//! that a slot has a second bit.

use std::sync::atomic::{AtomicU64, Ordering};

use irl_link::prefetch;

use crate::error::MeasureError;

/// Bits a slot.
const BITS: u64 = 2;
/// It answered.
const ANSWERED: u64 = 1;
/// It answered as the probe hoped.
const SUCCEEDED: u64 = 2;

/// How the map remembers, for metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapMode {
    /// Every slot has its place.
    Exact,
    /// The memory bound leaves fewer places than slots: of all slots that share a place, the one that answered last is
    /// remembered. A first answer is never taken for a repeat; a repeat is recognised unless one of those others
    /// answered in between.
    Window {
        /// How many places there are.
        places: u64,
    },
}

/// What a map is asked to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dedup {
    /// Exact within the memory bound, beyond it a window.
    #[default]
    Best,
    /// Exact, or an error.
    Full,
    /// A window, even where the memory would do for more.
    Window,
}

/// What was known of a slot before it was marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// It had answered in some way.
    pub answered: bool,
    /// It had answered as the probe hoped.
    pub succeeded: bool,
}

/// Two bits a slot. The memory is mapped lazily: untouched parts of a huge target set cost nothing.
#[derive(Debug)]
pub struct AnsweredMap {
    words: Vec<AtomicU64>,
    mode: MapMode,
    /// Only one worker marks: then it needs no locked instruction, which would wait for each cache miss.
    alone: bool,
}

impl AnsweredMap {
    /// Bytes that an exact map of so many slots takes.
    pub fn exact_bytes(slots: u128) -> u128 {
        slots.saturating_mul(u128::from(BITS)).div_ceil(64).max(1).saturating_mul(8)
    }

    /// A map for so many slots within `max_memory` bytes, which so many workers mark.
    ///
    /// # Errors
    /// [`MeasureError::Config`] when `max_memory` is below 4,096 bytes, more than there is, or less than [`Dedup::Full`]
    /// needs.
    pub fn new(slots: u128, max_memory: u64, workers: u16, dedup: Dedup) -> Result<Self, MeasureError> {
        if max_memory < 4096 {
            return Err(MeasureError::Config(format!(
                "--max-memory of {max_memory} bytes is too little: give 4096 or more"
            )));
        }
        let needed = Self::exact_bytes(slots);
        let room = max_memory / 8;
        let (words, mode) = match (dedup, u64::try_from(needed / 8)) {
            (Dedup::Best | Dedup::Full, Ok(words)) if words <= room => (words, MapMode::Exact),
            (Dedup::Full, _) => {
                return Err(MeasureError::Config(format!(
                    "--dedup-method full needs {needed} bytes for {slots} targets: give --max-memory as much, or take \
                     --dedup-method window"
                )));
            }
            // A place for each slot is as much as a window can use.
            _ => {
                let places = u64::try_from(slots.max(1)).map_or(room, |slots| slots.min(room));
                (places, MapMode::Window { places })
            }
        };
        let too_much = || MeasureError::Config(format!("{} bytes for --max-memory are not there", words * 8));
        let words = zeroed(usize::try_from(words).map_err(|_| too_much())?).ok_or_else(too_much)?;
        Ok(Self { words, mode, alone: workers <= 1 })
    }

    /// Fetches a slot's place, so that marking it soon does not wait for memory.
    #[inline]
    pub fn prefetch(&self, slot: u64) {
        let place = match self.mode {
            MapMode::Exact => slot / (64 / BITS),
            MapMode::Window { places } => slot % places,
        };
        if let Some(word) = self.words.get(place as usize) {
            prefetch(word);
        }
    }

    /// Marks a slot as having answered; returns what was known of it before.
    #[inline]
    pub fn mark(&self, slot: u64, success: bool) -> Before {
        let bits = if success { ANSWERED | SUCCEEDED } else { ANSWERED };
        let before = match self.mode {
            MapMode::Exact => {
                let shift = slot % (64 / BITS) * BITS;
                let word = &self.words[(slot / (64 / BITS)) as usize];
                let before = if self.alone {
                    let before = word.load(Ordering::Relaxed);
                    word.store(before | (bits << shift), Ordering::Relaxed);
                    before
                } else {
                    word.fetch_or(bits << shift, Ordering::Relaxed)
                };
                before >> shift
            }
            MapMode::Window { places } => {
                let word = &self.words[(slot % places) as usize];
                let entry = entry(slot, places);
                let before = word.load(Ordering::Relaxed);
                let same = before & !(ANSWERED | SUCCEEDED) == entry && before & ANSWERED != 0;
                // Two workers may write at once when two slots share a place: either of them is remembered.
                word.store(entry | bits | if same { before & SUCCEEDED } else { 0 }, Ordering::Relaxed);
                if same { before } else { 0 }
            }
        };
        Before { answered: before & ANSWERED != 0, succeeded: before & SUCCEEDED != 0 }
    }

    /// Whether a slot is known to have answered.
    #[inline]
    pub fn has_answered(&self, slot: u64) -> bool {
        self.knows(slot, ANSWERED)
    }

    /// Whether a slot is known to have answered as the probe hoped.
    #[inline]
    pub fn has_succeeded(&self, slot: u64) -> bool {
        self.knows(slot, SUCCEEDED)
    }

    #[inline]
    fn knows(&self, slot: u64, what: u64) -> bool {
        match self.mode {
            MapMode::Exact => {
                let shift = slot % (64 / BITS) * BITS;
                self.words[(slot / (64 / BITS)) as usize].load(Ordering::Relaxed) >> shift & what != 0
            }
            MapMode::Window { places } => {
                let word = self.words[(slot % places) as usize].load(Ordering::Relaxed);
                word & what != 0 && word & !(ANSWERED | SUCCEEDED) == entry(slot, places)
            }
        }
    }

    /// How it remembers.
    pub fn mode(&self) -> MapMode {
        self.mode
    }

    /// Bytes of address space it takes.
    pub fn bytes(&self) -> u64 {
        self.words.len() as u64 * 8
    }
}

/// What a place remembers of a slot. There are 512 places at least, so that the quotient has at most 55 bits.
#[inline]
fn entry(slot: u64, places: u64) -> u64 {
    (slot / places) << BITS
}

/// Zeroed words straight from the allocator, which maps large ones lazily: writing zeros would touch every page.
#[allow(unsafe_code)]
pub(crate) fn zeroed(count: usize) -> Option<Vec<AtomicU64>> {
    let layout = std::alloc::Layout::array::<AtomicU64>(count).ok()?;
    // SAFETY: the layout has a size above zero, since count is at least 1.
    let memory = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<AtomicU64>();
    // SAFETY: the memory comes from the global allocator with the layout of an array of `count` words, zero is a valid
    // AtomicU64, and nobody else owns it.
    (!memory.is_null()).then(|| unsafe { Vec::from_raw_parts(memory, count, count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Before = Before { answered: false, succeeded: false };

    #[test]
    fn knows_of_each_slot_whether_and_how_it_answered() {
        for workers in [1, 2] {
            let map = AnsweredMap::new(1000, 1 << 20, workers, Dedup::Best).unwrap();
            assert_eq!(map.mode(), MapMode::Exact);
            for slot in 0..1000 {
                assert!(!map.has_answered(slot));
                assert_eq!(map.mark(slot, slot % 2 == 0), NOTHING);
                assert_eq!(map.mark(slot, true), Before { answered: true, succeeded: slot % 2 == 0 });
                assert_eq!(map.mark(slot, false), Before { answered: true, succeeded: true });
                assert!(map.has_answered(slot));
            }
        }
    }

    #[test]
    fn every_ipv4_address_fits_the_default_memory_exactly() {
        assert_eq!(AnsweredMap::new(1 << 32, 1 << 30, 1, Dedup::Best).unwrap().mode(), MapMode::Exact);
    }

    #[test]
    fn a_window_stays_within_its_memory_and_never_takes_a_first_answer_for_a_repeat() {
        let map = AnsweredMap::new(1 << 64, 4096, 1, Dedup::Best).unwrap();
        assert_eq!((map.bytes(), map.mode()), (4096, MapMode::Window { places: 512 }));
        for slot in [5, 5 + 512, u64::MAX, 0, 512, u64::MAX - 512] {
            assert_eq!(map.mark(slot, true), NOTHING, "{slot}");
            assert_eq!(map.mark(slot, true), Before { answered: true, succeeded: true }, "{slot}");
        }
        assert!(map.has_answered(5 + 512) && !map.has_answered(5));
        assert_eq!(map.mark(5, false), NOTHING, "its place was taken over");
        assert_eq!(map.mark(5, true), Before { answered: true, succeeded: false });
    }

    #[test]
    fn a_window_can_be_asked_for_and_full_is_full_or_an_error() {
        let map = AnsweredMap::new(1000, 1 << 20, 1, Dedup::Window).unwrap();
        assert_eq!((map.bytes(), map.mode()), (8000, MapMode::Window { places: 1000 }));
        for slot in 0..1000 {
            assert_eq!(map.mark(slot, true), NOTHING);
        }
        assert!((0..1000).all(|slot| map.has_answered(slot) && map.mark(slot, true).succeeded));
        let map = AnsweredMap::new(1 << 20, 4096, 1, Dedup::Window).unwrap();
        assert_eq!(map.mode(), MapMode::Window { places: 512 });
        assert_eq!(AnsweredMap::new(16384, 4096, 1, Dedup::Full).unwrap().mode(), MapMode::Exact);
        let error = AnsweredMap::new(16385, 4096, 1, Dedup::Full).unwrap_err().to_string();
        assert!(error.contains("needs 4104 bytes"), "{error}");
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        assert!(AnsweredMap::new(10, 100, 1, Dedup::Best).is_err());
        assert!(AnsweredMap::new(u128::MAX, u64::MAX, 1, Dedup::Best).is_err());
        assert!(AnsweredMap::new(1 << 60, 1 << 60, 1, Dedup::Best).is_err());
    }
}
