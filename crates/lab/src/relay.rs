//! A link that loses, delays, reorders and repeats: forwards frames between two interfaces through a [`Line`] a direction.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use irl_link::packet::Tap;
use irl_link::{LinkError, clock};

use crate::impairment::{Impairment, Line, LineCounters};

/// The longest wait before the stop flag is looked at.
const NAP: Duration = Duration::from_millis(20);
/// Frames handled between two kicks.
const BATCH: usize = 64;

/// Forwards between interfaces `near` and `far` of the calling thread's namespace, until told to stop. `counters` get
/// what each direction did: there, back. `ready` is called when both are open.
///
/// # Errors
/// Those of [`Tap`].
pub fn relay(
    near: &str,
    far: &str,
    impairment: &Impairment,
    stop: &AtomicBool,
    counters: &Mutex<[LineCounters; 2]>,
    ready: impl FnOnce(),
) -> Result<(), LinkError> {
    let (mut near, mut far) = (Tap::open(near)?, Tap::open(far)?);
    ready();
    let mut there = Line::new(impairment.there, impairment.seed);
    let mut back = Line::new(impairment.back, impairment.seed.wrapping_add(1));
    while !stop.load(Ordering::Acquire) {
        let got = forward(&mut near, &mut far, &mut there)? + forward(&mut far, &mut near, &mut back)?;
        if let Ok(mut counters) = counters.lock() {
            *counters = [there.counters(), back.counters()];
        }
        if got == 0 {
            let due = there.next_due_ns().into_iter().chain(back.next_due_ns()).min();
            let until = due.map_or(NAP, |due| Duration::from_nanos(due.saturating_sub(clock::now_ns())).min(NAP));
            // One of the two is watched, shortly: the other's frames wait a millisecond at most.
            near.wait(until.min(Duration::from_millis(1)))?;
        }
    }
    Ok(())
}

/// Moves what arrived on one side, and what is due, to the other; returns how many frames arrived.
fn forward(from: &mut Tap, to: &mut Tap, line: &mut Line) -> Result<usize, LinkError> {
    let now = clock::now_ns();
    let mut failed = None;
    let mut send = |frame: &[u8]| {
        // A full queue drops the frame, as the device of a busy router would.
        if let Err(error) = to.send(frame) {
            failed.get_or_insert(error);
        }
    };
    line.pop_due(now, &mut send);
    let got = from.receive(BATCH, &mut |frame| line.push(frame, now, &mut send))?;
    if let Some(error) = failed {
        return Err(error);
    }
    to.flush()?;
    Ok(got)
}
