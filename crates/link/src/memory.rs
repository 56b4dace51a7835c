//! What engines without a device's own memory share: slots that frames are committed in, records that were collected and
//! wait to be handed over, and a next hop that is the same for all.

use irl_wire::Mac;

use crate::engine::Batch;
use crate::error::LinkError;
use crate::network::{Hop, NextHop};
use crate::record::{HEADER_LEN, Record};

/// Memory for one batch of frames, emptied as a whole: the sending half of an engine that takes all that is committed.
#[derive(Debug)]
pub struct Slots {
    bytes: Vec<u8>,
    lengths: Vec<u16>,
    longest: usize,
    stride: usize,
    pending: usize,
    completed: u64,
}

impl Slots {
    /// Room for `frames` frames of at most `longest` bytes.
    pub fn new(frames: usize, longest: usize) -> Self {
        let (bytes, lengths) = (vec![0; frames * longest], vec![0; frames]);
        Self { bytes, lengths, longest, stride: longest, pending: 0, completed: 0 }
    }

    /// The longest frame.
    pub fn max_frame(&self) -> usize {
        self.longest
    }

    /// As [`Sender::reserve`](crate::Sender::reserve).
    ///
    /// # Errors
    /// [`LinkError::Config`] for frames that are longer than a slot can be.
    pub fn reserve(&mut self, frames: usize, frame_len: usize) -> Result<Batch<'_>, LinkError> {
        if frame_len > self.longest {
            return Err(LinkError::config(format!("a frame of {frame_len} bytes is longer than {}", self.longest)));
        }
        if self.pending == 0 {
            self.stride = frame_len.max(1);
        } else if frame_len > self.stride {
            // Slots of the pending frames are too short: room comes with the next kick.
            return Ok(Batch::new(&mut [], &mut [], 1));
        }
        let (from, free) = (self.pending, (self.lengths.len() - self.pending).min(frames));
        Ok(Batch::new(&mut self.bytes[from * self.stride..], &mut self.lengths[from..from + free], self.stride))
    }

    /// Keeps so many more frames.
    pub fn commit(&mut self, frames: usize) {
        self.pending += frames;
    }

    /// The frames that were committed.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let slots = self.bytes.chunks(self.stride).zip(&self.lengths[..self.pending]);
        slots.map(|(slot, length)| &slot[..usize::from(*length)])
    }

    /// All slots are free again; how many frames were in them.
    pub fn clear(&mut self) -> u64 {
        let frames = std::mem::take(&mut self.pending) as u64;
        self.completed += frames;
        frames
    }

    /// Frames that are committed and in their slots.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Frames that were, since the start.
    pub fn completed(&self) -> u64 {
        self.completed
    }
}

/// Records taken from where they were collected, one behind the other, of which some have been handed over.
#[derive(Debug, Default)]
pub struct Taken {
    bytes: Vec<u8>,
    read: usize,
}

impl Taken {
    /// Whether all have been handed over.
    pub fn is_empty(&self) -> bool {
        self.read == self.bytes.len()
    }

    /// As [`Receiver::poll`](crate::Receiver::poll): fewer than `max` means that nothing was left. Whenever nothing is left
    /// of what was taken, `refill` exchanges our emptied memory for what the queue holds, so that the queue's length is what
    /// still waits there.
    ///
    /// # Errors
    /// Those of `refill`; [`LinkError::Config`] where what was collected is no record, which is the collector's bug.
    pub fn poll(
        &mut self,
        max: usize,
        mut refill: impl FnMut(&mut Vec<u8>) -> Result<(), LinkError>,
        each: &mut dyn FnMut(Record<'_>),
    ) -> Result<usize, LinkError> {
        let mut count = 0;
        while count < max {
            if self.is_empty() {
                self.bytes.clear();
                self.read = 0;
                refill(&mut self.bytes)?;
                if self.is_empty() {
                    break;
                }
            }
            let Some(record) = Record::parse(&self.bytes[self.read..]) else {
                return Err(LinkError::config("what was collected as a record cannot be read as one"));
            };
            self.read += HEADER_LEN + record.body.len();
            each(record);
            count += 1;
        }
        Ok(count)
    }
}

/// The same next hop for every target.
#[derive(Clone, Copy, Debug)]
pub struct OneHop(pub Mac);

impl NextHop for OneHop {
    fn lookup(&self, _: u128) -> Hop {
        Hop::Known(self.0)
    }

    fn constant(&self) -> Option<Mac> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Kind;

    #[test]
    fn slots_keep_what_was_committed_until_they_are_cleared() {
        let mut slots = Slots::new(4, 100);
        for (frames, length, free) in [(3, 60, 3), (3, 50, 1), (3, 61, 0), (3, 40, 0)] {
            let mut batch = slots.reserve(frames, length).unwrap();
            assert_eq!(batch.free(), free, "{frames} of {length}");
            while let Some(slot) = batch.slot() {
                slot[..length].fill(length as u8);
                batch.push(length);
            }
            let used = batch.used();
            slots.commit(used);
        }
        assert!(slots.reserve(1, 101).unwrap_err().to_string().contains("longer than 100"));
        assert!(slots.frames().map(<[u8]>::len).eq([60, 60, 60, 50]));
        assert!(slots.frames().all(|frame| frame.iter().all(|byte| usize::from(*byte) == frame.len())));
        assert_eq!((slots.pending(), slots.completed()), (4, 0));
        assert_eq!((slots.clear(), slots.pending(), slots.completed()), (4, 0, 4));
        assert_eq!((slots.reserve(9, 100).unwrap().free(), slots.frames().count()), (4, 0));
    }

    #[test]
    fn records_are_handed_over_once_and_in_order() {
        let mut queue = Vec::new();
        for owner in 0..5 {
            Record { kind: Kind::Frame, flags: 0, owner, time_ns: 0, body: &[7; 9] }.write(&mut queue);
        }
        let (mut taken, mut owners) = (Taken::default(), Vec::new());
        let mut later = queue.clone();
        for (max, count) in [(2, 2), (0, 0), (9, 8), (9, 0)] {
            // What comes meanwhile waits until nothing is left of what was taken, and is then handed over at once.
            let refill = |memory: &mut Vec<u8>| {
                std::mem::swap(memory, &mut queue);
                std::mem::swap(&mut queue, &mut later);
                Ok(())
            };
            assert_eq!(taken.poll(max, refill, &mut |record| owners.push(record.owner)).unwrap(), count);
        }
        assert_eq!(owners, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
        let unreadable = |memory: &mut Vec<u8>| {
            memory.resize(40, 9);
            Ok(())
        };
        assert!(taken.poll(1, unreadable, &mut |_| {}).unwrap_err().to_string().contains("cannot be read"));
    }
}
