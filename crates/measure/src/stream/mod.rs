//! Frames that somebody else builds: sent as they are given, received as they come (`Stack.send`, `Stack.receive`).
//!
//! One thread owns the worker. What it is given is already a copy, so that nobody can change a frame between the
//! policy's judgement, which happens in the engine's own memory, and the wire.

mod job;
mod received;
mod task;
mod write;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow_array::RecordBatch;
use crossbeam_channel::{Receiver as Channel, SendTimeoutError, Sender as Feed, bounded};
use irl_link::filter::{Accept, Frames};
use irl_link::{LinkError, Network, Policy, WorkerRequest};
use irl_wire::{Key, PortRange, Protocol};

use self::job::Job;
pub use self::job::{Completion, FrameBatch, Layer, Sent};
pub use self::received::{VERSION, schema};
use self::task::Task;
use crate::error::MeasureError;

const JOBS: usize = 64;
const RECEIVED_BATCHES: usize = 64;
const ETHERNET: usize = 14;

/// Frames in both directions on a network. Dropping it stops them.
pub struct Stream {
    jobs: Feed<Job>,
    batches: Channel<RecordBatch>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Somebody will read: until then nothing is kept.
    listening: AtomicBool,
    received: AtomicU64,
    lost: AtomicU64,
}

impl Stream {
    /// Opens a worker and its thread. What arrives on `ports` of our addresses, and on spare addresses whatever nobody
    /// else has a claim to, can be received. Frames are at most `frame_len` bytes long.
    ///
    /// # Errors
    /// Those of [`Network::workers`].
    pub fn start(
        network: Arc<dyn Network>,
        policy: Arc<Policy>,
        ports: PortRange,
        frame_len: usize,
    ) -> Result<Self, MeasureError> {
        let request = WorkerRequest {
            accept: Accept::Any,
            frames: Frames::Always,
            frame_len,
            // No cookie is looked for, so no key is needed.
            ..WorkerRequest::new(Arc::clone(&policy), Key::new([0; 16]), ports, Protocol::Tcp)
        };
        let mut workers = network.workers(&request)?;
        let worker =
            workers.pop().ok_or_else(|| MeasureError::Config("the network handed out no worker".to_owned()))?;
        let (jobs, queue) = bounded(JOBS);
        let (feed, batches) = bounded(RECEIVED_BATCHES);
        let shared = Arc::new(Shared::default());
        let task = Task::new(worker, network, policy, frame_len, queue, feed, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("irl-stream".to_owned())
            .spawn(move || task.run())
            .map_err(|source| LinkError::os("starting a worker thread", source))?;
        Ok(Self { jobs, batches, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Takes frames to send. Several calls may be outstanding; when too many are, this one waits at most for `timeout`
    /// and then gives the frames back.
    ///
    /// # Errors
    /// The frames, when the queue stayed full.
    pub fn send(
        &self,
        frames: FrameBatch,
        layer: Layer,
        fill_checksums: bool,
        timeout: Duration,
    ) -> Result<Completion, FrameBatch> {
        let completion = Completion::default();
        let job = Job::new(frames, layer, fill_checksums, completion.clone());
        match self.jobs.send_timeout(job, timeout) {
            Ok(()) => Ok(completion),
            Err(SendTimeoutError::Timeout(mut job)) => Err(std::mem::take(&mut job.frames)),
            // Dropping the job tells its completion that it failed.
            Err(SendTimeoutError::Disconnected(_)) => Ok(completion),
        }
    }

    /// Begins to keep what is received.
    pub fn listen(&self) {
        self.shared.listening.store(true, Ordering::Release);
    }

    /// The next frames received since [`Stream::listen`], waiting at most `timeout`; `None` when there are none.
    pub fn receive(&self, timeout: Duration) -> Option<RecordBatch> {
        self.batches.recv_timeout(timeout).ok()
    }

    /// Frames received, and of them those lost because nobody read them in time.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.received.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }

    /// Stops: no frame leaves once this returns.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = lock(&self.thread).take() {
            // A panic of the thread was told to the completions of the jobs that it dropped.
            let _ = thread.join();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain data, changed in one step: whatever panicked elsewhere left it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
