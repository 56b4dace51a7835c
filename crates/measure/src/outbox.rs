//! What a worker has for its reader: batches that wait for him, and with them what a checkpoint has to know to keep them.

use std::collections::VecDeque;

use crossbeam_channel::{Sender as Channel, TrySendError};
use irl_link::ClassCounters;

use crate::answers::Answers;
use crate::checkpoint::{Place, Tracker};
use crate::run::Delivery;
use crate::stats::{Stats, WorkerCounters};

/// Batches that wait for a slow reader before answers stay in the ring; the senders pause from the first one on.
const MOST: usize = 8;

/// The reader let go of the run.
pub(crate) struct NobodyReads;

/// Batches on their way to the reader, oldest first.
pub(crate) struct Outbox {
    /// The worker's number.
    number: usize,
    out: Channel<Delivery>,
    waiting: VecDeque<Delivery>,
    /// Where there is a checkpoint.
    tracker: Option<Tracker>,
}

impl Outbox {
    pub(crate) fn new(number: usize, out: Channel<Delivery>, checkpointed: bool) -> Self {
        Self { number, out, waiting: VecDeque::new(), tracker: checkpointed.then(Tracker::default) }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether so much waits that nothing may come to it.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST
    }

    /// Looks how far the worker is, where a checkpoint has to know.
    pub(crate) fn track(&mut self, place: impl FnOnce() -> Place, probes: &ClassCounters, now: u64) {
        if let Some(tracker) = &mut self.tracker {
            tracker.look(place(), probes, now);
        }
    }

    /// All records that had come by then were read.
    pub(crate) fn has_read(&mut self, now: u64) {
        if let Some(tracker) = &mut self.tracker {
            tracker.read_ns = now;
        }
    }

    /// Takes the rows so far, and with the last of them what a checkpoint has to know to keep them.
    pub(crate) fn collect(&mut self, answers: &mut impl Answers, counters: &WorkerCounters) {
        let before = self.waiting.len();
        while let Some(batch) = answers.rows() {
            self.waiting.push_back(Delivery { batch: Some(batch), progress: None });
        }
        let Some(tracker) = &mut self.tracker else { return };
        tracker.marks.append(answers.marks());
        let progress = Some(Box::new(tracker.progress(self.number, Stats::gather([counters]))));
        let rows = self.waiting.len() > before;
        match self.waiting.back_mut() {
            Some(last) if rows => last.progress = progress,
            _ => self.waiting.push_back(Delivery { batch: None, progress }),
        }
    }

    /// Hands over what the reader has room for, without blocking.
    ///
    /// # Errors
    /// Nobody will ever read.
    pub(crate) fn offer(&mut self) -> Result<(), NobodyReads> {
        while let Some(batch) = self.waiting.pop_front() {
            match self.out.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Full(batch)) => {
                    self.waiting.push_front(batch);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => return Err(NobodyReads),
            }
        }
        Ok(())
    }

    /// Hands over the rest. Ends when the reader reads or goes away.
    pub(crate) fn drain(&mut self) {
        while let Some(batch) = self.waiting.pop_front() {
            if self.out.send(batch).is_err() {
                break;
            }
        }
    }
}
