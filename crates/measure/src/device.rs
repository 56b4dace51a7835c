//! What a worker thinks of the device that takes its frames: a refusal is a signal to slow down, many are a failure, and a
//! device that takes nothing for long is stuck.

use irl_link::Kicked;

use crate::error::MeasureError;

/// A device that takes nothing for so long is stuck.
const STUCK_NS: u64 = 10_000_000_000;

/// How well a device takes frames.
pub(crate) struct Device {
    /// Refusals in a row before they count as a failure.
    retries: u64,
    /// Kicks in a row of which it took nothing.
    refusals: u64,
    /// When it last took something, or nothing waited.
    took_ns: u64,
}

impl Device {
    pub(crate) fn new(retries: u16, now: u64) -> Self {
        Self { retries: u64::from(retries), refusals: 0, took_ns: now }
    }

    /// It took something, or nothing waits.
    pub(crate) fn is_well(&mut self, now: u64) {
        (self.took_ns, self.refusals) = (now, 0);
    }

    /// What a kick did, after which so many frames wait. Returns whether it has refused too often.
    ///
    /// # Errors
    /// [`MeasureError::Stuck`] when it has taken nothing for 10 s.
    pub(crate) fn kicked(&mut self, kicked: Kicked, waiting: usize, now: u64) -> Result<bool, MeasureError> {
        if kicked.accepted > 0 {
            self.is_well(now);
            return Ok(false);
        }
        // An engine with a thread of its own may not have come to it yet, which is no refusal.
        self.refusals += u64::from(kicked.refused > 0);
        let failed = self.refusals > self.retries;
        if failed {
            self.refusals = 0;
        }
        if now.saturating_sub(self.took_ns) >= STUCK_NS {
            return Err(MeasureError::Stuck { seconds: STUCK_NS / 1_000_000_000, waiting });
        }
        Ok(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Kicked = Kicked { accepted: 0, refused: 1 };

    #[test]
    fn refusals_in_a_row_are_a_failure_and_one_frame_that_leaves_ends_the_row() {
        let mut device = Device::new(2, 0);
        let row = [REFUSED, REFUSED, Kicked { accepted: 1, refused: 1 }, REFUSED, Kicked::default(), REFUSED, REFUSED];
        let failed = row.map(|kicked| device.kicked(kicked, 1, 0).unwrap());
        assert_eq!(failed, [false, false, false, false, false, false, true]);
        assert!(!device.kicked(REFUSED, 1, 0).unwrap(), "the next row begins anew");
    }

    #[test]
    fn what_takes_nothing_for_ten_seconds_is_stuck() {
        let mut device = Device::new(9, 5);
        assert!(device.kicked(Kicked::default(), 7, STUCK_NS + 4).is_ok());
        device.is_well(100);
        assert!(device.kicked(REFUSED, 7, STUCK_NS + 99).is_ok());
        let stuck = device.kicked(Kicked::default(), 7, STUCK_NS + 100).unwrap_err();
        assert!(matches!(stuck, MeasureError::Stuck { seconds: 10, waiting: 7 }), "{stuck}");
    }
}
