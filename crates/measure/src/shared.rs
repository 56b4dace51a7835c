//! What the workers of a run share, and their places in its counts.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use irl_link::capture::Sample as Capture;
use irl_link::{Replayed, clock};
use irl_targets::Target;

use crate::bounds::{EndedBy, Results};
use crate::budget::Budget;
use crate::checkpoint::{Saved, Session};
use crate::error::MeasureError;
use crate::loss::Sample;
use crate::loss::recheck::Heard;
use crate::map::AnsweredMap;
use crate::passes::Passes;
use crate::stats::{Stats, WorkerCounters};
use crate::status::Second;

/// How often is written down where a run is.
const SECOND_NS: u64 = 1_000_000_000;

/// What the workers of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) map: AnsweredMap,
    pub(crate) results: Results,
    /// Positions of the first pass handed to workers.
    pub(crate) watermark: AtomicU64,
    pub(crate) passes: Passes,
    /// What each network may still get (`--prefix-budget`).
    pub(crate) budget: Option<Budget>,
    /// By which probes targets were found, where that tells something of losses.
    pub(crate) sample: Option<Sample>,
    /// Who answered when probed again at the end.
    pub(crate) heard: Heard,
    /// Positions looked at for the silent, at the end.
    pub(crate) told: AtomicU64,
    /// Targets that a worker had taken and not probed when its interface went, and how many there are.
    returned: Mutex<Vec<(u64, Target)>>,
    returned_count: AtomicUsize,
    /// Nothing more leaves, nothing more is read.
    pub(crate) stop: AtomicBool,
    /// No more probes; answers are read for the cooldown.
    pub(crate) halt: AtomicBool,
    /// The first reason why no more probes are sent, an [`EndedBy`]; 0 while they are.
    pub(crate) ended_by: AtomicU8,
    pub(crate) sending: AtomicUsize,
    pub(crate) running: AtomicUsize,
    /// Probes a second of all workers, as the bits of an f64; 0 searches.
    pub(crate) rate: AtomicU64,
    pub(crate) counters: Vec<WorkerCounters>,
    pub(crate) overruns: Vec<AtomicU64>,
    pub(crate) seconds: Mutex<Vec<Second>>,
    /// When the next of them is over.
    second_ends_ns: AtomicU64,
    pub(crate) error: Mutex<Option<MeasureError>>,
    /// The first probe of all, as it was built.
    pub(crate) first_frame: Mutex<Option<Vec<u8>>>,
    pub(crate) started_ns: u64,
    pub(crate) started_utc_ns: i64,
    pub(crate) first_frame_ns: AtomicU64,
    pub(crate) last_frame_ns: AtomicU64,
    pub(crate) ended_ns: AtomicU64,
    pub(crate) behind: Behind,
    /// The sample of frames that is kept.
    pub(crate) capture: Option<Arc<Capture>>,
    /// What is known of the answers' times where they came before.
    pub(crate) replayed: Option<Replayed>,
}

/// What a run has behind it that is gone on with; nothing where it begins.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    pub(crate) stats: Stats,
    pub(crate) seconds: Vec<Second>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) first_frame_utc_ns: i64,
    pub(crate) send_s: f64,
    /// When this session began, in seconds since the first one did.
    pub(crate) offset_s: f64,
}

impl Shared {
    /// The state of a run that begins now, with so many workers.
    pub(crate) fn new(workers: usize, map: AnsweredMap, passes: Passes, max_results: Option<u64>, rate: f64) -> Self {
        let started_ns = clock::now_ns();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            map,
            results: Results::new(max_results),
            watermark: AtomicU64::new(0),
            passes,
            budget: None,
            sample: None,
            heard: Heard::default(),
            told: AtomicU64::new(0),
            returned: Mutex::default(),
            returned_count: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            halt: AtomicBool::new(false),
            ended_by: AtomicU8::new(0),
            sending: AtomicUsize::new(workers),
            running: AtomicUsize::new(workers),
            rate: AtomicU64::new(rate.to_bits()),
            counters: (0..workers).map(|_| WorkerCounters::default()).collect(),
            overruns: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            seconds: Mutex::default(),
            second_ends_ns: AtomicU64::new(started_ns + SECOND_NS),
            error: Mutex::new(None),
            first_frame: Mutex::new(None),
            started_ns,
            started_utc_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            first_frame_ns: AtomicU64::new(0),
            last_frame_ns: AtomicU64::new(0),
            ended_ns: AtomicU64::new(0),
            behind: Behind::default(),
            capture: None,
            replayed: None,
        }
    }

    /// Whether a target may be probed now: its network has a turn, and `may_probe` says so too.
    #[inline]
    pub(crate) fn may_probe(&self, target: Target, now: u64, may_probe: impl FnOnce() -> bool) -> bool {
        match &self.budget {
            None => may_probe(),
            Some(budget) => budget.has_room(target.address, now) && may_probe() && budget.take(target.address, now),
        }
    }

    /// Goes on from what was saved.
    pub(crate) fn resume(&mut self, saved: &Saved, max_results: Option<u64>, positions: u64) {
        let (place, stats) = (saved.place(), saved.stats());
        let since = saved.sessions().first().map_or(self.started_utc_ns, |first| first.start_utc_ns);
        let offset_s = (self.started_utc_ns - since) as f64 / 1e9;
        // The clock may be another one, and behind.
        let offset_s = saved.seconds().iter().map(|second| second.elapsed_s).fold(offset_s, f64::max);
        self.results = Results::after(max_results, stats.rows);
        self.watermark = AtomicU64::new(if place.pass == 0 { place.position } else { positions });
        let commit = saved.commit();
        let begun = commit.map_or(&[][..], |commit| &commit.passes);
        self.passes.resume(place, begun, self.started_ns, offset_s);
        self.behind = Behind {
            stats,
            seconds: saved.seconds().to_vec(),
            sessions: saved.sessions().to_vec(),
            first_frame_utc_ns: commit.map_or(0, |commit| commit.first_frame_utc_ns),
            send_s: commit.map_or(0.0, |commit| commit.send_s),
            offset_s,
        };
    }

    /// Remembers why no more probes are sent, unless there was a reason before.
    pub(crate) fn end(&self, by: EndedBy) {
        let _ = self.ended_by.compare_exchange(0, by as u8, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Ends the run because of an error; the first one is kept.
    pub(crate) fn fail(&self, error: MeasureError) {
        self.end(EndedBy::Error);
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.store(true, Ordering::Release);
    }

    /// Keeps an error that ends a worker, and not the run, and what it leaves for the others to probe.
    pub(crate) fn lose(&self, error: MeasureError, left: Vec<(u64, Target)>) {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.extend(left);
        self.returned_count.store(returned.len(), Ordering::Release);
        drop(returned);
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Whether a worker left something for the others.
    pub(crate) fn has_returned(&self) -> bool {
        self.returned_count.load(Ordering::Acquire) > 0
    }

    /// Moves at most so many of the targets that were given back.
    pub(crate) fn take_returned(&self, most: usize, into: &mut Vec<(u64, Target)>) {
        if self.has_returned() {
            let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
            let rest = returned.len().saturating_sub(most);
            into.extend(returned.drain(rest..));
            self.returned_count.store(returned.len(), Ordering::Release);
        }
    }

    /// What is added to the monotonic clock for UTC, in ns.
    pub(crate) fn utc_minus_mono(&self) -> i64 {
        match self.replayed {
            Some(Replayed { utc_minus_mono }) => utc_minus_mono.unwrap_or_default(),
            None => self.started_utc_ns - self.started_ns as i64,
        }
    }

    /// Whether the clock of records is the one of which probes carry times.
    pub(crate) fn knows_rtt(&self) -> bool {
        self.replayed.is_none_or(|replayed| replayed.utc_minus_mono.is_some())
    }

    /// All counters so far.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::gather(&self.counters);
        stats.unprobed += self.returned_count.load(Ordering::Acquire) as u64;
        stats.overruns = self.behind.stats.overruns;
        stats.overruns += self.overruns.iter().map(|each| each.load(Ordering::Relaxed)).sum::<u64>();
        let end = match self.ended_ns.load(Ordering::Acquire) {
            0 => clock::now_ns(),
            end => end,
        };
        stats.add(&self.behind.stats);
        stats.elapsed_s = end.saturating_sub(self.started_ns) as f64 / 1e9 + self.behind.stats.elapsed_s;
        stats.rate = f64::from_bits(self.rate.load(Ordering::Acquire));
        stats.sending = self.sending.load(Ordering::Acquire) > 0;
        stats.pass = self.passes.current();
        stats.passes = self.passes.count();
        stats
    }

    /// Positions of a pass handed to workers.
    pub(crate) fn positions(&self, pass: u16) -> &AtomicU64 {
        if pass == 0 { &self.watermark } else { self.passes.watermark() }
    }

    /// Writes down where the run is when a second is over. Whichever worker comes first does it, since any of them may end
    /// before the others.
    pub(crate) fn note_if_due(&self, now: u64) {
        let due = self.second_ends_ns.load(Ordering::Relaxed);
        let next = due + SECOND_NS;
        if now >= due && self.second_ends_ns.compare_exchange(due, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.note();
        }
    }

    /// Writes down where the run is.
    fn note(&self) {
        let stats = self.stats();
        let pass_watermark = self.positions(stats.pass).load(Ordering::Acquire);
        let mut second = Second::new(&stats, self.watermark.load(Ordering::Acquire), pass_watermark);
        // By the wall clock, so that it is known when something was probed.
        second.elapsed_s += self.behind.offset_s - self.behind.stats.elapsed_s;
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner).push(second);
    }
}

/// Holds a worker's place in the counts of those that send and run. It goes with the worker, however that ends: the
/// others and the reader would wait for ever for one that is counted and gone.
pub(crate) struct Place {
    shared: Arc<Shared>,
    sends: bool,
}

impl Place {
    /// A worker's place in the counts, in which it is already.
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), sends: true }
    }

    /// It has sent its last probe.
    pub(crate) fn sends_no_more(&mut self) {
        if std::mem::take(&mut self.sends) {
            self.shared.sending.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sends_no_more();
        if std::thread::panicking() {
            self.shared.fail(MeasureError::Worker("it panicked while it ended".to_owned()));
        }
        if self.shared.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            if self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                // Of interfaces that went, the last one's is the run's end.
                self.shared.end(EndedBy::Error);
            }
            self.shared.ended_ns.store(clock::now_ns(), Ordering::Release);
            self.shared.note();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_leaves_is_taken_by_the_others_once_and_counted_until_then() {
        let map = AnsweredMap::new(1, 4096, 2, crate::map::Dedup::Best).unwrap();
        let passes = Passes::of(2, 0);
        let shared = Shared::new(2, map, passes, None, 1.0);
        let left: Vec<_> = (0..5).map(|number| (number, Target::default())).collect();
        shared.lose(MeasureError::Config("it went".to_owned()), left.clone());
        assert!(!shared.stop.load(Ordering::Acquire), "the others go on");
        assert_eq!((shared.has_returned(), shared.stats().unprobed), (true, 5));
        let mut taken = Vec::new();
        shared.take_returned(2, &mut taken);
        assert_eq!((taken.len(), shared.stats().unprobed), (2, 3));
        shared.take_returned(4, &mut taken);
        taken.sort_by_key(|(number, _)| *number);
        assert_eq!(taken, left);
        assert_eq!((shared.has_returned(), shared.stats().unprobed), (false, 0));
        assert!(shared.error.lock().unwrap().is_some());
    }

    #[test]
    fn a_worker_that_panics_wherever_it_is_leaves_its_place_and_a_reason() {
        let map = AnsweredMap::new(1, 4096, 2, crate::map::Dedup::Best).unwrap();
        let passes = Passes::of(2, 0);
        let shared = Arc::new(Shared::new(2, map, passes, None, 1.0));
        let mut places = [Place::new(&shared), Place::new(&shared)].into_iter();
        let counts = || (shared.sending.load(Ordering::Acquire), shared.running.load(Ordering::Acquire));
        let mut place = places.next().unwrap();
        place.sends_no_more();
        place.sends_no_more();
        assert_eq!(counts(), (1, 2));
        drop(place);
        assert_eq!(counts(), (1, 1));
        assert!(!shared.stop.load(Ordering::Acquire) && shared.ended_ns.load(Ordering::Acquire) == 0);
        let last = places.next().unwrap();
        let panicked = std::thread::spawn(move || {
            let _last = last;
            panic!("a bug");
        });
        assert!(panicked.join().is_err());
        assert_eq!(counts(), (0, 0));
        assert!(shared.stop.load(Ordering::Acquire) && shared.ended_ns.load(Ordering::Acquire) > 0);
        assert!(matches!(*shared.error.lock().unwrap(), Some(MeasureError::Worker(_))));
    }
}
