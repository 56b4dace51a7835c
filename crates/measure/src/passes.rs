//! Passes over the targets (`--reprobe`): the first probes all of them, each later one those that are still silent.
//!
//! Workers walk a pass together, in the plan's order, and wait at its end: until all are through, and then until the
//! answers to its last probes had their time. What still comes later counts all the same, since every pass's answers
//! are recognised in every other; all that is lost is a probe that was not needed.

use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Place;
use crate::error::MeasureError;
use crate::loss::recheck::Again;
use crate::map::{AnsweredMap, Dedup};
use crate::scan::ScanConfig;
use crate::stats::Stats;

/// How long answers have between two passes, unless the cooldown is shorter: as long as a TCP waits that knows nothing
/// of the path yet, before it sends its SYN again (RFC 6298, 2.1).
const WAIT: Duration = Duration::from_secs(1);

/// One pass, for metadata.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pass {
    /// Its number, from 0. Probe k of n of a target leaves it as probe number `pass * n + k`.
    pub pass: u16,
    /// Targets that it took: all of them, or those that were silent.
    pub targets: u64,
    /// Probes that the device took in it.
    pub sent: u64,
    /// Targets found from its first probe to the next pass's, late answers to earlier passes among them.
    pub found: u64,
    /// Targets first heard of in that time, whatever they said.
    pub answered: u64,
    /// Whether it probed a sample again, found or not (`--recheck`).
    pub recheck: bool,
    /// When it began, in seconds since the run began.
    pub start_s: f64,
    /// When its last probe had left; `None` as long as that has not happened.
    pub end_s: Option<f64>,
}

/// Where the workers of a run are in its passes.
#[derive(Debug)]
pub(crate) struct Passes {
    /// The number of the last one.
    last: u16,
    /// What the last one probes again, where it is no pass over the silent.
    recheck: Option<Again>,
    wait_ns: u64,
    /// The wait before that one.
    recheck_wait_ns: u64,
    /// Workers that go on to the next pass: all but those whose interface went.
    workers: AtomicUsize,
    current: AtomicU16,
    /// Workers that are not through the current one.
    walking: AtomicUsize,
    /// When the last worker that is through it was.
    walked_ns: AtomicU64,
    /// Positions of the current one handed to workers, where it is not the first.
    watermark: AtomicU64,
    /// How each pass so far began.
    begun: Mutex<Vec<Begin>>,
    /// When this session began, in seconds since the run did.
    offset_s: f64,
}

/// The beginning of a pass.
#[derive(Clone, Debug, Default)]
struct Begin {
    /// What was counted until then.
    before: Stats,
    /// Before 0 where it was in an earlier session, perhaps of another machine.
    at_ns: i64,
    /// When the pass before it was walked.
    walked_ns: i64,
}

/// The same for a checkpoint, in seconds since the run began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begun {
    before: Stats,
    at_s: f64,
    walked_s: f64,
}

impl Passes {
    /// The passes of a run that begins now, with so many workers.
    pub(crate) fn new(workers: usize, config: &ScanConfig, now_ns: u64) -> Self {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let len = config.compiled.len();
        let recheck = config.recheck.map(|share| Again::new(share, len, config.plan.seed));
        Self {
            last: config.reprobe + u16::from(recheck.is_some()),
            recheck,
            wait_ns: ns(config.reprobe_wait.unwrap_or(config.cooldown.min(WAIT))),
            recheck_wait_ns: ns(config.cooldown),
            ..Self::of(workers, now_ns)
        }
    }

    /// A single pass.
    pub(crate) fn of(workers: usize, now_ns: u64) -> Self {
        Self {
            last: 0,
            recheck: None,
            wait_ns: 0,
            recheck_wait_ns: 0,
            workers: AtomicUsize::new(workers),
            current: AtomicU16::new(0),
            walking: AtomicUsize::new(workers),
            walked_ns: AtomicU64::new(now_ns),
            watermark: AtomicU64::new(0),
            begun: Mutex::new(vec![Begin { at_ns: now_ns as i64, ..Begin::default() }]),
            offset_s: 0.0,
        }
    }

    /// What this pass probes again, if it is one over a sample.
    #[inline]
    pub(crate) fn again(&self, pass: u16) -> Option<Again> {
        if pass == self.last { self.recheck } else { None }
    }

    /// Passes over all or the silent that were walked to their end; of a run whose targets came to theirs that are all.
    pub(crate) fn walked(&self, ended: bool) -> u16 {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).len() as u16;
        let over = begun - u16::from(!ended);
        over.min(self.last + u16::from(self.recheck.is_none()))
    }

    /// Goes on from a place, by what a checkpoint says of the passes until it.
    pub(crate) fn resume(&mut self, place: Place, begun: &[Begun], started_ns: u64, offset_s: f64) {
        self.offset_s = offset_s;
        self.current = AtomicU16::new(place.pass);
        self.watermark = AtomicU64::new(place.position);
        let ns = |seconds: f64| started_ns as i64 + ((seconds - offset_s) * 1e9) as i64;
        let begin =
            |each: &Begun| Begin { before: each.before.clone(), at_ns: ns(each.at_s), walked_ns: ns(each.walked_s) };
        if !begun.is_empty() {
            // Those of passes that had begun after the place will begin again.
            *self.begun.get_mut().unwrap_or_else(PoisonError::into_inner) =
                begun.iter().take(usize::from(place.pass) + 1).map(begin).collect();
        }
    }

    /// How the passes so far began, for a checkpoint.
    pub(crate) fn begun(&self, started_ns: u64) -> Vec<Begun> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = |ns| self.seconds(ns, started_ns);
        let of = |begin: &Begin| Begun {
            before: begin.before.clone(),
            at_s: seconds(begin.at_ns),
            walked_s: seconds(begin.walked_ns),
        };
        begun.iter().map(of).collect()
    }

    /// Since the run began.
    fn seconds(&self, ns: i64, started_ns: u64) -> f64 {
        ns.saturating_sub(started_ns as i64) as f64 / 1e9 + self.offset_s
    }

    /// The number of the pass that is walked, or waited after.
    pub(crate) fn current(&self) -> u16 {
        self.current.load(Ordering::Acquire)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::from(self.last) + 1
    }

    /// Positions of the current pass handed to workers, where it is not the first.
    pub(crate) fn watermark(&self) -> &AtomicU64 {
        &self.watermark
    }

    /// Whether no other follows this one: it is the last, or nobody is silent for whom there would be one.
    pub(crate) fn is_last(&self, pass: u16, all_answered: impl FnOnce() -> bool) -> bool {
        pass >= self.last || (self.recheck.is_none() && all_answered())
    }

    /// One worker is through the current pass: its last frame has left.
    pub(crate) fn leave(&self, now_ns: u64) {
        self.walked_ns.fetch_max(now_ns, Ordering::AcqRel);
        self.walking.fetch_sub(1, Ordering::AcqRel);
    }

    /// One worker comes to no other pass, because its interface went while it was in `pass`, through which it was or not.
    pub(crate) fn lose(&self, pass: u16, walked: bool, now_ns: u64) {
        // Not while another begins a pass.
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        self.workers.fetch_sub(1, Ordering::AcqRel);
        if !walked || self.current() > pass {
            self.leave(now_ns);
        }
        drop(begun);
    }

    /// Whether a worker that has left `pass` may go on to the next one. The first worker to come when the wait is over
    /// begins it; `stats` are the counts until then.
    pub(crate) fn may_go_on(&self, pass: u16, now_ns: u64, stats: impl FnOnce() -> Stats) -> bool {
        if self.current() > pass {
            return true;
        }
        // Once nobody walks, nobody moves this time any more.
        if self.walking.load(Ordering::Acquire) > 0 {
            return false;
        }
        let walked_ns = self.walked_ns.load(Ordering::Acquire);
        let wait_ns = if self.again(pass + 1).is_some() { self.recheck_wait_ns } else { self.wait_ns };
        if now_ns.saturating_sub(walked_ns) < wait_ns {
            return false;
        }
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody can have left the next pass before this worker has, so that 0 still means this one.
        let workers = self.workers.load(Ordering::Acquire);
        if self.walking.compare_exchange(0, workers, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        begun.push(Begin { before: stats(), at_ns: now_ns as i64, walked_ns: walked_ns as i64 });
        self.watermark.store(0, Ordering::Release);
        self.current.store(pass + 1, Ordering::Release);
        true
    }

    /// The passes so far, given all counts so far.
    pub(crate) fn report(&self, stats: &Stats, started_ns: u64) -> Vec<Pass> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = |ns: i64| self.seconds(ns, started_ns);
        let walked = (self.walking.load(Ordering::Acquire) == 0).then(|| self.walked_ns.load(Ordering::Acquire) as i64);
        let pass = |(number, begin): (usize, &Begin)| {
            let next = begun.get(number + 1);
            let (before, after) = (&begin.before, next.map_or(stats, |next| &next.before));
            Pass {
                // There are no more than `last` + 1, which has 16 bits.
                pass: number as u16,
                targets: after.targets + after.reprobed - before.targets - before.reprobed,
                sent: after.probes_sent - before.probes_sent,
                found: after.found - before.found,
                answered: after.answered - before.answered,
                recheck: self.again(number as u16).is_some(),
                start_s: seconds(begin.at_ns),
                end_s: next.map(|next| next.walked_ns).or(walked).map(seconds),
            }
        };
        begun.iter().enumerate().map(pass).collect()
    }

    /// Probes of the whole run when nothing ends it early, for a shard of `len` positions and so many probes a target
    /// and pass. Of passes to come it is an estimate, from the share that is silent so far.
    pub(crate) fn planned(&self, stats: &Stats, len: u64, probes: u16) -> u64 {
        let all = len.saturating_mul(u64::from(probes));
        let over_silent = self.last - u16::from(self.recheck.is_some());
        let again = self.recheck.map_or(0, Again::count);
        if over_silent == 0 {
            return all + again;
        }
        let current = self.current();
        if current > over_silent {
            return (stats.targets + stats.reprobed).max(again);
        }
        let to_come = f64::from(over_silent - current);
        if current == 0 {
            let silent = 1.0 - (stats.answered as f64 / stats.targets.max(1) as f64).min(1.0);
            return (all as f64 * (1.0 + silent * to_come)) as u64 + again;
        }
        let silent = len.saturating_sub(stats.answered) as f64;
        let walked = self.watermark.load(Ordering::Acquire).min(len) as f64 / len.max(1) as f64;
        let rest = silent * (1.0 - walked) + silent * to_come;
        (stats.targets + stats.reprobed + rest as u64).saturating_mul(u64::from(probes)) + again
    }
}

/// Probes that one target may get in all passes together: so many numbers its answers are told apart by.
pub(crate) fn numbers(config: &ScanConfig) -> u16 {
    // More were refused by `map`.
    let probes = config.plan.probes.max(1).saturating_mul(config.reprobe.saturating_add(1));
    probes.saturating_add(u16::from(config.recheck.is_some()))
}

/// The number that a SYN leaves with in this pass where it is sent as a TCP's: once more from the same port, as a TCP
/// sends it again, and after that from the next one. Whoever holds the first pair of ports for an older connection, as a
/// peer in TIME-WAIT does, would leave every SYN on it unanswered (RFC 9293, 3.10.7.4).
pub(crate) fn syn_number(pass: u16) -> u16 {
    pass / 2
}

/// How many of these numbers there are.
pub(crate) fn syn_numbers(config: &ScanConfig) -> u16 {
    syn_number(config.reprobe) + 1
}

/// The answered map of a run. One that forgets would have targets probed again, and found again, that have answered.
///
/// # Errors
/// [`MeasureError::Config`] when later passes are wanted and it cannot be exact, or there are more of them than probes
/// have numbers, and those of [`AnsweredMap::new`].
pub(crate) fn map(config: &ScanConfig) -> Result<AnsweredMap, MeasureError> {
    let probes = u64::from(config.plan.probes.max(1));
    let all = probes * (u64::from(config.reprobe) + 1) + u64::from(config.recheck.is_some());
    if all > u64::from(u16::MAX) {
        return Err(MeasureError::Config(format!(
            "--reprobe {} with --probes {probes} comes to {all} probes of one target, and there are numbers for {}: \
             give less of either",
            config.reprobe,
            u16::MAX
        )));
    }
    let slots = config.compiled.slots();
    let needed = AnsweredMap::exact_bytes(slots);
    if let Some(share) = config.recheck
        && !(share > 0.0 && share <= 1.0)
    {
        return Err(MeasureError::Config(format!(
            "--recheck {share} is no share of the targets: give more than 0 and at most 1, such as 0.1%"
        )));
    }
    if config.recheck.is_some() && !(config.recheck_rate > 0.0 && config.recheck_rate.is_finite()) {
        return Err(MeasureError::Config(format!(
            "--recheck-rate {} is not possible: give probes a second, above 0",
            config.recheck_rate
        )));
    }
    let later = match (config.reprobe, config.recheck) {
        (0, None) => None,
        (0, Some(_)) => Some("--recheck"),
        _ => Some("--reprobe"),
    };
    if let Some(later) = later
        && (config.dedup == Dedup::Window || needed > u128::from(config.max_memory))
    {
        let instead = match config.dedup {
            Dedup::Window => "take another --dedup-method than window".to_owned(),
            _ => "give --max-memory as much, or probe fewer targets".to_owned(),
        };
        return Err(MeasureError::Config(format!(
            "{later} has to know of each of {slots} targets whether it has answered, which takes {needed} bytes: \
             {instead}"
        )));
    }
    let map = AnsweredMap::new(slots, config.max_memory, config.workers.max(1), config.dedup)?;
    if let Some(saved) = &config.resume {
        saved.restore(&map, slots)?;
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn passes_of(workers: usize, reprobe: u16, wait: Duration) -> Passes {
        Passes { last: reprobe, wait_ns: wait.min(WAIT).as_nanos() as u64, ..Passes::of(workers, 0) }
    }

    fn stats(targets: u64, reprobed: u64, answered: u64) -> Stats {
        Stats { targets, reprobed, answered, probes_sent: targets + reprobed, ..Stats::default() }
    }

    #[test]
    fn the_next_pass_begins_when_all_are_through_and_answers_had_their_time() {
        let passes = passes_of(2, 1, Duration::from_millis(300));
        let go_on = |now| passes.may_go_on(0, now * MS, || stats(100, 0, 60));
        passes.leave(10 * MS);
        assert!(!go_on(5000), "the other walks");
        passes.leave(5000 * MS);
        assert!(!go_on(5299));
        passes.watermark().store(7, Ordering::Relaxed);
        assert!(go_on(5300));
        assert_eq!((passes.current(), passes.watermark().load(Ordering::Relaxed)), (1, 0));
        passes.watermark().store(9, Ordering::Relaxed);
        assert!(go_on(5301) && passes.watermark().load(Ordering::Relaxed) == 9, "it begins once");
        assert!(passes.is_last(1, || false) && !passes.is_last(0, || false) && passes.is_last(0, || true));
        passes.leave(6000 * MS);
        let report = passes.report(&stats(100, 40, 70), 0);
        let of = |number: usize| (report[number].targets, report[number].sent, report[number].answered);
        assert_eq!((of(0), of(1)), ((100, 100, 60), (40, 40, 10)));
        assert_eq!((report[0].start_s, report[0].end_s, report[1].start_s), (0.0, Some(5.0), 5.3));
        assert_eq!(report[1].end_s, None, "one still walks");
        passes.leave(7000 * MS);
        assert_eq!(passes.report(&stats(100, 40, 70), 0)[1].end_s, Some(7.0));
    }

    #[test]
    fn a_worker_whose_interface_goes_is_waited_for_by_nobody() {
        let go_on = |passes: &Passes| passes.may_go_on(0, 0, Stats::default);
        let passes = passes_of(2, 2, Duration::ZERO);
        passes.leave(0);
        assert!(!go_on(&passes));
        passes.lose(0, false, 0);
        assert!(go_on(&passes), "in its first pass");
        passes.leave(0);
        assert!(passes.may_go_on(1, 0, Stats::default), "and in no later one");

        let passes = passes_of(2, 2, Duration::ZERO);
        passes.leave(0);
        passes.leave(0);
        passes.lose(0, true, 0);
        assert!(go_on(&passes), "through its pass, and gone before the next");
        passes.leave(0);
        assert!(passes.may_go_on(1, 0, Stats::default));

        let passes = passes_of(2, 2, Duration::ZERO);
        passes.leave(0);
        passes.leave(0);
        assert!(go_on(&passes));
        passes.lose(0, true, 0);
        assert!(!passes.may_go_on(1, 0, Stats::default), "the other walks");
        passes.leave(0);
        assert!(passes.may_go_on(1, 0, Stats::default), "gone before it entered the next");
    }

    #[test]
    fn no_wait_is_longer_than_a_second_or_the_cooldown() {
        for (cooldown_ms, wait_ms) in [(0, 0), (200, 200), (8000, 1000)] {
            let passes = passes_of(1, 1, Duration::from_millis(cooldown_ms));
            passes.leave(0);
            assert!(wait_ms == 0 || !passes.may_go_on(0, wait_ms * MS - 1, Stats::default));
            assert!(passes.may_go_on(0, wait_ms * MS, Stats::default));
        }
    }

    #[test]
    fn the_probes_to_come_are_estimated_by_the_share_that_is_silent() {
        let one = passes_of(1, 0, WAIT);
        assert_eq!(one.planned(&stats(10, 0, 5), 1000, 2), 2000);
        let passes = passes_of(1, 2, Duration::ZERO);
        assert_eq!(passes.planned(&stats(0, 0, 0), 1000, 1), 3000, "nothing is known yet");
        assert_eq!(passes.planned(&stats(100, 0, 75), 1000, 1), 1500);
        passes.leave(0);
        assert!(passes.may_go_on(0, 0, || stats(1000, 0, 800)));
        // Half of the pass is walked, 60 of its 200 were heard of since: 140 are silent.
        passes.watermark().store(500, Ordering::Relaxed);
        assert_eq!(passes.planned(&stats(1000, 100, 860), 1000, 1), 1100 + 70 + 140);
        passes.watermark().store(1256, Ordering::Relaxed);
        passes.leave(0);
        assert!(passes.may_go_on(1, 0, || stats(1000, 170, 900)));
        passes.watermark().store(1256, Ordering::Relaxed);
        assert_eq!(passes.planned(&stats(1000, 270, 950), 1000, 1), 1270, "what was sent, at the end");
    }
}
