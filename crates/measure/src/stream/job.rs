//! Frames that were handed in, and what became of them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{ETHERNET, lock};

/// Frames in one piece of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameBatch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl FrameBatch {
    /// Adds a frame.
    pub fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    /// How many frames.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    fn longest(&self) -> usize {
        (0..self.len()).map(|index| self.get(index).len()).max().unwrap_or(0)
    }
}

/// What frames begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header: Ethernet is added, the next hop resolved.
    Ip,
}

/// What became of the frames of one [`Stream::send`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames the device took.
    pub sent: u64,
    /// Frames refused by the policy.
    pub refused: u64,
    /// Why the first of them was.
    pub refusal: Option<String>,
    /// Frames whose next hop nobody resolved.
    pub unresolved: u64,
    /// Frames given up because the device failed or the stream was closed.
    pub failed: u64,
    /// What failed.
    pub error: Option<String>,
    /// Whether nothing more will come of them.
    pub done: bool,
}

/// Tells when the frames of one [`Stream::send`] have left. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Completion {
    inner: Arc<(Mutex<Sent>, Condvar)>,
}

impl Completion {
    /// Waits until the frames have left, at most for `timeout`, and says what is known.
    pub fn wait(&self, timeout: Duration) -> Sent {
        let (state, changed) = &*self.inner;
        let guard = lock(state);
        let (guard, _) =
            changed.wait_timeout_while(guard, timeout, |sent| !sent.done).unwrap_or_else(PoisonError::into_inner);
        guard.clone()
    }

    /// What is known now.
    pub fn state(&self) -> Sent {
        lock(&self.inner.0).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Sent)) {
        change(&mut lock(&self.inner.0));
        self.inner.1.notify_all();
    }
}

/// Frames on their way, and what became of them so far.
pub(super) struct Job {
    pub(super) frames: FrameBatch,
    pub(super) layer: Layer,
    pub(super) fill_checksums: bool,
    pub(super) completion: Completion,
    /// Bytes of the longest frame, headers that are added included.
    pub(super) longest: usize,
    /// Frames not built yet, by number.
    pub(super) todo: VecDeque<usize>,
    pub(super) permitted: u64,
}

impl Job {
    pub(super) fn new(frames: FrameBatch, layer: Layer, fill_checksums: bool, completion: Completion) -> Self {
        let todo = (0..frames.len()).collect();
        let longest = frames.longest() + ETHERNET + 4;
        Self { frames, layer, fill_checksums, completion, longest, todo, permitted: 0 }
    }

    pub(super) fn left(&self) {
        self.completion.update(|sent| {
            sent.sent = self.permitted;
            sent.done = true;
        });
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let open = self.todo.len() as u64 + self.permitted;
        self.completion.update(|sent| {
            if !sent.done {
                sent.done = true;
                sent.failed = open;
                sent.error.get_or_insert_with(|| "the stack was closed, or its interface is gone".to_owned());
            }
        });
    }
}
