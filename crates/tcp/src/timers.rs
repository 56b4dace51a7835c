//! Timers: one queue for each of a few durations, in each of which whoever came first is due first.

use crate::connection::{Hot, NO_CLASS, NONE};
use crate::slab::Slab;

/// Whether a time in ms lies before another; both within 24 days of each other.
#[inline]
pub(crate) fn earlier(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// A queue of connections whose places are all up so many milliseconds after they were taken.
#[derive(Clone, Copy, Debug)]
struct Queue {
    duration: u32,
    head: u32,
    tail: u32,
}

/// All queues. Every live connection stands in exactly one; it may come up too early there, never too late, and is given a
/// new place by whoever handles it then.
#[derive(Debug)]
pub(crate) struct Timers {
    queues: Vec<Queue>,
}

impl Timers {
    /// Queues for these durations and a ladder of others between.
    pub(crate) fn new(wanted: &[u32]) -> Self {
        const LADDER: [u32; 16] =
            [10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000];
        let mut durations: Vec<u32> = LADDER.iter().chain(wanted).copied().filter(|each| *each >= LADDER[0]).collect();
        durations.sort_unstable();
        durations.dedup();
        Self { queues: durations.into_iter().map(|duration| Queue { duration, head: NONE, tail: NONE }).collect() }
    }

    /// Gives a connection that stands in no queue a place that is up no later than `due`, but for the shortest duration.
    pub(crate) fn enter<S: Copy + Default>(&mut self, slab: &mut Slab<S>, slot: u32, now: u32, due: u32) {
        let left = if earlier(now, due) { due.wrapping_sub(now) } else { 0 };
        let class = self.queues.partition_point(|queue| queue.duration <= left).saturating_sub(1);
        let queue = &mut self.queues[class];
        let tail = std::mem::replace(&mut queue.tail, slot);
        if tail == NONE {
            queue.head = slot;
        } else {
            slab.hot_mut(tail).next = slot;
        }
        let expires = now.wrapping_add(queue.duration);
        let hot = slab.hot_mut(slot);
        (hot.class, hot.expires, hot.prev, hot.next) = (class as u8, expires, tail, NONE);
    }

    /// Takes a connection out of its queue.
    pub(crate) fn leave<S: Copy + Default>(&mut self, slab: &mut Slab<S>, slot: u32) {
        let Hot { class, prev, next, .. } = *slab.hot(slot);
        let Some(queue) = self.queues.get_mut(usize::from(class)) else { return };
        match prev {
            NONE => queue.head = next,
            prev => slab.hot_mut(prev).next = next,
        }
        match next {
            NONE => queue.tail = prev,
            next => slab.hot_mut(next).prev = prev,
        }
        slab.hot_mut(slot).class = NO_CLASS;
    }

    /// Takes out a connection whose place is up.
    pub(crate) fn pop<S: Copy + Default>(&mut self, slab: &mut Slab<S>, now: u32) -> Option<u32> {
        let due = |queue: &Queue| queue.head != NONE && !earlier(now, slab.hot(queue.head).expires);
        let slot = self.queues.iter().find(|queue| due(queue))?.head;
        slab.prefetch_hot(slab.hot(slot).next);
        self.leave(slab, slot);
        Some(slot)
    }

    /// When the next place is up.
    pub(crate) fn next<S: Copy + Default>(&self, slab: &Slab<S>) -> Option<u32> {
        let heads = self.queues.iter().filter(|queue| queue.head != NONE).map(|queue| slab.hot(queue.head).expires);
        heads.reduce(|a, b| if earlier(a, b) { a } else { b })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_up_in_time_and_in_order_whatever_is_taken_out_between() {
        let mut slab: Slab<[u8; 16]> = Slab::new();
        let mut timers = Timers::new(&[1500, 3]);
        let start = u32::MAX - 3000;
        let mut dues = Vec::new();
        for number in 0..500_u32 {
            let slot = slab.take();
            let (now, due) = (start.wrapping_add(number), start.wrapping_add(510 + number * 37 % 5000));
            timers.enter(&mut slab, slot, now, due);
            assert!(!earlier(due, slab.hot(slot).expires), "not later than asked for");
            dues.push((slot, due));
        }
        for (slot, _) in dues.iter().step_by(3) {
            timers.leave(&mut slab, *slot);
        }
        let waiting = dues.iter().enumerate().filter(|(number, _)| number % 3 != 0).count();
        let mut now = start.wrapping_add(500);
        let mut seen = Vec::new();
        for _ in 0..6000 {
            now = now.wrapping_add(1);
            while let Some(slot) = timers.pop(&mut slab, now) {
                let due = dues.iter().find(|(each, _)| *each == slot).unwrap().1;
                if earlier(now, due.wrapping_sub(9)) {
                    timers.enter(&mut slab, slot, now, due);
                } else {
                    assert!(!earlier(due.wrapping_add(10), now), "at most the shortest duration late");
                    seen.push(slot);
                }
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((seen.len(), timers.next(&slab)), (waiting, None));
    }
}
