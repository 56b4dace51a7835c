//! How fast: a token bucket that owes what it could not send in time.

/// No burst is longer than this much of the rate. It is also how much is gathered before anything is sent: a thread
/// that wakes a thousand times a second leaves most of its core idle.
const BURST_NS: u64 = 1_000_000;
/// A worker that was held up catches up on at most this much.
const OWED_NS: u64 = 100_000_000;
/// And not faster than this many times its rate.
const CATCH_UP: f64 = 2.0;

/// Says how many frames may go now. Time is an argument; CLOCK_MONOTONIC in ns.
///
/// Frames are counted against a schedule, so that the rate holds over any length of time however late a sleep ends. A
/// bucket one burst deep, which fills at [`CATCH_UP`] times the rate, bounds what goes at once.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Frames a second; infinite for no bound.
    rate: f64,
    /// From when `sent` is counted.
    since_ns: u64,
    sent: u64,
    /// Frames in the bucket, as of `filled_ns`.
    tokens: f64,
    filled_ns: u64,
}

impl Pacer {
    /// A pacer for so many frames a second, from `now_ns` on.
    pub fn new(rate: f64, now_ns: u64) -> Self {
        Self { rate, since_ns: now_ns, sent: 0, tokens: f64::INFINITY, filled_ns: now_ns }
    }

    /// The rate in force.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Changes the rate. What was owed at the old rate is forgiven.
    pub fn set_rate(&mut self, rate: f64, now_ns: u64) {
        if rate != self.rate {
            self.rate = rate;
            self.since_ns = now_ns;
            self.sent = 0;
        }
    }

    /// The longest burst, in frames.
    pub fn burst(&self) -> u64 {
        ((self.rate * BURST_NS as f64 / 1e9) as u64).max(1)
    }

    /// How many frames may go now: a whole burst, or none, or the rest of the bucket while catching up.
    pub fn allow(&mut self, now_ns: u64) -> u64 {
        if self.rate.is_infinite() {
            return u64::MAX;
        }
        let burst = self.burst();
        let owed = (self.rate * OWED_NS as f64 / 1e9) as u64;
        if self.due(now_ns) > owed + burst {
            // Held up for too long: start the count anew with what may be caught up on.
            self.since_ns = now_ns.saturating_sub(OWED_NS);
            self.sent = 0;
        }
        if self.due(now_ns) < burst {
            return 0;
        }
        let earned = now_ns.saturating_sub(self.filled_ns) as f64 * self.rate * CATCH_UP / 1e9;
        self.tokens = (self.tokens + earned).min(burst as f64);
        self.filled_ns = now_ns;
        self.tokens as u64
    }

    /// Counts frames that went.
    pub fn spend(&mut self, frames: u64) {
        self.sent += frames;
        self.tokens -= frames as f64;
    }

    /// When frames may go again.
    pub fn next_ns(&self, now_ns: u64) -> u64 {
        if self.rate.is_infinite() {
            return now_ns;
        }
        let burst = self.burst();
        if self.due(now_ns) < burst {
            return self.since_ns + ((self.sent + burst) as f64 * 1e9 / self.rate).ceil() as u64;
        }
        let missing = (1.0 - self.tokens).max(0.0);
        self.filled_ns + (missing * 1e9 / (self.rate * CATCH_UP)).ceil() as u64
    }

    fn due(&self, now_ns: u64) -> u64 {
        ((now_ns.saturating_sub(self.since_ns) as f64 * self.rate / 1e9) as u64).saturating_sub(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every `step` ns and sends what may go, but at most `most` at once. Returns frames sent and longest burst.
    fn run(pacer: &mut Pacer, from: u64, to: u64, step: u64, most: u64) -> (u64, u64) {
        let (mut sent, mut longest) = (0, 0);
        let mut now = from;
        while now < to {
            let allowed = pacer.allow(now);
            let frames = allowed.min(most);
            pacer.spend(frames);
            sent += frames;
            longest = longest.max(allowed);
            now += step;
        }
        (sent, longest)
    }

    #[test]
    fn keeps_the_rate_without_bursts_over_a_millisecond() {
        for rate in [1.0, 1_000.0, 1_500.0, 50_000.0, 1_000_000.0] {
            for step in [100_000, 700_000, 1_100_000, 5_000_000] {
                let mut pacer = Pacer::new(rate, 0);
                let (sent, longest) = run(&mut pacer, 0, 10_000_000_000, step, u64::MAX);
                // Whoever looks once in 5 ms cannot keep up without longer bursts.
                let wanted = (rate * 10.0).min((10_000_000_000 / step) as f64 * pacer.burst() as f64);
                assert!((sent as f64 - wanted).abs() <= (wanted * 0.01).max(1.0), "{sent} instead of {wanted}");
                assert!(longest <= ((rate / 1000.0).ceil() as u64).max(1));
            }
        }
    }

    #[test]
    fn sleeps_that_end_late_cost_no_frames() {
        for rate in [1_000.0, 50_000.0, 400_000.0] {
            let mut pacer = Pacer::new(rate, 0);
            let (mut now, mut sent) = (0, 0);
            while now < 10_000_000_000 {
                let frames = pacer.allow(now);
                pacer.spend(frames);
                sent += frames;
                now = pacer.next_ns(now).max(now) + 73_000;
            }
            assert!((sent as f64 / (rate * 10.0) - 1.0).abs() < 0.001, "{sent} at {rate}");
        }
    }

    #[test]
    fn catches_up_on_a_tenth_of_a_second_at_most_and_at_twice_the_rate() {
        let mut pacer = Pacer::new(100_000.0, 0);
        run(&mut pacer, 0, 1_000_000_000, 100_000, u64::MAX);
        let (sent, longest) = run(&mut pacer, 3_000_000_000, 3_050_000_000, 100_000, u64::MAX);
        assert!((9_900..=10_101).contains(&sent), "{sent}");
        assert!(longest <= 100);
        let (sent, _) = run(&mut pacer, 3_050_000_000, 4_000_000_000, 100_000, u64::MAX);
        assert!((99_800..=100_200).contains(&sent), "{sent}");
    }

    #[test]
    fn a_rate_out_of_reach_does_not_slow_anybody_down() {
        let mut pacer = Pacer::new(1e9, 0);
        // 256 frames in 50 us is all this machine can do; it must be let.
        let (sent, _) = run(&mut pacer, 0, 1_000_000_000, 50_000, 256);
        assert!(sent > 256 * 19_900, "{sent}");
    }
}
