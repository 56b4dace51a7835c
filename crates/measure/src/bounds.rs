//! The bounds that end the sending before the targets do.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::scan::ScanConfig;
use crate::shared::Shared;

/// ZMap's patience: the hit rate must stay too low for so long.
const LOW_NS: u64 = 5_000_000_000;
/// Sums over all workers are made so often.
const LOOK_NS: u64 = 100_000_000;

/// Why no more probes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EndedBy {
    /// Every target was probed.
    Targets = 1,
    /// `--max-runtime`.
    MaxRuntime,
    /// `--max-results`.
    MaxResults,
    /// `--min-hitrate`.
    MinHitrate,
    /// `--max-sendto-failures`.
    MaxSendtoFailures,
    /// The reader, or Ctrl-C.
    Stopped,
    /// An error.
    Error,
}

impl EndedBy {
    /// From the number that [`Shared`] keeps; 0 while probes are sent.
    pub(crate) fn from_u8(number: u8) -> Option<Self> {
        use EndedBy::*;
        [Targets, MaxRuntime, MaxResults, MinHitrate, MaxSendtoFailures, Stopped, Error]
            .into_iter()
            .find(|each| *each as u8 == number)
    }
}

/// The bound on rows that all workers share (`--max-results`).
#[derive(Debug)]
pub(crate) struct Results {
    most: u64,
    taken: AtomicU64,
}

impl Results {
    pub(crate) fn new(most: Option<u64>) -> Self {
        Self { most: most.unwrap_or(u64::MAX), taken: AtomicU64::new(0) }
    }

    /// The same where so many are there already.
    pub(crate) fn after(most: Option<u64>, taken: u64) -> Self {
        Self { taken: AtomicU64::new(taken), ..Self::new(most) }
    }

    /// Takes one; `false` when there are enough.
    pub(crate) fn take(&self) -> bool {
        self.most == u64::MAX || self.taken.fetch_add(1, Ordering::Relaxed) < self.most
    }

    /// Whether there are enough.
    fn are_enough(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.most
    }
}

/// One worker's view of the bounds.
pub(crate) struct Bounds {
    deadline_ns: u64,
    min_hitrate: f64,
    max_sendto_failures: u64,
    looked_ns: u64,
    low_since_ns: Option<u64>,
}

impl Bounds {
    pub(crate) fn new(config: &ScanConfig, now: u64) -> Self {
        Self {
            deadline_ns: config.max_runtime.map_or(u64::MAX, |time| now.saturating_add(time.as_nanos() as u64)),
            min_hitrate: config.min_hitrate,
            max_sendto_failures: config.max_sendto_failures.unwrap_or(u64::MAX),
            looked_ns: now,
            low_since_ns: None,
        }
    }

    /// The bound that is reached, if any.
    pub(crate) fn reached(&mut self, shared: &Shared, now: u64) -> Option<EndedBy> {
        if now >= self.deadline_ns {
            return Some(EndedBy::MaxRuntime);
        }
        if shared.results.are_enough() {
            return Some(EndedBy::MaxResults);
        }
        if now.saturating_sub(self.looked_ns) < LOOK_NS {
            return None;
        }
        self.looked_ns = now;
        let (mut sent, mut found, mut failures) = (0, 0, 0);
        for each in &shared.counters {
            sent += each.probes_sent.load(Ordering::Relaxed);
            found += each.found.load(Ordering::Relaxed);
            failures += each.sendto_failures.load(Ordering::Relaxed);
        }
        if failures > self.max_sendto_failures {
            return Some(EndedBy::MaxSendtoFailures);
        }
        if (found as f64) * 100.0 >= self.min_hitrate * sent as f64 {
            self.low_since_ns = None;
        } else if now - *self.low_since_ns.get_or_insert(now) >= LOW_NS {
            return Some(EndedBy::MinHitrate);
        }
        None
    }
}
