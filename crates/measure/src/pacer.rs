//! How fast: a token bucket that owes, and a search for the fastest rate without loss of our own.

/// No burst is longer than this much of the rate.
const BURST_NS: u64 = 1_000_000;
/// A worker that was held up catches up on at most this much, at no more than twice its rate.
const OWED_NS: u64 = 100_000_000;

/// Says how many frames may go now. Time is an argument; CLOCK_MONOTONIC in ns.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Frames a second; infinite for no bound.
    rate: f64,
    /// From when `sent` is counted.
    since_ns: u64,
    sent: u64,
    last_ns: u64,
}

impl Pacer {
    /// A pacer for so many frames a second, from `now_ns` on.
    pub fn new(rate: f64, now_ns: u64) -> Self {
        Self { rate, since_ns: now_ns, sent: 0, last_ns: now_ns.saturating_sub(BURST_NS) }
    }

    /// The rate in force.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Changes the rate. What was owed at the old rate is forgiven.
    pub fn set_rate(&mut self, rate: f64, now_ns: u64) {
        if rate != self.rate {
            *self = Self { rate, since_ns: now_ns, sent: 0, last_ns: self.last_ns };
        }
    }

    /// The longest burst, in frames.
    pub fn burst(&self) -> u64 {
        ((self.rate * BURST_NS as f64 / 1e9).ceil() as u64).max(1)
    }

    /// How many frames may go now.
    pub fn allow(&mut self, now_ns: u64) -> u64 {
        if self.rate.is_infinite() {
            return u64::MAX;
        }
        let due = self.due(now_ns);
        let owed = (self.rate * OWED_NS as f64 / 1e9) as u64;
        if due > owed + self.burst() {
            // Held up for too long: start the count anew with what may be caught up on.
            self.since_ns = now_ns.saturating_sub(OWED_NS);
            self.sent = 0;
        }
        let due = self.due(now_ns);
        let burst = self.burst();
        if due > burst && now_ns.saturating_sub(self.last_ns) < BURST_NS / 2 {
            return 0;
        }
        due.min(burst)
    }

    /// Counts frames that went.
    pub fn spend(&mut self, frames: u64, now_ns: u64) {
        self.sent += frames;
        if frames > 0 {
            self.last_ns = now_ns;
        }
    }

    /// When the next frame may go.
    pub fn next_ns(&self, now_ns: u64) -> u64 {
        if self.rate.is_infinite() {
            return now_ns;
        }
        if self.due(now_ns) > 0 {
            return now_ns.max(self.last_ns + BURST_NS / 2);
        }
        self.since_ns + ((self.sent + 1) as f64 * 1e9 / self.rate) as u64 + 1
    }

    fn due(&self, now_ns: u64) -> u64 {
        ((now_ns.saturating_sub(self.since_ns) as f64 * self.rate / 1e9) as u64).saturating_sub(self.sent)
    }
}

/// The search for the fastest rate at which we lose nothing ourselves (`--rate 0`).
///
/// Additive increase, multiplicative decrease, once every [`Aimd::STEP_NS`]. Loss is what we counted: records that a
/// full ring could not take. A device that says it is full loses nothing and paces us by itself.
#[derive(Clone, Debug)]
pub struct Aimd {
    rate: f64,
    least: f64,
    stepped_ns: u64,
    lost: u64,
}

impl Aimd {
    /// How often the rate is looked at.
    pub const STEP_NS: u64 = 10_000_000;
    const START: f64 = 200_000.0;
    const LEAST: f64 = 10_000.0;

    /// A search that begins at 200,000 frames a second.
    pub fn new(now_ns: u64) -> Self {
        Self { rate: Self::START, least: Self::LEAST, stepped_ns: now_ns, lost: 0 }
    }

    /// The rate for the next step, given all losses so far.
    pub fn step(&mut self, lost: u64, now_ns: u64) -> f64 {
        if now_ns.saturating_sub(self.stepped_ns) >= Self::STEP_NS {
            self.stepped_ns = now_ns;
            self.rate =
                if lost > self.lost { (self.rate / 2.0).max(self.least) } else { self.rate + Self::START / 4.0 };
            self.lost = lost;
        }
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pacer: &mut Pacer, from: u64, to: u64, step: u64) -> (u64, u64) {
        let (mut sent, mut longest) = (0, 0);
        let mut now = from;
        while now < to {
            let frames = pacer.allow(now);
            pacer.spend(frames, now);
            sent += frames;
            longest = longest.max(frames);
            now += step;
        }
        (sent, longest)
    }

    #[test]
    fn keeps_the_rate_without_bursts_over_a_millisecond() {
        for rate in [1.0, 1_000.0, 50_000.0, 1_000_000.0] {
            for step in [100_000, 700_000] {
                let mut pacer = Pacer::new(rate, 0);
                let (sent, longest) = run(&mut pacer, 0, 10_000_000_000, step);
                let wanted = rate * 10.0;
                assert!((sent as f64 - wanted).abs() <= (wanted * 0.01).max(1.0), "{sent} instead of {wanted}");
                assert!(longest <= ((rate / 1000.0).ceil() as u64).max(1));
            }
        }
    }

    #[test]
    fn catches_up_on_a_tenth_of_a_second_at_most_and_at_twice_the_rate() {
        let mut pacer = Pacer::new(100_000.0, 0);
        run(&mut pacer, 0, 1_000_000_000, 100_000);
        let (sent, longest) = run(&mut pacer, 3_000_000_000, 4_000_000_000, 100_000);
        assert!((100_000..=111_000).contains(&sent), "{sent}");
        assert!(longest <= 100);
    }

    #[test]
    fn halves_on_loss_and_climbs_without() {
        let mut aimd = Aimd::new(0);
        let up = aimd.step(0, Aimd::STEP_NS);
        assert!(up > Aimd::START);
        let down = aimd.step(7, 2 * Aimd::STEP_NS);
        assert!(down <= up / 2.0);
        assert!(aimd.step(7, 3 * Aimd::STEP_NS) > down);
    }
}
