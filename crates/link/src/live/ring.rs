//! The producer's side of the ring: where frames are written, and how many are on their way.

use super::layout::{CELL_BYTES, CELLS, HEADER_BYTES};
use crate::ebpf::Mapping;
use crate::engine::Batch;

/// Frames on their way at most: what the device sends in half a millisecond or so. A longer queue would gain nothing,
/// and the times that probes carry would be the older for it.
const DEPTH: usize = 2048;

/// Positions count cells and only grow; `head <= tail <= head + CELLS`.
#[derive(Debug)]
pub(super) struct Ring {
    /// What is before it has been copied away.
    head: u64,
    /// Where the next frame is written.
    tail: u64,
    /// Frames between the two.
    frames: usize,
    /// Cells of each slot of the batch last handed out.
    slot_cells: usize,
    lengths: Box<[u16]>,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self { head: 0, tail: 0, frames: 0, slot_cells: 1, lengths: vec![0; DEPTH].into_boxed_slice() }
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Frames written and not copied away.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// Slots for up to `frames` frames of at most `frame_len` bytes; fewer where the ring ends or is full.
    pub(super) fn reserve<'a>(&'a mut self, memory: &'a Mapping, frames: usize, frame_len: usize) -> Batch<'a> {
        self.slot_cells = (HEADER_BYTES + frame_len).div_ceil(CELL_BYTES);
        let free = CELLS - (self.tail - self.head) as usize;
        let before_end = CELLS - offset(self.tail);
        let mut usable = free.min(before_end);
        if before_end < self.slot_cells && free >= before_end {
            // Too short for a frame: the reader is sent to the ring's start.
            // SAFETY: the cell lies between tail and head, where only the producer, which we borrow mutably, may write.
            let header = unsafe { memory.bytes_mut(offset(self.tail) * CELL_BYTES, HEADER_BYTES) };
            write_header(header, 0, before_end);
            self.tail += before_end as u64;
            usable = free - before_end;
        }
        let frames = frames.min(usable / self.slot_cells).min(DEPTH - self.frames);
        let stride = self.slot_cells * CELL_BYTES;
        // SAFETY: `usable` cells from the tail on are free: the reader does not touch them before it is told of them,
        // which takes a commit, and the borrow of `self` ends before that.
        let bytes = unsafe { memory.bytes_mut(offset(self.tail) * CELL_BYTES, frames * stride) };
        Batch::with_headroom(bytes, &mut self.lengths[..frames], stride, HEADER_BYTES)
    }

    /// Puts the first `frames` frames of the batch last reserved before the reader, who still has to be told.
    pub(super) fn commit(&mut self, memory: &Mapping, frames: usize) {
        let stride = self.slot_cells * CELL_BYTES;
        // SAFETY: these cells were reserved and are not before the reader yet.
        let bytes = unsafe { memory.bytes_mut(offset(self.tail) * CELL_BYTES, frames * stride) };
        for (slot, length) in bytes.chunks_exact_mut(stride).zip(&self.lengths[..frames]) {
            write_header(&mut slot[..HEADER_BYTES], *length, self.slot_cells);
        }
        self.tail += (frames * self.slot_cells) as u64;
        self.frames += frames;
    }

    /// The reader is done with `frames` frames, up to `head`.
    pub(super) fn consumed(&mut self, head: u64, frames: usize) {
        debug_assert!(self.head <= head && head <= self.tail, "the reader stays behind the writer");
        self.head = head;
        self.frames -= frames.min(self.frames);
    }

    /// The oldest frame and the position behind it, for a reader in user space.
    pub(super) fn oldest<'a>(&self, memory: &'a Mapping) -> Option<(&'a [u8], u64)> {
        let mut at = self.head;
        while at != self.tail {
            let start = offset(at) * CELL_BYTES;
            // SAFETY: between head and tail, and while user space is the reader, nobody writes.
            let header = unsafe { memory.bytes(start, HEADER_BYTES) };
            let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            let cells = u64::from(u16::from_ne_bytes([header[2], header[3]]));
            if length != 0 {
                // SAFETY: as above.
                let frame = unsafe { memory.bytes(start + HEADER_BYTES, length) };
                return Some((frame, at + cells));
            }
            at += cells.max(1);
        }
        None
    }

    /// The position behind the first `frames` frames, and how many there really are.
    pub(super) fn behind(&self, memory: &Mapping, frames: usize) -> (u64, usize) {
        let mut ahead = Self { lengths: Box::default(), ..*self };
        for count in 0..frames {
            match ahead.oldest(memory) {
                Some((_, next)) => ahead.head = next,
                None => return (ahead.tail, count),
            }
        }
        (ahead.head, frames)
    }
}

fn offset(position: u64) -> usize {
    position as usize & (CELLS - 1)
}

fn write_header(header: &mut [u8], length: u16, cells: usize) {
    header[..2].copy_from_slice(&length.to_ne_bytes());
    header[2..4].copy_from_slice(&(cells as u16).to_ne_bytes());
}
