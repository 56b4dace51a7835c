//! The search for the fastest rate at which we lose nothing ourselves (`--rate 0`).

/// How often the rate is looked at.
const STEP_NS: u64 = 10_000_000;
/// Frames a second to begin with.
const START: f64 = 500_000.0;
/// The rate never falls below this.
const LEAST: f64 = 10_000.0;
/// More frames a second with each step that lost nothing.
const INCREASE: f64 = 50_000.0;
/// The same near the rate that lost something last.
const INCREASE_NEAR: f64 = 5_000.0;
/// Answers that may be under way: far fewer than a ring holds, and more than a delay on a busy machine's link makes.
const WINDOW: f64 = 16_384.0;
/// What is left after a step of an answer's claim to a place in the window: whoever has not answered for a while is
/// silent, or far away, and then answers do not come all at once.
const CLAIM_LEFT: f64 = 0.9;
/// The share of answers that may be lost.
const LOSS: f64 = 1e-5;
/// A run too short for a share to mean anything may lose so many.
const SLACK: f64 = 8.0;
/// Loss that comes so soon after a loss is of the same burst.
const GRACE_NS: u64 = 100_000_000;
/// What is left of the rate when the device lost more than it may.
const EASE: f64 = 0.7;
/// Up to this share of the rate that lost something last, it climbs quickly.
const CAREFUL: f64 = 0.8;
/// How near to the rate that lost something last it goes while that share is used up.
const NEAR: f64 = 0.9;
/// How quickly the share of probes that are answered follows what is seen, each step.
const SHARE_LEFT: f64 = 0.9;

/// Additive increase, multiplicative decrease on what we lost by our own counts, within a window on the answers that
/// are under way (a ring that overflows has lost them already). A device that says it is full loses nothing; it paces
/// us by itself, and while it does the rate does not climb. One that loses frames after all (the engine `live` learns of
/// that too late) is eased.
///
/// Once something was lost, the rate stays a tenth below where that was, until so many answers have come that one more
/// loss keeps the share lost within [`LOSS`]. However long a burst of loss lasts, that is where it began: a reader or a
/// device that stalls costs a tenth of the rate, though in a scan of a silent network for long.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    rate: f64,
    /// The rate that lost something last.
    ceiling: f64,
    stepped_ns: u64,
    /// From when on loss is a new burst.
    settled_ns: u64,
    /// From when on the device is eased again, if it still loses frames.
    ease_ns: u64,
    seen: Counts,
    at_step: Counts,
    /// When the search began.
    first: Counts,
    /// Answers expected and not seen yet.
    under_way: f64,
    /// Probes and answers of the last steps, fading.
    recent_probes: f64,
    recent_answers: f64,
}

/// What a worker counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Probes built.
    pub(crate) probes: u64,
    /// Records received.
    pub(crate) answers: u64,
    /// Records lost.
    pub(crate) lost: u64,
    /// Frames that the device lost.
    pub(crate) refused: u64,
}

impl Counts {
    fn minus(self, other: Self) -> Self {
        Self {
            probes: self.probes - other.probes,
            answers: self.answers - other.answers,
            lost: self.lost - other.lost,
            refused: self.refused - other.refused,
        }
    }

    /// Whether no more answers were lost than this share of them.
    fn overran_at_most(self, share: f64) -> bool {
        self.lost as f64 <= share * self.answers as f64 + SLACK
    }

    /// Whether the device lost no more than this share of the probes.
    fn refused_at_most(self, share: f64) -> bool {
        self.refused as f64 <= share * self.probes as f64 + SLACK
    }
}

impl Search {
    /// A search that begins now, at 500,000 frames a second.
    pub(crate) fn new(counts: Counts, now_ns: u64) -> Self {
        Self {
            rate: START,
            ceiling: f64::INFINITY,
            stepped_ns: now_ns,
            settled_ns: now_ns,
            ease_ns: now_ns,
            seen: counts,
            at_step: counts,
            first: counts,
            under_way: 0.0,
            recent_probes: 0.0,
            recent_answers: 0.0,
        }
    }

    /// The rate to send at, given all counts so far.
    pub(crate) fn step(&mut self, counts: Counts, now_ns: u64) -> f64 {
        let probes = (counts.probes - self.seen.probes) as f64;
        let answers = (counts.answers - self.seen.answers) as f64;
        self.under_way = (self.under_way + probes * self.share() - answers).max(0.0);
        self.seen = counts;
        let elapsed = now_ns.saturating_sub(self.stepped_ns);
        if elapsed < STEP_NS {
            return self.rate;
        }
        let sent = (counts.probes - self.at_step.probes) as f64;
        self.recent_probes = self.recent_probes * SHARE_LEFT + sent;
        self.recent_answers = self.recent_answers * SHARE_LEFT + (counts.answers - self.at_step.answers) as f64;
        self.under_way *= CLAIM_LEFT;
        let settled = now_ns >= self.settled_ns;
        let (step, all) = (counts.minus(self.at_step), counts.minus(self.first));
        // A stray loss now and then is allowed for, and would be met at any rate.
        let overran = step.lost > 0 && !all.overran_at_most(LOSS / 2.0);
        let refused = step.refused > 0 && !all.refused_at_most(LOSS / 2.0);
        if overran || refused {
            // The rates that a burst has come down to are no bounds: who stalls loses something at any rate.
            if settled {
                self.ceiling = self.ceiling.min(self.rate);
            }
            self.settled_ns = now_ns + GRACE_NS;
        }
        if overran {
            self.rate = (self.rate / 2.0).max(LEAST);
        } else if refused {
            // It tells of its losses late, so that what is told now says little of the rate now.
            if now_ns >= self.ease_ns {
                self.rate = (self.rate * EASE).max(LEAST);
                self.ease_ns = now_ns + GRACE_NS;
            }
        } else if settled && sent * 1e9 / elapsed as f64 > 0.8 * self.rate {
            // Only a rate that was used has been shown to lose nothing.
            self.climb(counts);
        }
        self.at_step = counts;
        self.stepped_ns = now_ns;
        self.rate
    }

    fn climb(&mut self, counts: Counts) {
        let next = if self.rate < CAREFUL * self.ceiling {
            (self.rate + INCREASE).min(CAREFUL * self.ceiling)
        } else {
            self.rate + INCREASE_NEAR
        };
        if next <= self.ceiling * NEAR {
            self.rate = next;
        } else if self.may_lose(counts) {
            // What is found there is the new bound: the old one may have been a passing one.
            self.ceiling = self.ceiling.max(next);
            self.rate = next;
        } else {
            self.rate = self.rate.max(self.ceiling * NEAR);
        }
    }

    /// Whether the loss so far leaves room for a try beyond the rate that lost something last. Half of what is allowed
    /// is kept back for that try.
    fn may_lose(&self, counts: Counts) -> bool {
        let all = counts.minus(self.first);
        all.overran_at_most(LOSS / 2.0) && all.refused_at_most(LOSS / 2.0)
    }

    /// How many probes may go before answers come.
    pub(crate) fn room(&self) -> u64 {
        ((WINDOW - self.under_way).max(0.0) / self.share()) as u64
    }

    /// Answers a probe, as seen lately; one each before anything was seen.
    fn share(&self) -> f64 {
        ((self.recent_answers + 1.0) / (self.recent_probes + 1.0)).clamp(1e-4, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes for so many ms on a link that takes at most `device` probes a second, where a share answers after
    /// `delay_ms`, and where more than `ring` answers a second are lost. Returns the search and all counts.
    fn drive(ms: u64, device: f64, share: f64, delay_ms: u64, ring: f64) -> (Search, Counts) {
        let mut counts = Counts::default();
        let mut search = Search::new(counts, 0);
        let mut answers = vec![0.0; (ms + delay_ms + 1) as usize];
        let mut taken = 0.0;
        for now in 0..ms {
            let rate = search.step(counts, now * 1_000_000).min(device);
            let probes = ((rate / 1000.0) as u64).min(search.room());
            counts.probes += probes;
            answers[(now + delay_ms) as usize] += probes as f64 * share;
            let arrived: f64 = answers[now as usize];
            let fits = arrived.min(ring / 1000.0);
            taken += fits;
            counts.answers = taken as u64;
            counts.lost += (arrived - fits) as u64;
        }
        (search, counts)
    }

    #[test]
    fn a_silent_or_open_network_is_probed_as_fast_as_the_device_goes() {
        for (share, delay_ms) in [(0.0, 0), (0.01, 100), (1.0, 0), (1.0, 5), (1.0, 100)] {
            let (_, counts) = drive(5_000, 2e6, share, delay_ms, f64::INFINITY);
            assert!(counts.probes > 8_000_000, "{} with {share} answering after {delay_ms} ms", counts.probes);
        }
    }

    #[test]
    fn the_rate_does_not_climb_beyond_what_the_device_takes() {
        let (search, _) = drive(60_000, 500_000.0, 0.01, 10, f64::INFINITY);
        assert!(search.rate < 700_000.0, "{}", search.rate);
    }

    #[test]
    fn loss_halves_the_rate_and_is_kept_below_its_bound_afterwards() {
        for (share, ring) in [(1.0, 1e6), (1.0, 300_000.0), (0.05, 50_000.0)] {
            let most = ring / share;
            let (_, found) = drive(3_000, f64::INFINITY, share, 1, ring);
            assert!(found.lost > 0, "the ring's bound was not met");
            // Where the bound lies cannot be known without having lost something once.
            let (_, counts) = drive(60_000, f64::INFINITY, share, 1, ring);
            let (lost, answers) = (counts.lost - found.lost, counts.answers - found.answers);
            assert!(lost as f64 <= LOSS * answers as f64, "{lost} of {answers} lost at {ring}");
            let rate = (counts.probes - found.probes) as f64 / 57.0;
            assert!((0.6..1.0).contains(&(rate / most)), "{rate} where {most} go");
        }
    }

    #[test]
    fn who_stalls_for_a_while_does_not_keep_the_rate_down() {
        for (from, until) in [(20, 420), (300, 700), (300, 2_300), (1_000, 1_150)] {
            for device in [false, true] {
                // What stalls is the reader, which else has its records at once, or the device. Either holds 8,192.
                let (mut counts, mut search, mut queue) = (Counts::default(), Search::new(Counts::default(), 0), 0);
                for now in 0..5_000 {
                    let rate = search.step(counts, now * 1_000_000).min(1e6);
                    let probes = ((rate / 1000.0) as u64).min(search.room());
                    counts.probes += probes;
                    let lost = (queue + probes).saturating_sub(8_192);
                    *if device { &mut counts.refused } else { &mut counts.lost } += lost;
                    queue += probes - lost;
                    if !(from..until).contains(&now) {
                        counts.answers += std::mem::take(&mut queue);
                    }
                }
                assert!(counts.lost + counts.refused > 0, "the stall lost nothing");
                let before = START + INCREASE * (from as f64 / 10.0).min(10.0);
                let rate = search.rate;
                assert!(rate >= 0.8 * before, "{rate} after {from}..{until}, {before} before; the device: {device}");
            }
        }
    }

    #[test]
    fn a_device_that_loses_frames_beyond_some_rate_is_kept_just_below_it() {
        for most in [80_000.0, 300_000.0, 1.2e6] {
            let (mut counts, mut search) = (Counts::default(), Search::new(Counts::default(), 0));
            let mut found = counts;
            for now in 0..30_000 {
                let probes = search.step(counts, now * 1_000_000) / 1000.0;
                let lost = (probes - most / 1000.0).max(0.0) as u64;
                (counts.probes, counts.refused) = (counts.probes + probes as u64, counts.refused + lost);
                counts.answers += (probes as u64 - lost) / 50;
                if now == 3_000 {
                    found = counts;
                }
            }
            assert!(found.refused > 0, "the device's bound was not met");
            let (lost, rate) = (counts.refused - found.refused, (counts.probes - found.probes) as f64 / 27.0);
            assert!(lost as f64 <= LOSS * (counts.probes - found.probes) as f64, "{lost} lost at {most}");
            assert!((0.6..1.0).contains(&(rate / most)), "{rate} where {most} go");
        }
    }

    #[test]
    fn a_bound_that_was_met_once_is_tried_again_when_enough_came_without_loss() {
        let (_, counts) = drive(400_000, f64::INFINITY, 1.0, 1, 1e6);
        assert!(counts.lost as f64 <= LOSS * counts.answers as f64, "{} of {}", counts.lost, counts.answers);
        let (_, first) = drive(3_000, f64::INFINITY, 1.0, 1, 1e6);
        assert!(counts.lost > first.lost, "never tried again");
    }

    #[test]
    fn answers_that_stay_away_close_the_window() {
        let counts = Counts::default();
        let mut search = Search::new(counts, 0);
        search.step(Counts { probes: 10_000, ..counts }, 1);
        assert_eq!(search.room(), 6_384);
        search.step(Counts { probes: 20_000, ..counts }, 2);
        assert_eq!(search.room(), 0);
        search.step(Counts { probes: 20_000, answers: 20_000, ..counts }, 3);
        assert_eq!(search.room(), 16_384);
    }
}
