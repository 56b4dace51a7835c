//! Who holds the call: a thread inside the kernel, and a keeper that starts it, ends it when it idles, and ends it for
//! good.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::layout::{FRAME_MAX, FRAME_MIN};
use super::left::Left;
use super::program::Program;
use super::signal;
use super::turns::Look;
use crate::error::LinkError;

/// How often the keeper looks.
const LOOK: Duration = Duration::from_millis(50);
/// A call that sent fewer frames in so long is ended: its core is worth more than that.
const IDLE: Duration = Duration::from_millis(200);
const IDLE_FRAMES: u64 = 4_000;
/// A signal that comes just before the call begins is lost: so it is sent again.
const AGAIN: Duration = Duration::from_millis(5);

/// Where the call is. Only the keeper changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No call runs, and `order` is even.
    Asleep,
    /// A call runs, or is about to: it does once `seen` equals `order`.
    Running,
    /// The call is being ended; it takes nothing more.
    Ending,
    /// It cannot run: see [`Caller::failure`].
    Failed,
}

struct Shared {
    program: Program,
    left: Arc<Left>,
    phase: AtomicU8,
    failure: Mutex<Option<LinkError>>,
    batch: u32,
}

/// The handle on keeper and call. Dropping it ends both.
pub(super) struct Caller {
    shared: Arc<Shared>,
    /// Says which length the next call's frames begin with; others cost a little more.
    wake: Option<Sender<u32>>,
    keeper: Option<JoinHandle<()>>,
}

impl Caller {
    /// Starts the keeper, with no call yet. Calls happen in this thread's network namespace.
    pub(super) fn new(program: Program, left: Arc<Left>, batch: u32) -> Result<Self, LinkError> {
        signal::prepare().map_err(|error| LinkError::os("preparing SIGURG, which ends live calls", error))?;
        let shared = Arc::new(Shared {
            program,
            left,
            phase: AtomicU8::new(Phase::Asleep as u8),
            failure: Mutex::default(),
            batch,
        });
        let (wake, woken) = channel();
        let theirs = Arc::clone(&shared);
        let keeper = Builder::new()
            .name("irl-live-keeper".to_owned())
            .spawn(move || keep(&theirs, &woken))
            .map_err(|error| LinkError::os("starting a thread", error))?;
        Ok(Self { shared, wake: Some(wake), keeper: Some(keeper) })
    }

    pub(super) fn program(&self) -> &Program {
        &self.shared.program
    }

    pub(super) fn phase(&self) -> Phase {
        self.shared.phase()
    }

    /// Asks for a call, mostly for frames of this length. It takes 8 to 48 ms to begin.
    pub(super) fn wake(&self, usual_len: usize) {
        if let Some(wake) = &self.wake {
            // The keeper ends only when this end of the channel is gone.
            let _ = wake.send(usual_len.clamp(FRAME_MIN, FRAME_MAX) as u32);
        }
    }

    /// Why no call runs, once.
    pub(super) fn failure(&self) -> Option<LinkError> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.shared.program.control.take_back();
        self.wake = None;
        if let Some(keeper) = self.keeper.take() {
            // It ends within some 30 ms: the time that the kernel takes to end the call.
            let _ = keeper.join();
        }
    }
}

impl Shared {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Asleep,
            1 => Phase::Running,
            2 => Phase::Ending,
            _ => Phase::Failed,
        }
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Inside the kernel until told to stop; a call that ends by itself, its turns used up, begins again.
    fn call(&self, stop: &AtomicBool) -> Result<(), LinkError> {
        signal::block_others();
        while !stop.load(Ordering::Acquire) {
            self.program.run(self.batch)?;
        }
        Ok(())
    }
}

fn keep(shared: &Arc<Shared>, woken: &Receiver<u32>) {
    signal::block_all();
    // Ends when the handle is dropped.
    while let Ok(usual_len) = woken.recv() {
        let ended = one_call(shared, woken, usual_len);
        shared.program.control.take_back();
        match ended {
            Ok(()) => shared.set_phase(Phase::Asleep),
            Err(error) => {
                *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                shared.set_phase(Phase::Failed);
                return;
            }
        }
        // What was asked for while the call ran has been done.
        while woken.try_recv().is_ok() {}
    }
}

/// One call, from waking until it idles or the handle is dropped.
fn one_call(shared: &Arc<Shared>, woken: &Receiver<u32>, usual_len: u32) -> Result<(), LinkError> {
    let control = &shared.program.control;
    control.usual_len().store(usual_len, Ordering::Relaxed);
    // A new even number: when it is seen, the new call is there.
    control.order().fetch_add(2, Ordering::AcqRel);
    let stop = Arc::new(AtomicBool::new(false));
    let (alive, over) = channel::<()>();
    let (theirs, told) = (Arc::clone(shared), Arc::clone(&stop));
    let thread = Builder::new()
        .name("irl-live".to_owned())
        .spawn(move || {
            let _alive = alive;
            theirs.call(&told)
        })
        .map_err(|error| LinkError::os("starting a thread", error))?;
    shared.set_phase(Phase::Running);

    let mut busy = Instant::now();
    let mut frames = control.count().load(Ordering::Relaxed);
    let mut looked: Option<Look> = None;
    loop {
        match woken.recv_timeout(LOOK) {
            Ok(_) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if thread.is_finished() {
            break;
        }
        // Not before the call is there.
        if looked.is_some() || control.obeyed().is_some() {
            let now = Look::at(control);
            if let Some(before) = &looked {
                shared.left.turns().add(before, &now);
            }
            looked = Some(now);
        }
        if busy.elapsed() >= IDLE {
            let count = control.count().load(Ordering::Relaxed);
            if count - frames < IDLE_FRAMES {
                break;
            }
            (busy, frames) = (Instant::now(), count);
        }
    }
    shared.set_phase(Phase::Ending);
    shared.program.control.take_back();
    stop.store(true, Ordering::Release);
    // Somebody may have put the signal's handling back since.
    signal::prepare().map_err(|error| LinkError::os("preparing SIGURG, which ends live calls", error))?;
    loop {
        signal::interrupt(&thread);
        // Nothing is ever sent here: the end of the channel is the thread's end.
        match over.recv_timeout(AGAIN) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
