//! How far a run is in its plan: which positions were probed so long ago that their answers are in the rows.
//!
//! A worker says with the rows that it hands over what of them it knew, and from which position on it may still have
//! something to do. What all workers are past, and were past a cooldown before each of them last read its answers, is done:
//! every row about it was handed over.

use std::collections::VecDeque;

use irl_link::ClassCounters;
use serde::{Deserialize, Serialize};

use super::marks::Marks;
use crate::stats::Stats;

/// A place in the passes over a plan's shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) pass: u16,
    pub(crate) position: u64,
}

/// What a worker says with the rows that it hands over.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) worker: usize,
    /// What it had counted.
    pub(crate) stats: Stats,
    /// What it had marked in the map since the last time.
    pub(crate) marks: Marks,
    /// It had read all that came before.
    pub(crate) read_ns: u64,
    /// It has nothing to do before this place.
    pub(crate) place: Place,
    /// Since when.
    pub(crate) past_ns: u64,
}

/// A worker's knowledge of what it is past.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    place: Place,
    past_ns: u64,
    /// It is past this place once so many probes have left.
    leaving: Option<(Place, u64)>,
    pub(crate) read_ns: u64,
    pub(crate) marks: Marks,
}

impl Tracker {
    /// All before `place` is built. It is past it when that has left, too.
    pub(crate) fn look(&mut self, place: Place, probes: &ClassCounters, now_ns: u64) {
        let left = probes.sent + probes.refused_by_policy() + probes.refused_by_device;
        let (place, built) = self.leaving.take_if(|(_, built)| *built <= left).unwrap_or((place, probes.built));
        if built <= left {
            (self.place, self.past_ns) = (place, now_ns);
        } else {
            self.leaving.get_or_insert((place, built));
        }
    }

    /// What to say with the rows that are handed over now.
    pub(crate) fn progress(&mut self, worker: usize, stats: Stats) -> Progress {
        Progress {
            worker,
            stats,
            marks: std::mem::take(&mut self.marks),
            read_ns: self.read_ns,
            place: self.place,
            past_ns: self.past_ns,
        }
    }
}

/// What the workers have said with the rows that were handed over so far.
#[derive(Debug)]
pub(crate) struct Delivered {
    workers: Vec<Option<Latest>>,
    marks: Marks,
    /// When all were past which place; what is older than the answers that were read is done.
    passed: VecDeque<(u64, Place)>,
    done: Place,
}

#[derive(Clone, Debug)]
struct Latest {
    stats: Stats,
    read_ns: u64,
    place: Place,
    past_ns: u64,
}

impl Delivered {
    /// Of so many workers, who begin at this place.
    pub(crate) fn new(workers: usize, start: Place) -> Self {
        Self { workers: vec![None; workers], marks: Marks::default(), passed: VecDeque::new(), done: start }
    }

    /// Takes in what came with rows.
    pub(crate) fn absorb(&mut self, progress: Progress) {
        let Progress { worker, stats, marks, read_ns, place, past_ns } = progress;
        self.marks.append(marks);
        self.workers[worker] = Some(Latest { stats, read_ns, place, past_ns });
        let latest = || self.workers.iter().map(Option::as_ref);
        let all = |of: fn(&Latest) -> (Place, u64)| latest().map(|each| each.map(of)).collect::<Option<Vec<_>>>();
        let Some(places) = all(|each| (each.place, each.past_ns)) else { return };
        let place = places.iter().map(|(place, _)| *place).min().unwrap_or_default();
        let past_ns = places.iter().map(|(_, past_ns)| *past_ns).max().unwrap_or_default();
        if self.passed.back().map_or(self.done, |(_, last)| *last) < place {
            self.passed.push_back((past_ns, place));
        }
    }

    /// Up to where everything is done, when answers take no longer than `wait_ns`.
    pub(crate) fn done(&mut self, wait_ns: u64) -> Place {
        let read = self.workers.iter().map(|each| each.as_ref().map_or(0, |each| each.read_ns)).min().unwrap_or(0);
        while let Some((past_ns, place)) = self.passed.front()
            && past_ns.saturating_add(wait_ns) <= read
        {
            self.done = *place;
            self.passed.pop_front();
        }
        self.done
    }

    /// The same once nothing more is waited for.
    pub(crate) fn all_done(&mut self) -> Place {
        self.done = self.passed.drain(..).next_back().map_or(self.done, |(_, place)| place);
        self.done
    }

    /// The counts that go with the rows so far.
    pub(crate) fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        self.workers.iter().flatten().for_each(|each| sum.add(&each.stats));
        sum
    }

    /// What was marked since the last time.
    pub(crate) fn take_marks(&mut self) -> Marks {
        std::mem::take(&mut self.marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(position: u64) -> Place {
        Place { pass: 0, position }
    }

    fn probes(built: u64, sent: u64) -> ClassCounters {
        ClassCounters { built, sent, ..ClassCounters::default() }
    }

    fn said(worker: usize, position: u64, past_ns: u64, read_ns: u64) -> Progress {
        Progress { worker, stats: Stats::default(), marks: Marks::default(), read_ns, place: at(position), past_ns }
    }

    #[test]
    fn a_worker_is_past_a_place_once_the_probes_before_it_have_left() {
        let mut tracker = Tracker::default();
        tracker.look(at(10), &probes(10, 10), 1);
        assert_eq!((tracker.place, tracker.past_ns), (at(10), 1));
        tracker.look(at(20), &probes(20, 15), 2);
        tracker.look(at(30), &probes(30, 19), 3);
        assert_eq!((tracker.place, tracker.past_ns), (at(10), 1), "frames wait at the device");
        tracker.look(at(40), &probes(40, 20), 4);
        assert_eq!((tracker.place, tracker.past_ns), (at(20), 4));
        tracker.look(at(50), &probes(50, 20), 5);
        assert_eq!(tracker.place, at(20));
        tracker.look(at(60), &probes(60, 50), 6);
        assert_eq!((tracker.place, tracker.past_ns), (at(50), 6));
    }

    #[test]
    fn a_place_is_done_when_all_were_past_it_and_have_read_the_answers() {
        let mut delivered = Delivered::new(2, at(0));
        delivered.absorb(said(0, 100, 10, 10));
        assert_eq!(delivered.done(5), at(0), "of the other nothing is known");
        delivered.absorb(said(1, 80, 12, 12));
        assert_eq!(delivered.done(5), at(0), "answers have had no time");
        delivered.absorb(said(0, 200, 20, 20));
        assert_eq!(delivered.done(5), at(0), "the other has not read what came until then");
        delivered.absorb(said(1, 150, 19, 19));
        assert_eq!(delivered.done(5), at(80), "and the slower one counts");
        delivered.absorb(said(1, 150, 19, 30));
        delivered.absorb(said(0, 200, 20, 30));
        assert_eq!(delivered.done(5), at(150));
        assert_eq!(delivered.all_done(), at(150));
    }

    #[test]
    fn a_later_pass_is_behind_every_position_of_the_one_before() {
        let mut delivered = Delivered::new(1, Place { pass: 1, position: 7 });
        delivered.absorb(said(0, 500, 1, 100));
        assert_eq!(delivered.done(0), Place { pass: 1, position: 7 }, "nothing goes back");
        delivered.absorb(Progress { place: Place { pass: 1, position: 8 }, ..said(0, 0, 2, 100) });
        assert_eq!(delivered.all_done(), Place { pass: 1, position: 8 });
    }
}
