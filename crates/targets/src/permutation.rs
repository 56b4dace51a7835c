//! The order of a run: a keyed bijection of `0..size`, for every size, that seeks both ways in constant time.
//!
//! `docs/permutation.md` is the specification (version [`VERSION`]); `vectors/permutation-v1.json` its test vectors.
//! A position is split as `high * 2^k + low`; each round adds a keyed function of one part to the other (modulo the
//! number of high parts, or by exclusive or). A result outside `0..size` is permuted again, which stays a bijection.

/// The version of the order. A plan carries it, because another version would visit other targets.
pub const VERSION: u32 = 1;

/// Pairs of rounds by the bits of the low part. Large parts need few: what two positions still share is 2^-12 of their
/// probability or less. Keyed functions of a handful of values need many before every order is as likely.
const fn pairs(low_bits: u32) -> usize {
    match low_bits {
        0..6 => MOST_PAIRS,
        6..12 => 3,
        _ => 2,
    }
}

const MOST_PAIRS: usize = 12;
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const FIRST: u64 = 0xbf58_476d_1ce4_e5b9;
const SECOND: u64 = 0x94d0_49bb_1331_11eb;

/// A keyed bijection of `0..size`.
///
/// ```
/// use irl_targets::Permutation;
/// let order = Permutation::new(1000, 42);
/// let index = order.index(7);
/// assert!(index < 1000);
/// assert_eq!(order.position(index), 7);
/// ```
#[derive(Clone, Debug)]
pub struct Permutation {
    size: u128,
    seed: u64,
    rounds: Rounds,
}

#[derive(Clone, Debug)]
enum Rounds {
    Narrow(Narrow),
    Wide(Wide),
}

/// Sizes to 2^64: both parts below 2^32 + 1, all arithmetic in 64 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Narrow {
    last: u64,
    keys: [u64; 2 * MOST_PAIRS],
    /// Bits of the low part, 1..=32.
    low_bits: u32,
    /// How many high parts, 1..=2^32.
    highs: u64,
}

/// Sizes above 2^64: both parts up to 2^64.
#[derive(Clone, Copy, Debug)]
struct Wide {
    size: u128,
    keys: [u64; 2 * pairs(64)],
    /// Bits of the low part, 33..=64.
    low_bits: u32,
    /// How many high parts, up to 2^64.
    highs: u128,
}

impl Permutation {
    /// The order of `size` targets under `seed`.
    ///
    /// # Panics
    /// When `size` is 0: there is no order of nothing, and an empty target set is refused before.
    pub fn new(size: u128, seed: u64) -> Self {
        assert!(size > 0, "a permutation needs at least one element");
        let keys = round_keys(size, seed);
        let bits = 128 - (size - 1).leading_zeros();
        let low_bits = bits.div_ceil(2).max(1);
        let highs = ((size - 1) >> low_bits) + 1;
        let rounds = if bits <= 64 {
            Rounds::Narrow(Narrow { last: (size - 1) as u64, keys, low_bits, highs: highs as u64 })
        } else {
            let keys = std::array::from_fn(|round| keys[round]);
            Rounds::Wide(Wide { size, keys, low_bits, highs })
        };
        Self { size, seed, rounds }
    }

    /// How many elements.
    pub fn size(&self) -> u128 {
        self.size
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The index visited at this position.
    ///
    /// # Panics
    /// When `position` is not below the size.
    #[inline]
    pub fn index(&self, position: u128) -> u128 {
        assert!(position < self.size, "position {position} of {}", self.size);
        match &self.rounds {
            Rounds::Narrow(narrow) => u128::from(narrow.index(position as u64)),
            Rounds::Wide(wide) => wide.index(position),
        }
    }

    /// The position at which this index is visited.
    ///
    /// # Panics
    /// When `index` is not below the size.
    #[inline]
    pub fn position(&self, index: u128) -> u128 {
        assert!(index < self.size, "index {index} of {}", self.size);
        match &self.rounds {
            Rounds::Narrow(narrow) => u128::from(narrow.position(index as u64)),
            Rounds::Wide(wide) => wide.position(index),
        }
    }

    /// The indices at positions `start`, `start + step`, ... up to the end.
    ///
    /// # Panics
    /// When `step` is 0.
    pub fn walk(&self, start: u128, step: u64) -> Walk<'_> {
        assert!(step > 0, "a walk needs a step");
        Walk { permutation: self, next: Some(start), step: u128::from(step) }
    }

    /// The 64-bit rounds, where the size allows them.
    pub(crate) fn narrow(&self) -> Option<&Narrow> {
        match &self.rounds {
            Rounds::Narrow(narrow) => Some(narrow),
            Rounds::Wide(_) => None,
        }
    }
}

/// The iterator of [`Permutation::walk`].
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    permutation: &'a Permutation,
    next: Option<u128>,
    step: u128,
}

impl Iterator for Walk<'_> {
    type Item = u128;

    #[inline]
    fn next(&mut self) -> Option<u128> {
        let position = self.next.filter(|&position| position < self.permutation.size)?;
        self.next = position.checked_add(self.step);
        Some(self.permutation.index(position))
    }
}

impl Narrow {
    fn index(&self, position: u64) -> u64 {
        let mut one = [0];
        self.fill(position, 1, &mut one);
        one[0]
    }

    /// Writes the indices at `first`, `first + step`, ...; all these positions must exist.
    #[inline]
    pub(crate) fn fill(&self, first: u64, step: u64, out: &mut [u64]) {
        match self.low_bits {
            0..6 => self.fill_with::<{ pairs(0) }>(first, step, out),
            6..12 => self.fill_with::<{ pairs(6) }>(first, step, out),
            _ => self.fill_with::<{ pairs(12) }>(first, step, out),
        }
    }

    #[inline(always)]
    fn fill_with<const PAIRS: usize>(&self, first: u64, step: u64, out: &mut [u64]) {
        let mut position = first;
        let mut highest = 0;
        for index in out.iter_mut() {
            *index = self.forward::<PAIRS>(position);
            highest = highest.max(*index);
            position = position.wrapping_add(step);
        }
        // Few values fall outside, so one look at the batch costs less than a branch for each.
        if highest > self.last {
            for index in out {
                while *index > self.last {
                    *index = self.forward::<PAIRS>(*index);
                }
            }
        }
    }

    fn position(&self, index: u64) -> u64 {
        match self.low_bits {
            0..6 => self.position_with::<{ pairs(0) }>(index),
            6..12 => self.position_with::<{ pairs(6) }>(index),
            _ => self.position_with::<{ pairs(12) }>(index),
        }
    }

    #[inline(always)]
    fn position_with<const PAIRS: usize>(&self, index: u64) -> u64 {
        let mut value = self.backward::<PAIRS>(index);
        while value > self.last {
            value = self.backward::<PAIRS>(value);
        }
        value
    }

    #[inline(always)]
    fn forward<const PAIRS: usize>(&self, value: u64) -> u64 {
        let shift = 64 - self.low_bits;
        let mut high = value >> self.low_bits;
        let mut low = value & ((1 << self.low_bits) - 1);
        for pair in 0..PAIRS {
            let sum = high + scale(scramble(low, self.keys[2 * pair]), self.highs);
            // The smaller of sum and sum - highs is the one that did not wrap.
            high = sum.min(sum.wrapping_sub(self.highs));
            low ^= scramble(high, self.keys[2 * pair + 1]) >> shift;
        }
        high << self.low_bits | low
    }

    #[inline(always)]
    fn backward<const PAIRS: usize>(&self, value: u64) -> u64 {
        let shift = 64 - self.low_bits;
        let mut high = value >> self.low_bits;
        let mut low = value & ((1 << self.low_bits) - 1);
        for pair in (0..PAIRS).rev() {
            low ^= scramble(high, self.keys[2 * pair + 1]) >> shift;
            let difference = high.wrapping_sub(scale(scramble(low, self.keys[2 * pair]), self.highs));
            high = difference.min(difference.wrapping_add(self.highs));
        }
        high << self.low_bits | low
    }
}

impl Wide {
    fn index(&self, position: u128) -> u128 {
        let mut value = self.forward(position);
        while value >= self.size {
            value = self.forward(value);
        }
        value
    }

    fn position(&self, index: u128) -> u128 {
        let mut value = self.backward(index);
        while value >= self.size {
            value = self.backward(value);
        }
        value
    }

    fn forward(&self, value: u128) -> u128 {
        let shift = 64 - self.low_bits;
        let mut high = value >> self.low_bits;
        let mut low = (value & ((1 << self.low_bits) - 1)) as u64;
        for pair in self.keys.chunks_exact(2) {
            // Both are below highs <= 2^64, so the sum does not overflow.
            high += scale_wide(low, pair[0], self.highs);
            if high >= self.highs {
                high -= self.highs;
            }
            low ^= mix(high as u64 ^ pair[1]) >> shift;
        }
        high << self.low_bits | u128::from(low)
    }

    fn backward(&self, value: u128) -> u128 {
        let shift = 64 - self.low_bits;
        let mut high = value >> self.low_bits;
        let mut low = (value & ((1 << self.low_bits) - 1)) as u64;
        for pair in self.keys.chunks_exact(2).rev() {
            low ^= mix(high as u64 ^ pair[1]) >> shift;
            let step = scale_wide(low, pair[0], self.highs);
            high = if high >= step { high - step } else { high + self.highs - step };
        }
        high << self.low_bits | u128::from(low)
    }
}

/// SplitMix64's finaliser.
#[inline(always)]
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(FIRST);
    value = (value ^ value >> 27).wrapping_mul(SECOND);
    value ^ value >> 31
}

/// A keyed function of a 32-bit part whose high bits are good; two multiplications.
#[inline(always)]
fn scramble(part: u64, key: u64) -> u64 {
    let product = (part ^ key).wrapping_mul(FIRST);
    (product ^ product >> 32).wrapping_mul(SECOND)
}

/// Maps 64 random bits to `0..bound` by the high half of a product; uneven by at most bound / 2^64.
#[inline(always)]
fn scale(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// The same with 128 random bits, because a bound near 2^64 would be uneven with 64.
fn scale_wide(part: u64, key: u64, bound: u128) -> u128 {
    let upper = u128::from(mix(part ^ key));
    let lower = u128::from(mix(part ^ key ^ GOLDEN));
    // bound <= 2^64: (2^64 - 1) * 2^64 + 2^64 - 1 still fits.
    (upper * bound + ((lower * bound) >> 64)) >> 64
}

fn round_keys(size: u128, seed: u64) -> [u64; 2 * MOST_PAIRS] {
    let mut state = mix(seed.wrapping_add(GOLDEN));
    state = mix((state ^ size as u64).wrapping_add(GOLDEN));
    state = mix((state ^ (size >> 64) as u64).wrapping_add(GOLDEN));
    std::array::from_fn(|round| mix(state.wrapping_add(GOLDEN.wrapping_mul(round as u64 + 1))))
}
