//! A plan made ready for the hot loop: positions of one shard to targets, and back.

use std::sync::Arc;

use super::{Order, Plan};
use crate::error::{Result, TargetsError};
use crate::list::TargetList;
use crate::permutation::Permutation;
use crate::spread::{self, Spread};
use crate::target_set::{Target, TargetSet};

/// Targets permuted at a time: their indices stay in registers and the first-level cache.
const BATCH: usize = 64;

/// One shard of a plan. Shards of one plan share their tables, so a clone is cheap.
///
/// Three numbers name a target: its *index* in the target set (up to 2^128), its *position* in the order of the whole
/// plan (64 bits), and its *slot*, the 64-bit number under which an answered map knows it: the index, or where indices
/// do not fit in 64 bits the position. Position p of shard i of n is position p * n + i of the plan.
#[derive(Clone, Debug)]
pub struct CompiledPlan {
    inner: Arc<Inner>,
    shard: u32,
}

#[derive(Debug)]
struct Inner {
    set: TargetSet,
    sequence: Sequence,
    /// Positions of all shards together.
    total: u64,
    shards: u32,
    fingerprint: String,
}

/// The plan's order of its targets.
#[derive(Debug)]
enum Sequence {
    Random(Permutation),
    Spread(Spread),
}

impl Plan {
    /// Reads the files, counts the targets and readies one shard.
    ///
    /// # Errors
    /// [`TargetsError::Shard`], [`TargetsError::TooManyTargets`] and those of [`Plan::target_set`].
    pub fn compile(&self, shard: u32) -> Result<CompiledPlan> {
        self.check_shard(shard)?;
        self.compile_set(self.target_set()?, shard)
    }

    /// The same for a plan whose list was read already.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn compile_with(&self, list: TargetList, shard: u32) -> Result<CompiledPlan> {
        self.check_shard(shard)?;
        self.compile_set(self.target_set_with(list)?, shard)
    }

    fn compile_set(&self, set: TargetSet, shard: u32) -> Result<CompiledPlan> {
        let size = set.len();
        let total = match self.max_targets {
            // The smaller of the two fits, because max_targets does.
            Some(max) => size.min(u128::from(max)) as u64,
            None => u64::try_from(size).map_err(|_| TargetsError::TooManyTargets { size })?,
        };
        let sequence = match self.order {
            Order::Random => Sequence::Random(Permutation::new(size, self.seed)),
            Order::Spread => {
                let within = u64::try_from(size).ok().filter(|&size| size <= spread::LARGEST);
                Sequence::Spread(Spread::new(within.ok_or(TargetsError::TooManyToSpread { size })?, self.seed))
            }
        };
        let fingerprint = self.fingerprint()?;
        let inner = Inner { set, sequence, total, shards: self.shards, fingerprint };
        Ok(CompiledPlan { inner: Arc::new(inner), shard })
    }

    fn check_shard(&self, shard: u32) -> Result<()> {
        if shard < self.shards { Ok(()) } else { Err(TargetsError::Shard { shard, shards: self.shards }) }
    }
}

impl CompiledPlan {
    /// Another shard of the same plan.
    ///
    /// # Errors
    /// [`TargetsError::Shard`].
    pub fn shard(&self, shard: u32) -> Result<Self> {
        if shard >= self.inner.shards {
            return Err(TargetsError::Shard { shard, shards: self.inner.shards });
        }
        Ok(Self { inner: Arc::clone(&self.inner), shard })
    }

    /// The number of this shard.
    pub fn shard_number(&self) -> u32 {
        self.shard
    }

    /// How many shards the plan has.
    pub fn shards(&self) -> u32 {
        self.inner.shards
    }

    /// How many positions this shard has; 0 when the plan has fewer targets than shards.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        let Inner { total, shards, .. } = *self.inner;
        // Positions i, i + n, ... below the total.
        total.saturating_sub(u64::from(self.shard)).div_ceil(u64::from(shards))
    }

    /// How many positions all shards have together.
    pub fn total(&self) -> u64 {
        self.inner.total
    }

    /// The target set.
    pub fn targets(&self) -> &TargetSet {
        &self.inner.set
    }

    /// The index visited at a position of the whole plan.
    ///
    /// # Panics
    /// When the position is not below the number of targets.
    pub fn index_at(&self, position: u64) -> u128 {
        match &self.inner.sequence {
            Sequence::Random(permutation) => permutation.index(u128::from(position)),
            Sequence::Spread(spread) => u128::from(spread.index(position)),
        }
    }

    /// [`Plan::fingerprint`] of the plan this was compiled from.
    pub fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    /// Writes slot and target of the positions `first`, `first + 1`, ... of this shard and returns how many: as many
    /// as `out` holds, fewer at the end of the shard.
    pub fn fill(&self, first: u64, out: &mut [(u64, Target)]) -> usize {
        let count = self.len().saturating_sub(first).min(out.len() as u64) as usize;
        let out = &mut out[..count];
        let step = u64::from(self.inner.shards);
        // The last position of the shard is below the total, so nothing here overflows for positions that exist.
        let mut position = first.wrapping_mul(step).wrapping_add(u64::from(self.shard));
        let permutation = match &self.inner.sequence {
            Sequence::Random(permutation) => permutation,
            Sequence::Spread(spread) => {
                if count > 0 {
                    let mut cursor = spread.cursor(position);
                    self.resolve(out, |indices| cursor.fill(step, indices));
                }
                return count;
            }
        };
        let Some(narrow) = permutation.narrow() else {
            for slot in out {
                let index = permutation.index(u128::from(position));
                *slot = (position, self.inner.set.get(index));
                position = position.wrapping_add(step);
            }
            return count;
        };
        self.resolve(out, |indices| {
            narrow.fill(position, step, indices);
            position = position.wrapping_add(step.wrapping_mul(indices.len() as u64));
        });
        count
    }

    /// Writes the targets of the indices that `next` gives, a batch at a time.
    #[inline(always)]
    fn resolve(&self, out: &mut [(u64, Target)], mut next: impl FnMut(&mut [u64])) {
        let mut indices = [0; BATCH];
        for batch in out.chunks_mut(BATCH) {
            let indices = &mut indices[..batch.len()];
            next(indices);
            self.inner.set.resolve(indices, batch);
        }
    }

    /// Whether slots are indices, which needs indices of 64 bits; else they are positions.
    #[inline]
    fn slots_are_indices(&self) -> bool {
        match &self.inner.sequence {
            Sequence::Random(permutation) => permutation.narrow().is_some(),
            Sequence::Spread(_) => true,
        }
    }

    /// Slot and target of one position of this shard; `None` past its end.
    pub fn target(&self, position: u64) -> Option<(u64, Target)> {
        let mut one = [(0, Target::default())];
        (self.fill(position, &mut one) == 1).then(|| one[0])
    }

    /// How many slots there are: the size of an answered map, in bits.
    pub fn slots(&self) -> u128 {
        if self.slots_are_indices() { self.inner.set.len() } else { u128::from(self.inner.total) }
    }

    /// The slot of a target, if it is in the target set; where slots are positions, only if it is among the targets of
    /// this plan's `max_targets`.
    #[inline]
    pub fn slot_of(&self, target: Target) -> Option<u64> {
        let index = self.inner.set.index_of(target)?;
        if self.slots_are_indices() {
            return Some(index as u64);
        }
        self.position_of_index(index)
    }

    /// The position of a target in the whole plan, if the plan probes it.
    pub fn position_of(&self, target: Target) -> Option<u64> {
        self.position_of_index(self.inner.set.index_of(target)?)
    }

    /// Which shard probes the target, and at which of its positions; `None` when no shard does.
    pub fn shard_and_position_of(&self, target: Target) -> Option<(u32, u64)> {
        let position = self.position_of(target)?;
        let shards = u64::from(self.inner.shards);
        // The remainder is below the number of shards, which has 32 bits.
        Some(((position % shards) as u32, position / shards))
    }

    fn position_of_index(&self, index: u128) -> Option<u64> {
        let position = match &self.inner.sequence {
            Sequence::Random(permutation) => u64::try_from(permutation.position(index)).ok()?,
            // An index is below the size, which has 64 bits.
            Sequence::Spread(spread) => spread.position(index as u64),
        };
        (position < self.inner.total).then_some(position)
    }
}
