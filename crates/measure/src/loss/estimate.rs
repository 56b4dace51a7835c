//! How many answers were lost, and how many targets were missed for it, by which probes of those that were found brought an
//! answer.
//!
//! The model: each probe of a target that would answer brings none with the same probability, whatever became of the others.
//! A target that was found by pass `f` of `k` probes each, `a` of which were answered then, had `k f + k - a` probes without
//! an answer before and `a` with one. Given that it was found at all by `t` probes, that has the probability
//! `p^(k f + k - a) (1 - p)^a / (1 - p^t)`; targets that were not found do not come into it. The interval is that of the
//! likelihood ratio, which is not symmetric where few or none were lost, with half a lost answer less at its lower end and
//! half a one more at its upper: whole numbers are so few there that it would not cover enough.

use serde::Serialize;

/// Chi-square with one degree of freedom, 95 %.
const CHI_SQUARE: f64 = 3.841_458_820_694_124;
/// The normal distribution's, two-sided 95 %.
const NORMAL: f64 = 1.959_963_984_540_054;
/// No loss above this is considered: there would be hardly an answer.
const MOST: f64 = 0.999;
/// Steps of a bisection: more than a double has bits.
const STEPS: u32 = 60;

/// What is thought of a run's losses; intervals hold in 95 of 100 runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Loss {
    /// The share of probes without an answer of those to targets that would answer: lost on the way there or back, or not
    /// answered in time.
    pub probe_loss: f64,
    /// Its interval.
    pub probe_loss_low: f64,
    /// Its interval.
    pub probe_loss_high: f64,
    /// Targets that were not found although they would answer, by this loss.
    pub missed: f64,
    /// Its interval.
    pub missed_low: u64,
    /// Its interval.
    pub missed_high: u64,
    /// Found targets whose answers were looked at.
    pub sampled: u64,
}

/// How targets were probed: so many passes of so many probes, a later pass only to those that were silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Probes of a target in a pass.
    pub probes: u32,
    /// Passes that were walked to their end.
    pub passes: u32,
}

impl Schedule {
    /// Probes of a target that never answers; those that there is no bit for aside.
    fn total(self) -> Option<u32> {
        self.probes.checked_mul(self.passes).filter(|total| (2..=63).contains(total))
    }
}

/// What is summed up of the found targets that were looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    targets: f64,
    unanswered: f64,
    answered: f64,
    total: i32,
}

impl Sum {
    fn log_likelihood(&self, p: f64) -> f64 {
        // 0 ln 0 is 0.
        let lost = if self.unanswered > 0.0 { self.unanswered * p.ln() } else { 0.0 };
        lost + self.answered * (-p).ln_1p() - self.targets * (-p.powi(self.total)).ln_1p()
    }
}

/// The losses of a run that found `found` targets, by the answers of a sample of them: a word for each, whose bit `n` tells
/// whether its probe number `n` was answered. `None` where nothing can be told: fewer than two probes a target, or nobody
/// was found.
pub fn estimate(answered: impl IntoIterator<Item = u64>, schedule: Schedule, found: u64) -> Option<Loss> {
    let total = schedule.total()?;
    let mut sum = Sum { total: total.cast_signed(), ..Sum::default() };
    for word in answered {
        let word = word & ((1 << total) - 1);
        if word == 0 {
            continue;
        }
        let pass = word.trailing_zeros() / schedule.probes;
        let within = word >> (pass * schedule.probes) & ((1 << schedule.probes) - 1);
        let answered = within.count_ones();
        sum.targets += 1.0;
        sum.answered += f64::from(answered);
        sum.unanswered += f64::from(schedule.probes * (pass + 1) - answered);
    }
    if sum.targets == 0.0 {
        return None;
    }
    let best = peak(&sum);
    let low = end(&Sum { unanswered: (sum.unanswered - 0.5).max(0.0), ..sum }, 0.0);
    let high = end(&Sum { unanswered: sum.unanswered + 0.5, ..sum }, MOST);
    // Each of those that were found stands for as many that were not: a negative binomial.
    let missed = |p: f64| {
        let all = p.powi(sum.total);
        (found as f64 * all / (1.0 - all), (found as f64 * all).sqrt() / (1.0 - all))
    };
    let (fewest, most) = (missed(low), missed(high));
    Some(Loss {
        probe_loss: best,
        probe_loss_low: low,
        probe_loss_high: high,
        missed: missed(best).0,
        missed_low: (fewest.0 - NORMAL * fewest.1).max(0.0).floor() as u64,
        missed_high: (most.0 + NORMAL * most.1).ceil() as u64,
        sampled: sum.targets as u64,
    })
}

/// Where the interval ends in the direction of `limit`.
fn end(sum: &Sum, limit: f64) -> f64 {
    let best = peak(sum);
    let least = sum.log_likelihood(best) - CHI_SQUARE / 2.0;
    let within = |p: f64| sum.log_likelihood(p) >= least;
    if within(limit) { limit } else { bisect(best, limit, within) }
}

/// Where the likelihood is greatest; it has one peak.
fn peak(sum: &Sum) -> f64 {
    if sum.unanswered == 0.0 {
        return 0.0;
    }
    let (mut low, mut high) = (f64::MIN_POSITIVE, MOST);
    for _ in 0..2 * STEPS {
        let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if sum.log_likelihood(left) < sum.log_likelihood(right) {
            low = left;
        } else {
            high = right;
        }
    }
    (low + high) / 2.0
}

/// The last place from `inside` towards `outside` at which something holds.
fn bisect(mut inside: f64, mut outside: f64, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..STEPS {
        let middle = (inside + outside) / 2.0;
        if holds(middle) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    inside
}

/// Wilson's interval of a share, 95 %: `hits` of `of`.
pub fn wilson(hits: u64, of: u64) -> Option<(f64, f64)> {
    if of == 0 {
        return None;
    }
    let (n, share, z2) = (of as f64, hits as f64 / of as f64, NORMAL * NORMAL);
    let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = NORMAL / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    Some(((middle - half).max(0.0), (middle + half).min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, from 0 to 1.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mixed = (self.0 ^ self.0 >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
            (mixed >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// Probes so many targets that would all answer over a link that loses so much.
    fn run(dice: &mut Dice, targets: u64, schedule: Schedule, loss: f64) -> (Vec<u64>, u64) {
        let mut words = Vec::new();
        for _ in 0..targets {
            let mut word = 0;
            for pass in 0..schedule.passes {
                for probe in 0..schedule.probes {
                    word |= u64::from(dice.roll() >= loss) << (pass * schedule.probes + probe);
                }
                if word != 0 {
                    words.push(word);
                    break;
                }
            }
        }
        let missed = targets - words.len() as u64;
        (words, missed)
    }

    #[test]
    fn the_intervals_cover_what_they_are_to_cover() {
        let mut dice = Dice(1);
        for (probes, passes) in [(1, 2), (1, 3), (2, 1), (3, 1), (2, 2)] {
            for targets in [40, 400, 4000] {
                for loss in [0.003, 0.02, 0.1, 0.3] {
                    let schedule = Schedule { probes, passes };
                    let (mut loss_covered, mut missed_covered, mut told) = (0, 0, 0);
                    for _ in 0..200 {
                        let (words, missed) = run(&mut dice, targets, schedule, loss);
                        let found = words.len() as u64;
                        let Some(said) = estimate(words, schedule, found) else { continue };
                        told += 1;
                        loss_covered += u32::from(said.probe_loss_low <= loss && loss <= said.probe_loss_high);
                        missed_covered += u32::from(said.missed_low <= missed && missed <= said.missed_high);
                    }
                    let case = format!("{schedule:?}, {targets} targets, {loss}");
                    assert_eq!(told, 200, "{case}");
                    // 95 % of 200 are 190; less than 180 has a chance of 1 in 500 for each of the 60 cases.
                    assert!(loss_covered >= 178, "{case}: the loss in {loss_covered} of 200");
                    assert!(missed_covered >= 178, "{case}: those that were missed in {missed_covered} of 200");
                }
            }
        }
    }

    #[test]
    fn the_best_guess_is_what_counting_says() {
        // Two probes each: 80 answered both, 10 the first, 10 the second. Lincoln and Petersen: 1 - 80 / 90.
        let words = (0..100).map(|n| match n {
            0..80 => 0b11,
            80..90 => 0b01,
            _ => 0b10,
        });
        let said = estimate(words, Schedule { probes: 2, passes: 1 }, 100).unwrap();
        assert!((said.probe_loss - 1.0 / 9.0).abs() < 1e-6, "{said:?}");
        assert!((said.missed - 100.0 / 80.0).abs() < 1e-6, "{said:?}");
        assert!(said.probe_loss_low < said.probe_loss && said.probe_loss < said.probe_loss_high);
    }

    #[test]
    fn nothing_lost_has_an_upper_bound_and_no_lower_one() {
        let said = estimate(std::iter::repeat_n(1, 300), Schedule { probes: 1, passes: 2 }, 300).unwrap();
        assert_eq!((said.probe_loss, said.probe_loss_low, said.missed_low, said.missed), (0.0, 0.0, 0, 0.0));
        // Clopper and Pearson have 3.69 / 300.
        assert!((0.010..0.0123).contains(&said.probe_loss_high), "{said:?}");
    }

    #[test]
    fn what_one_probe_cannot_tell_is_not_told() {
        let two = Schedule { probes: 1, passes: 2 };
        assert_eq!(estimate([1, 1], Schedule { probes: 1, passes: 1 }, 2), None);
        assert_eq!(estimate([], two, 0), None);
        assert_eq!(estimate([1 << 5], two, 1), None, "found by a pass that was not walked to its end");
        assert_eq!(estimate([1], Schedule { probes: 8, passes: 8 }, 1), None, "there is no bit for each");
    }

    #[test]
    fn wilson_is_as_in_the_books() {
        let (low, high) = wilson(1, 10).unwrap();
        assert!((low - 0.017_876).abs() < 1e-5 && (high - 0.404_150).abs() < 1e-5, "{low} {high}");
        assert_eq!(wilson(0, 0), None);
        assert_eq!(wilson(0, 5).unwrap().0, 0.0);
    }
}
