//! Both ends of an interface, unfiltered and unjudged: for the far end of a lab's link, which answers what it gets.
//!
//! Measurements never use it; what they send goes through a [`Gate`](crate::Gate).

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::checksum;
use super::ring::Ring;
use super::sender::PacketSender;
use crate::engine::Sender;
use crate::error::LinkError;
use crate::netdev::{Interface, os_error};

/// Bytes of its receive ring.
const RING_BYTES: usize = 8 << 20;
/// The longest frame it sends.
const FRAME_LEN: usize = 2048;

/// How long a frame waits for room at most, and between two tries.
const PATIENCE: Duration = Duration::from_millis(200);
const FULL: Duration = Duration::from_micros(50);

/// An interface's frames, all that arrive, and a way to send any.
pub struct Tap {
    name: String,
    ring: Ring,
    sender: PacketSender,
}

impl Tap {
    /// Opens an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// [`LinkError::UnknownInterface`], [`LinkError::Privilege`], [`LinkError::Os`].
    pub fn open(name: &str) -> Result<Self, LinkError> {
        let interface = Interface::by_name(name)?;
        let ring = Ring::open(&interface, RING_BYTES)?;
        let sender = PacketSender::open(&interface, FRAME_LEN)?;
        Ok(Self { name: name.to_owned(), ring, sender })
    }

    /// Hands over at most `max` frames that have arrived, and how to answer them; returns how many there were. Partial
    /// checksums of local peers are finished first.
    ///
    /// # Errors
    /// [`LinkError::InterfaceGone`], [`LinkError::Os`].
    pub fn receive(&mut self, max: usize, each: &mut dyn FnMut(&[u8])) -> Result<usize, LinkError> {
        let mut count = 0;
        while count < max {
            let Some(arrival) = self.ring.next() else { break };
            if arrival.checksum_not_ready {
                let mut whole = arrival.bytes.to_vec();
                checksum::finish(&mut whole);
                each(&whole);
            } else {
                each(arrival.bytes);
            }
            count += 1;
        }
        Ok(count)
    }

    /// Queues a frame. While the device's queue is full it waits, up to [`PATIENCE`]; a frame that finds no room even then
    /// is dropped, and `false` says so.
    ///
    /// # Errors
    /// Those of [`Sender::reserve`] and [`Sender::kick`].
    pub fn send(&mut self, frame: &[u8]) -> Result<bool, LinkError> {
        let mut waited = Duration::ZERO;
        while !self.push(frame)? {
            self.sender.kick()?;
            if waited >= PATIENCE {
                return Ok(false);
            }
            std::thread::sleep(FULL);
            waited += FULL;
        }
        Ok(true)
    }

    fn push(&mut self, frame: &[u8]) -> Result<bool, LinkError> {
        let mut batch = self.sender.reserve(1, frame.len())?;
        let Some(slot) = batch.slot() else { return Ok(false) };
        slot[..frame.len()].copy_from_slice(frame);
        batch.push(frame.len());
        self.sender.commit(1);
        Ok(true)
    }

    /// Gets queued frames moving.
    ///
    /// # Errors
    /// [`LinkError::InterfaceGone`], [`LinkError::Os`].
    pub fn flush(&mut self) -> Result<(), LinkError> {
        if self.sender.pending() > 0 {
            self.sender.kick()?;
        }
        Ok(())
    }

    /// Waits until a frame may be there, or for `timeout`.
    ///
    /// # Errors
    /// [`LinkError::InterfaceGone`], [`LinkError::Os`].
    pub fn wait(&mut self, timeout: Duration) -> Result<(), LinkError> {
        let mut waiting = [PollFd::new(self.ring.descriptor().as_fd(), PollFlags::POLLIN)];
        let timeout = u16::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        match poll(&mut waiting, PollTimeout::from(timeout)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(LinkError::os("waiting for frames", errno.into())),
        }
        let failed = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        if waiting[0].revents().is_some_and(|events| events.intersects(failed))
            && let Some(error) = self.ring.pending_error()
        {
            return Err(os_error(&self.name, "receiving frames", error));
        }
        Ok(())
    }
}
