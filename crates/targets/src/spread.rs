//! The spread order: a bijection of `0..size` in which neighbours in the target set are far apart in time, at every
//! scale at once, so that no network is probed in a burst. It seeks both ways in logarithmic time.
//!
//! `docs/permutation.md` is the specification (version [`VERSION`]), with the proof of the distance;
//! `vectors/spread-v1.json` its test vectors. Position p is the point `p * step mod circle` of a circle of a Fibonacci
//! number of points, stepped by the Fibonacci number before it: the golden angle. The index is the rank of that point
//! among the points of all positions, turned and perhaps mirrored by the seed.

use crate::permutation::{GOLDEN, mix};

/// The version of the spread order. It is part of the permutation's version: plans carry that one.
pub const VERSION: u32 = 1;

/// The largest size: the circle and all sums of two ranks fit in 64 bits.
pub const LARGEST: u64 = 1 << 63;

/// 46 runs, 2 points each, and the circle is at most 1.7 times the size.
const UNEVEN: u64 = 46 * 2 * 17 / 10 + 2;

/// A bijection of `0..size` in which any m neighbouring indices are visited more than size / (3 m) positions apart.
///
/// ```
/// use irl_targets::Spread;
/// let order = Spread::new(1000, 42);
/// let index = order.index(7);
/// assert!(index < 1000);
/// assert_eq!(order.position(index), 7);
/// ```
#[derive(Clone, Debug)]
pub struct Spread {
    size: u64,
    /// The least Fibonacci number that is no less than the size.
    circle: u64,
    /// The Fibonacci number before it.
    step: u64,
    /// The step's inverse modulo the circle.
    back: u64,
    /// The point of position size - 1.
    last_point: u64,
    /// What the constant half of [`Spread::below`] comes to.
    whole: u128,
    /// How many points lie below the step.
    below_step: u64,
    /// What the seed adds to every rank.
    turn: u64,
    /// Whether ranks run backwards.
    mirrored: bool,
}

impl Spread {
    /// The order of `size` targets under `seed`.
    ///
    /// # Panics
    /// When `size` is 0 or above [`LARGEST`]; a plan refuses both before.
    pub fn new(size: u64, seed: u64) -> Self {
        assert!((1..=LARGEST).contains(&size), "a spread order has 1 to 2^63 elements, not {size}");
        let (mut step, mut circle) = (0, 1);
        while circle < size {
            (step, circle) = (circle, circle + step);
        }
        // Cassini: the square of a Fibonacci number is 1 or -1 modulo the next.
        let square = product(step, step, circle);
        let back = if square == 1 { step } else { circle - step };
        let key = |nth: u64| mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(GOLDEN.wrapping_mul(nth)));
        let random = u128::from(key(1)) << 64 | u128::from(key(2));
        let mut order = Self {
            size,
            circle,
            step,
            back,
            last_point: product(size - 1, step, circle),
            whole: floor_sum(size, circle, step, circle),
            below_step: 0,
            turn: scaled(random, size),
            mirrored: key(3) >> 63 == 1,
        };
        order.below_step = order.below(step);
        order
    }

    /// How many elements.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The index visited at this position.
    ///
    /// # Panics
    /// When `position` is not below the size.
    pub fn index(&self, position: u64) -> u64 {
        assert!(position < self.size, "position {position} of {}", self.size);
        self.turned(self.below(product(position, self.step, self.circle)))
    }

    /// The position at which this index is visited.
    ///
    /// # Panics
    /// When `index` is not below the size.
    pub fn position(&self, index: u64) -> u64 {
        assert!(index < self.size, "index {index} of {}", self.size);
        // The sums stay below 2 * 2^63.
        let rank = if self.mirrored { self.turn + (self.size - index) } else { index + (self.size - self.turn) };
        let rank = rank % self.size;
        // The point of this rank is the highest with no more than `rank` points below it. The positions are at most 46
        // runs of a Fibonacci number each, and each is even to 2 points: it lies near its share of the circle.
        let near = (u128::from(rank) * u128::from(self.circle) / u128::from(self.size)) as u64;
        let (mut point, mut above) = (near.saturating_sub(UNEVEN), near.saturating_add(UNEVEN).min(self.circle));
        while above - point > 1 {
            let middle = point + (above - point) / 2;
            if self.below(middle) <= rank { point = middle } else { above = middle }
        }
        product(point, self.back, self.circle)
    }

    /// Starts a walk at a position.
    pub(crate) fn cursor(&self, position: u64) -> Cursor<'_> {
        let point = product(position, self.step, self.circle);
        Cursor { order: self, position, point, rank: self.below(point) }
    }

    /// How many positions have a point below this one: the point's rank.
    fn below(&self, point: u64) -> u64 {
        // floor((x + circle) / circle) - floor((x + circle - point) / circle) is 1 where x mod circle < point.
        let others = floor_sum(self.size, self.circle, self.step, self.circle - point);
        // The difference is no more than the size.
        self.whole.wrapping_sub(others) as u64
    }

    fn turned(&self, rank: u64) -> u64 {
        let sum = self.turn + if self.mirrored { self.size - rank } else { rank };
        if sum >= self.size { sum - self.size } else { sum }
    }
}

/// A walk through the order. A step of one position costs two comparisons, because the points of all positions, moved
/// on by one, are the same points but for the first and the last.
pub(crate) struct Cursor<'a> {
    order: &'a Spread,
    position: u64,
    point: u64,
    rank: u64,
}

/// From so many positions on, seeking costs less than stepping.
const FAR: u64 = 256;

impl Cursor<'_> {
    /// Writes the indices here and `step`, `2 * step`, ... positions on, all below the size.
    pub(crate) fn fill(&mut self, step: u64, out: &mut [u64]) {
        for index in out {
            *index = self.order.turned(self.rank);
            self.advance(step);
        }
    }

    fn advance(&mut self, step: u64) {
        let Spread { size, circle, step: angle, last_point, below_step, .. } = *self.order;
        self.position = self.position.saturating_add(step);
        // Past the end there is nothing to be right about.
        if self.position >= size {
            return;
        }
        if step >= FAR {
            *self = self.order.cursor(self.position);
            return;
        }
        // The point of position -1, and the circle's length where the angle is 0.
        let point_before = circle - angle;
        for _ in 0..step {
            let sum =
                self.rank + below_step + u64::from(point_before < self.point) - u64::from(last_point < self.point);
            self.rank = if sum >= size { sum - size } else { sum };
            self.point = if self.point >= point_before { self.point - point_before } else { self.point + angle };
        }
    }
}

fn product(a: u64, b: u64, modulus: u64) -> u64 {
    // The remainder is below the modulus.
    (u128::from(a) * u128::from(b) % u128::from(modulus)) as u64
}

/// Maps 128 random bits to `0..bound`; uneven by at most bound / 2^128.
fn scaled(random: u128, bound: u64) -> u64 {
    let (high, low, bound) = (random >> 64, random & u128::from(u64::MAX), u128::from(bound));
    ((high * bound + ((low * bound) >> 64)) >> 64) as u64
}

/// The sum over i below `count` of floor((slope * i + offset) / divisor), modulo 2^128, by Euclid's algorithm.
fn floor_sum(count: u64, divisor: u64, slope: u64, offset: u64) -> u128 {
    let [mut count, mut divisor, mut slope, mut offset] = [count, divisor, slope, offset].map(u128::from);
    let mut sum = 0u128;
    loop {
        if slope >= divisor {
            sum = sum.wrapping_add((count * count.saturating_sub(1) / 2).wrapping_mul(slope / divisor));
            slope %= divisor;
        }
        if offset >= divisor {
            sum = sum.wrapping_add(count.wrapping_mul(offset / divisor));
            offset %= divisor;
        }
        let highest = slope * count + offset;
        if highest < divisor {
            return sum;
        }
        (count, offset) = (highest / divisor, highest % divisor);
        (divisor, slope) = (slope, divisor);
    }
}
