//! How busy the calls were: what the core that holds one was worth.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::layout::Control;

/// Turns of the calls of all senders on an interface. A turn either sends a frame or finds nothing to send; what the
/// latter takes is known from the times when nothing was sent at all.
#[derive(Debug, Default)]
pub(super) struct Turns {
    frames: AtomicU64,
    idle: AtomicU64,
    call_ns: AtomicU64,
    quiet_idle: AtomicU64,
    quiet_ns: AtomicU64,
}

/// Where a call was when it was last looked at.
#[derive(Debug)]
pub(super) struct Look {
    at: Instant,
    frames: u64,
    idle: u64,
}

impl Look {
    pub(super) fn at(control: &Control) -> Self {
        let frames = control.count().load(Ordering::Relaxed);
        Self { at: Instant::now(), frames, idle: control.idle().load(Ordering::Relaxed) }
    }
}

impl Turns {
    /// Counts what a running call did between two looks.
    pub(super) fn add(&self, before: &Look, now: &Look) {
        let ns = now.at.duration_since(before.at).as_nanos() as u64;
        let (frames, idle) = (now.frames - before.frames, now.idle - before.idle);
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.idle.fetch_add(idle, Ordering::Relaxed);
        self.call_ns.fetch_add(ns, Ordering::Relaxed);
        if frames == 0 {
            self.quiet_idle.fetch_add(idle, Ordering::Relaxed);
            self.quiet_ns.fetch_add(ns, Ordering::Relaxed);
        }
    }

    /// By name, for the metadata: frames and idle turns, how long the calls ran, and the part of the two while there was
    /// nothing to send.
    pub(super) fn counters(&self) -> BTreeMap<String, u64> {
        [
            ("live_frames", &self.frames),
            ("live_idle_turns", &self.idle),
            ("live_call_ns", &self.call_ns),
            ("live_quiet_turns", &self.quiet_idle),
            ("live_quiet_ns", &self.quiet_ns),
        ]
        .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
        .into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_time_without_any_frame_tells_what_an_idle_turn_takes() {
        let start = Instant::now();
        let look = |ms, frames, idle| Look { at: start + Duration::from_millis(ms), frames, idle };
        let turns = Turns::default();
        turns.add(&look(0, 100, 10), &look(5, 1_100, 60));
        turns.add(&look(5, 1_100, 60), &look(10, 1_100, 90_060));
        let expected = [
            ("live_frames", 1_000),
            ("live_idle_turns", 90_050),
            ("live_call_ns", 10_000_000),
            ("live_quiet_turns", 90_000),
            ("live_quiet_ns", 5_000_000),
        ];
        assert_eq!(turns.counters(), expected.map(|(name, count)| (name.to_owned(), count)).into());
    }
}
