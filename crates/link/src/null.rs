//! A sender that counts its frames and throws them away: what building and judging cost, without a device.

use crate::engine::{Batch, Kicked, Sender};
use crate::error::LinkError;

/// Takes every frame, sends none.
#[derive(Debug)]
pub struct NullSender {
    bytes: Vec<u8>,
    lengths: Vec<u16>,
    pending: usize,
    completed: u64,
}

impl NullSender {
    /// A sender with room for `frames` frames of `stride` bytes in one batch.
    pub fn new(frames: usize, stride: usize) -> Self {
        Self { bytes: vec![0; frames * stride], lengths: vec![0; frames], pending: 0, completed: 0 }
    }
}

impl Default for NullSender {
    fn default() -> Self {
        Self::new(256, 2048)
    }
}

impl Sender for NullSender {
    fn max_frame(&self) -> usize {
        self.bytes.len() / self.lengths.len().max(1)
    }

    fn reserve(&mut self, frames: usize, frame_len: usize) -> Result<Batch<'_>, LinkError> {
        if frame_len > self.max_frame() {
            return Err(LinkError::config(format!("a frame of {frame_len} bytes is longer than {}", self.max_frame())));
        }
        // Nothing is read later, so that a batch may overwrite the one before it.
        let frames = frames.min(self.lengths.len());
        Ok(Batch::new(&mut self.bytes, &mut self.lengths[..frames], frame_len.max(1)))
    }

    fn commit(&mut self, frames: usize) {
        self.pending += frames;
    }

    fn kick(&mut self) -> Result<Kicked, LinkError> {
        let accepted = std::mem::take(&mut self.pending) as u64;
        self.completed += accepted;
        Ok(Kicked { accepted, refused: 0 })
    }

    fn pending(&self) -> usize {
        self.pending
    }

    fn completed(&self) -> u64 {
        self.completed
    }
}
