//! The answered map: one bit for each slot of the target set, shared by all workers.
//!
//! Deduplication, probing the silent again, checkpoints and loss estimates all read this one structure. A host that
//! answered "closed" has answered.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::MeasureError;

/// How the map remembers, for metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapMode {
    /// Every slot has its bit.
    Exact,
    /// The memory bound leaves fewer bits than slots: a slot shares its bit with others, so that a first answer may
    /// be called a repeat. About one in `slots / bits` first answers can be affected.
    Shared {
        /// How many bits there are.
        bits: u64,
    },
}

/// One bit a slot. The memory is mapped lazily: untouched parts of a huge target set cost nothing.
#[derive(Debug)]
pub struct AnsweredMap {
    words: Vec<AtomicU64>,
    slots: u128,
    bits: u64,
}

impl AnsweredMap {
    /// A map for so many slots within `max_memory` bytes.
    ///
    /// # Errors
    /// [`MeasureError::Config`] when `max_memory` is below 4,096 bytes.
    pub fn new(slots: u128, max_memory: u64) -> Result<Self, MeasureError> {
        if max_memory < 4096 {
            return Err(MeasureError::Config(format!(
                "--max-memory of {max_memory} bytes is too little: give 4096 or more"
            )));
        }
        let room = max_memory.saturating_mul(8);
        let bits = u64::try_from(slots).map_or(room, |slots| slots.min(room)).max(1);
        let count = usize::try_from(bits.div_ceil(64))
            .map_err(|_| MeasureError::Config("--max-memory exceeds this machine's address space".to_owned()))?;
        Ok(Self { words: zeroed(count), slots, bits })
    }

    /// Marks a slot; returns whether it was marked before.
    #[inline]
    pub fn mark(&self, slot: u64) -> bool {
        let bit = slot % self.bits;
        let mask = 1 << (bit % 64);
        // bits is at least 1 and the words cover all bits.
        self.words[(bit / 64) as usize].fetch_or(mask, Ordering::Relaxed) & mask != 0
    }

    /// Whether a slot is marked.
    #[inline]
    pub fn is_marked(&self, slot: u64) -> bool {
        let bit = slot % self.bits;
        self.words[(bit / 64) as usize].load(Ordering::Relaxed) & (1 << (bit % 64)) != 0
    }

    /// How many bits are set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// How it remembers.
    pub fn mode(&self) -> MapMode {
        if self.slots <= u128::from(self.bits) { MapMode::Exact } else { MapMode::Shared { bits: self.bits } }
    }

    /// Bytes of address space it takes.
    pub fn bytes(&self) -> u64 {
        self.words.len() as u64 * 8
    }
}

/// Zeroed words straight from the allocator, which maps large ones lazily: writing zeros would touch every page.
#[allow(unsafe_code)]
fn zeroed(count: usize) -> Vec<AtomicU64> {
    let mut words = std::mem::ManuallyDrop::new(vec![0_u64; count]);
    // SAFETY: AtomicU64 has the size, alignment and bit validity of u64, and the vector that owned the memory is never
    // dropped, so this one is its only owner.
    unsafe { Vec::from_raw_parts(words.as_mut_ptr().cast(), words.len(), words.capacity()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_each_slot_once() {
        let map = AnsweredMap::new(1000, 1 << 20).unwrap();
        assert_eq!(map.mode(), MapMode::Exact);
        for slot in 0..1000 {
            assert!(!map.is_marked(slot) && !map.mark(slot) && map.mark(slot) && map.is_marked(slot));
        }
        assert_eq!(map.count(), 1000);
    }

    #[test]
    fn stays_within_its_memory_and_says_so() {
        let map = AnsweredMap::new(1 << 40, 4096).unwrap();
        assert_eq!((map.bytes(), map.mode()), (4096, MapMode::Shared { bits: 32768 }));
        assert!(!map.mark(5) && map.mark(5 + 32768));
        assert!(AnsweredMap::new(10, 100).is_err());
    }
}
