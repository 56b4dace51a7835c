//! A filter's ring buffer as a [`Receiver`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::layout::STATE_LEN;
use super::sys::Ring;
use crate::ebpf::Mapping;
use crate::engine::Receiver;
use crate::error::LinkError;
use crate::record::Record;

/// Drains the records of one owner. Made by [`KernelFilter::add_owner`](super::KernelFilter::add_owner); what it has
/// not drained stays readable after the owner was removed.
#[derive(Debug)]
pub struct RingReceiver {
    owner: u16,
    ring: Ring,
    map: OwnedFd,
    states: Arc<Mapping>,
}

impl RingReceiver {
    pub(super) fn new(owner: u16, ring: Ring, map: OwnedFd, states: Arc<Mapping>) -> Self {
        Self { owner, ring, map, states }
    }

    /// The owner whose records these are.
    pub fn owner(&self) -> u16 {
        self.owner
    }

    fn state(&self) -> usize {
        usize::from(self.owner) * STATE_LEN
    }
}

impl Receiver for RingReceiver {
    fn poll(&mut self, max: usize, each: &mut dyn FnMut(Record<'_>)) -> Result<usize, LinkError> {
        Ok(self.ring.consume(max, |sample| match Record::parse(sample) {
            Some(record) => {
                each(record);
                true
            }
            None => false,
        }))
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), LinkError> {
        if self.ring.has_data() {
            return Ok(());
        }
        let waiting = self.states.u32(self.state());
        waiting.store(1, Ordering::SeqCst);
        // The flag must be seen before the kernel looks at the ring's positions inside poll(2): either the program
        // sees the flag after its record, or poll sees the record.
        fence(Ordering::SeqCst);
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
