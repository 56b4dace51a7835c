//! A filter's lanes and ring buffer as a [`Receiver`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::lanes::Lanes;
use super::layout::STATE_LEN;
use super::sys::Ring;
use crate::ebpf::Mapping;
use crate::engine::Receiver;
use crate::error::LinkError;
use crate::record::Record;

/// Drains the records of one owner, of each CPU's lane and of the ring buffer the oldest first. Made by
/// [`KernelFilter::add_owner`](super::KernelFilter::add_owner); what it has not drained stays readable after the owner was
/// removed.
#[derive(Debug)]
pub struct RingReceiver {
    owner: u16,
    /// Plain answers of a scan; `None` where lanes cannot be.
    lanes: Option<Lanes>,
    /// All else, and what found no room there.
    ring: Ring,
    map: OwnedFd,
    states: Arc<Mapping>,
}

impl RingReceiver {
    pub(super) fn new(owner: u16, lanes: Option<Lanes>, ring: Ring, map: OwnedFd, states: Arc<Mapping>) -> Self {
        Self { owner, lanes, ring, map, states }
    }

    /// The owner whose records these are.
    pub fn owner(&self) -> u16 {
        self.owner
    }

    fn state(&self) -> usize {
        usize::from(self.owner) * STATE_LEN
    }

    fn has_data(&self) -> bool {
        self.ring.has_data() || self.lanes.as_ref().is_some_and(Lanes::has_data)
    }
}

impl Receiver for RingReceiver {
    fn poll(&mut self, max: usize, each: &mut dyn FnMut(Record<'_>)) -> Result<usize, LinkError> {
        let mut parse = |sample: &[u8]| match Record::parse(sample) {
            Some(record) => {
                each(record);
                true
            }
            None => false,
        };
        let mut lanes = |max, parse: &mut dyn FnMut(&[u8]) -> bool| {
            self.lanes.as_mut().map_or(0, |lanes| lanes.consume(max, parse))
        };
        // What went to the ring buffer is mostly younger. A part is kept for it, in case that the lanes never run empty.
        let mut taken = lanes(max - max / 4, &mut parse);
        taken += self.ring.consume(max - taken, &mut parse);
        taken += lanes(max - taken, &mut parse);
        Ok(taken)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), LinkError> {
        if self.has_data() {
            return Ok(());
        }
        let waiting = self.states.u32(self.state());
        waiting.store(1, Ordering::SeqCst);
        // The flag must be seen before the kernel looks at the ring's positions inside poll(2): either the program
        // sees the flag after its record, or poll sees the record.
        fence(Ordering::SeqCst);
        // The same holds for the lanes, at which poll(2) does not look.
        let timeout = if self.has_data() { Duration::ZERO } else { timeout };
        let result = ppoll(
            &mut [PollFd::new(self.map.as_fd(), PollFlags::POLLIN)],
            Some(TimeSpec::from_duration(timeout)),
            None,
        );
        waiting.store(0, Ordering::Relaxed);
        match result {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(LinkError::os("waiting for a ring buffer", errno.into())),
        }
    }

    fn overruns(&self) -> u64 {
        self.states.u64(self.state() + 8).load(Ordering::Relaxed)
    }
}
