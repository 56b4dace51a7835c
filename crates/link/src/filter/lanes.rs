//! An owner's lanes: records that each CPU writes without a lock (`struct lane` of `filter.h`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use aya::util::nr_cpus;

use super::layout::{LANE_LEN, LANE_RECORDS, LANE_SLOT, LANE_SLOTS, LANE_TAKEN, LANE_WRITTEN};
use super::sys;
use crate::ebpf::Mapping;
use crate::prefetch::prefetch;

/// Lanes of an owner at most, 64 KiB each; CPUs beyond use the ring buffer.
const MAX_LANES: usize = 64;
/// So many records ahead are fetched.
const AHEAD: u64 = 8;

/// The receiver's side of the lanes of one owner. There may be one consumer only.
#[derive(Debug)]
pub(super) struct Lanes {
    memory: Mapping,
    /// For each lane, how many records were taken.
    taken: Vec<u64>,
    /// The lane that comes first next time.
    first: usize,
}

impl Lanes {
    /// Makes lanes for the CPUs of this machine and puts them into the table `lanes` for this owner.
    ///
    /// # Errors
    /// The kernel's, and where softirqs do not exclude each other on a CPU: a lane would have two writers there.
    pub(super) fn install(table: BorrowedFd<'_>, owner: u16) -> io::Result<Self> {
        if std::fs::read_to_string("/sys/kernel/realtime").is_ok_and(|real_time| real_time.trim() == "1") {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel is a real-time one"));
        }
        let count = nr_cpus().map_err(|(_, error)| error)?.min(MAX_LANES);
        let map: OwnedFd = sys::create_inner_array(LANE_LEN as u32, count as u32)?;
        let lanes = Self::new(map.as_fd(), count)?;
        sys::set_inner_map(table, u32::from(owner), map.as_fd())?;
        Ok(lanes)
    }

    fn new(map: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        Ok(Self { memory: Mapping::new(map, count * LANE_LEN, 0, true)?, taken: vec![0; count], first: 0 })
    }

    /// Whether something was written that has not been taken.
    pub(super) fn has_data(&self) -> bool {
        let written = |lane: usize| self.memory.u64(lane * LANE_LEN + LANE_WRITTEN).load(Ordering::SeqCst);
        self.taken.iter().enumerate().any(|(lane, taken)| written(lane) != *taken)
    }

    /// Hands over at most `max` records, of each lane the oldest first; `each` says whether one counts. Their memory is
    /// the CPU's again afterwards.
    pub(super) fn consume(&mut self, max: usize, mut each: impl FnMut(&[u8]) -> bool) -> usize {
        let lanes = self.taken.len();
        let mut counted = 0;
        for turn in 0..lanes {
            if counted == max {
                break;
            }
            counted += self.consume_lane((self.first + turn) % lanes, max - counted, &mut each);
        }
        // None is always served first.
        self.first = (self.first + 1) % lanes.max(1);
        counted
    }

    fn consume_lane(&mut self, lane: usize, max: usize, each: &mut impl FnMut(&[u8]) -> bool) -> usize {
        let start = lane * LANE_LEN;
        let written = self.memory.u64(start + LANE_WRITTEN).load(Ordering::Acquire);
        let slot = |record: u64| start + LANE_SLOTS + (record % LANE_RECORDS as u64) as usize * LANE_SLOT;
        let before = self.taken[lane];
        let (mut taken, mut counted) = (before, 0);
        while taken != written && counted < max {
            if written - taken > AHEAD {
                // Another core wrote them.
                prefetch(self.memory.u32(slot(taken + AHEAD)));
            }
            // SAFETY: the record was written before the count that was read with acquire, and its CPU writes no slot
            // anew before `taken` says so, below.
            let record = unsafe { self.memory.bytes(slot(taken), LANE_SLOT) };
            counted += usize::from(each(record));
            taken += 1;
        }
        if taken != before {
            self.taken[lane] = taken;
            self.memory.u64(start + LANE_TAKEN).store(taken, Ordering::Release);
        }
        counted
    }
}
