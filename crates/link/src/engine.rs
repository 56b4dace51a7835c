//! The seam between measurements and the ways to reach a network.
//!
//! A [`Network`] (an opened interface, or the simulated link) hands out [`Worker`]s: one core's sole owner of a
//! [`Gate`] to send through and a [`Receiver`] to drain. Frames go out in batches that live in the engine's own
//! memory; answers come back as [`Record`]s. Nothing here allocates per frame.

use std::time::Duration;

use crate::error::LinkError;
use crate::policy::Gate;
use crate::record::Record;

/// Memory for a batch of frames, owned by the engine: equal slots, filled from the front.
///
/// A slot is `stride` bytes; a frame may be shorter than its slot. What is written becomes part of the batch only by
/// [`Batch::push`], and leaves the process only after [`Sender::commit`] and [`Sender::kick`].
#[derive(Debug)]
pub struct Batch<'a> {
    bytes: &'a mut [u8],
    lengths: &'a mut [u16],
    stride: usize,
    headroom: usize,
    used: usize,
}

impl<'a> Batch<'a> {
    /// Wraps an engine's memory: `lengths.len()` slots of `stride` bytes each.
    ///
    /// # Panics
    /// When `bytes` is shorter than `lengths.len() * stride`, which is an engine's bug.
    pub fn new(bytes: &'a mut [u8], lengths: &'a mut [u16], stride: usize) -> Self {
        Self::with_headroom(bytes, lengths, stride, 0)
    }

    /// The same, where the first `headroom` bytes of each slot are the engine's own.
    ///
    /// # Panics
    /// As [`Batch::new`], and when the headroom leaves nothing of a slot.
    pub fn with_headroom(bytes: &'a mut [u8], lengths: &'a mut [u16], stride: usize, headroom: usize) -> Self {
        assert!(stride > headroom && bytes.len() >= lengths.len() * stride, "batch memory is shorter than its slots");
        Self { bytes, lengths, stride, headroom, used: 0 }
    }

    /// Slots still free.
    pub fn free(&self) -> usize {
        self.lengths.len() - self.used
    }

    /// Frames pushed so far.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The next free slot, to be written and then kept with [`Batch::push`]; `None` when the batch is full.
    #[inline]
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        if self.used == self.lengths.len() {
            return None;
        }
        let start = self.used * self.stride;
        self.bytes.get_mut(start + self.headroom..start + self.stride)
    }

    /// Keeps the first `length` bytes of the slot last handed out as the batch's next frame.
    ///
    /// # Panics
    /// When there is no free slot or `length` exceeds the slot.
    #[inline]
    pub fn push(&mut self, length: usize) {
        let room = self.stride - self.headroom;
        assert!(length <= room, "a frame of {length} bytes does not fit a slot of {room}");
        self.lengths[self.used] = length as u16;
        self.used += 1;
    }
}

/// What one [`Sender::kick`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kicked {
    /// Frames the device took.
    pub accepted: u64,
    /// Refusals by a full device queue. The frames stay committed and are offered again by the next kick: a refusal
    /// is a signal to slow down, never a loss.
    pub refused: u64,
}

/// The sending half of an engine. One producer: the worker that owns it.
pub trait Sender: Send {
    /// The longest frame, in bytes without FCS, that this engine can send.
    fn max_frame(&self) -> usize;

    /// Memory for up to `frames` frames of at most `frame_len` bytes. The batch may be smaller than asked for, and is
    /// empty when everything is in flight: then [`Sender::kick`] and try again.
    fn reserve(&mut self, frames: usize, frame_len: usize) -> Result<Batch<'_>, LinkError>;

    /// Queues the first `frames` frames of the batch last reserved.
    fn commit(&mut self, frames: usize);

    /// Gets committed frames moving. Does not block.
    ///
    /// # Errors
    /// [`LinkError::InterfaceGone`] when the device was deleted or went down, [`LinkError::Os`] otherwise.
    fn kick(&mut self) -> Result<Kicked, LinkError>;

    /// Frames committed and not yet taken by the device.
    fn pending(&self) -> usize;

    /// Frames whose memory is the caller's again, since the start: the completions of `Stack.send`.
    fn completed(&self) -> u64;

    /// Frames that were taken and that the device then refused for good, since the start. Only an engine that learns
    /// of a refusal after the frame's memory is gone has any.
    fn lost(&self) -> u64 {
        0
    }

    /// Takes back what was committed and has not been taken: none of it leaves after this returns, and
    /// [`Sender::pending`] says how much it is. The sender is not used afterwards.
    fn withdraw(&mut self) {}
}

/// The receiving half of an engine: the records of one owner.
pub trait Receiver: Send {
    /// Hands over at most `max` records that have arrived, oldest first, and returns how many there were.
    /// Does not block.
    fn poll(&mut self, max: usize, each: &mut dyn FnMut(Record<'_>)) -> Result<usize, LinkError>;

    /// Waits until a record may be there, or for `timeout`. Spurious returns are allowed.
    fn wait(&mut self, timeout: Duration) -> Result<(), LinkError>;

    /// Records that were lost since the start because this receiver was not drained fast enough.
    fn overruns(&self) -> u64;

    /// Whether nothing will come any more, where that is known: what waits for answers need not wait then, or has to until
    /// then. `None` on a network, where it never is.
    fn is_exhausted(&self) -> Option<bool> {
        None
    }
}

/// One core's owner of everything it needs to measure.
pub struct Worker {
    /// The owner number the filter steers to: a function of our address and our port (design decision 4).
    pub owner: u16,
    /// The only way out: policy, then engine.
    pub gate: Gate,
    /// What the filter diverted to this owner.
    pub receiver: Box<dyn Receiver>,
}
