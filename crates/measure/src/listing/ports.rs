//! Which of our ports a target may be reached from: the same pair of ends is not used again within a minute, since the
//! peer may still have the old connection in TIME-WAIT (RFC 9293, 3.6.1; Linux waits 60 s).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// How long the ends of a connection are left alone after it.
pub(super) const QUIET_NS: u64 = 60_000_000_000;

/// Hashes are spread already.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, value: u32) {
        // Tables look at the highest bits, and at the lowest.
        self.0 = u64::from(value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Uses = HashMap<u32, u16, BuildHasherDefault<Spread>>;

/// How many of its ports each target has used since it was last left alone for a minute: the number of its next probe.
///
/// Targets are known by 32 bits of their hash. Two that share them use ports as if they were one, which harms nobody.
#[derive(Debug)]
pub(super) struct Ports {
    /// How many there are.
    numbers: u32,
    /// Of the minute that began then, and of the one before.
    since_ns: u64,
    current: Uses,
    previous: Uses,
}

impl Ports {
    pub(super) fn new(numbers: u32, now_ns: u64) -> Self {
        Self { numbers, since_ns: now_ns, current: Uses::default(), previous: Uses::default() }
    }

    pub(super) fn bytes(&self) -> usize {
        // A control byte beside each place, of which 7 in 8 may be taken.
        let one = |uses: &Uses| uses.capacity() * 8 / 7 * (size_of::<(u32, u16)>() + 1);
        one(&self.current) + one(&self.previous)
    }

    /// Forgets what is old enough. Whether something was forgotten, so that who waits may find a port.
    pub(super) fn tick(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.since_ns) < QUIET_NS {
            return false;
        }
        // After a longer pause both are old.
        let old = now_ns.saturating_sub(self.since_ns) >= 2 * QUIET_NS;
        self.previous = std::mem::take(&mut self.current);
        if old {
            self.previous = Uses::default();
        }
        self.since_ns = now_ns;
        true
    }

    /// The number of the probe that a target may get next; `None` while all ports are used.
    pub(super) fn next(&self, hash: u64) -> Option<u16> {
        let used = self.used(hash);
        (u32::from(used) < self.numbers.min(u32::from(u16::MAX))).then_some(used)
    }

    /// The next probe's port was used until now.
    pub(super) fn leave(&mut self, hash: u64) {
        let used = self.used(hash).saturating_add(1);
        self.current.insert(hash as u32, used);
    }

    fn used(&self, hash: u64) -> u16 {
        let key = hash as u32;
        self.current.get(&key).or_else(|| self.previous.get(&key)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_port_is_not_used_again_within_a_minute() {
        let mut ports = Ports::new(3, 0);
        for number in 0..3 {
            assert_eq!(ports.next(7), Some(number));
            ports.leave(7);
        }
        assert_eq!(ports.next(7), None, "all are used");
        assert_eq!(ports.next(8), Some(0), "another target's are not");
        assert!(!ports.tick(59 * S));
        assert!(ports.tick(60 * S));
        assert_eq!(ports.next(7), None, "the last one may have been used a moment ago");
        assert!(ports.tick(120 * S));
        assert_eq!(ports.next(7), Some(0));
    }

    #[test]
    fn use_goes_on_counting_while_the_target_is_not_left_alone() {
        let mut ports = Ports::new(100, 0);
        for minute in 1..10 {
            ports.leave(7);
            ports.tick(minute * 60 * S);
            assert_eq!(ports.next(7), Some(minute as u16));
        }
    }

    #[test]
    fn after_a_long_pause_all_is_forgotten() {
        let mut ports = Ports::new(2, 0);
        ports.leave(7);
        assert!(ports.tick(500 * S));
        assert_eq!(ports.next(7), Some(0));
        assert_eq!(ports.bytes(), 0);
    }
}
