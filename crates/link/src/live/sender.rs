//! The sending half of the engine `live`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::call::{Caller, Phase};
use super::layout::{Control, FRAME_MAX, FRAME_MIN};
use super::left::Left;
use super::program::Program;
use super::ring::Ring;
use crate::clock::now_ns;
use crate::ebpf::Mapping;
use crate::engine::{Batch, Kicked, Sender};
use crate::error::LinkError;
use crate::netdev::Interface;
use crate::packet::PacketSender;

/// The largest batch: the kernel takes no more frames at a time.
pub const MAX_BATCH: u32 = 256;
/// The usual batch. A veth end holds 256 frames and is emptied only between batches: two fit even when one comes late,
/// and larger ones lose frames without being faster.
pub const DEFAULT_BATCH: u32 = 128;
/// Frames that are tried before the device is trusted to send what it is given.
const TRIAL_FRAMES: usize = 64;
/// How long they may take to leave.
const TRIAL: Duration = Duration::from_millis(50);
/// More frames than this in a [`WINDOW_NS`] wake the call: a packet socket would fall behind.
const WAKE_FRAMES: u64 = 1_000;
const WINDOW_NS: u64 = 10_000_000;
/// And so do more frames than this that wait.
const WAKE_WAITING: usize = 512;
/// Frames copied to the packet socket at once.
const COPIED: usize = 256;
/// How long taking the ring back may take.
const WITHDRAW: Duration = Duration::from_secs(1);
const ETHERNET_HEADER: usize = 14;

/// Who reads the ring.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// We do, and send by a packet socket.
    Us,
    /// The call, since this (odd) order, with the first few frames, which have to be seen leaving.
    Trial { order: u64, frames: usize, behind: u64, sent_before: u64, since: Instant },
    /// The call, since this (odd) order.
    Call { order: u64 },
    /// The call was told to stop reading and has not obeyed yet. What it took counts as sent if `trusted`.
    Returning { trusted: bool },
}

/// The sending half of the engine `live`.
///
/// Frames lie in a ring that the kernel shares. While there are many, a call inside the kernel reads it; else they go by a
/// packet socket, so that nothing waits for a call to begin and no core spins for nothing. Memory: half a MiB.
pub struct LiveSender {
    caller: Caller,
    ring: Ring,
    packet: PacketSender,
    left: Arc<Left>,
    interface: String,
    max_frame: usize,
    reader: Reader,
    /// Whether frames were seen to leave by the call.
    proven: bool,
    /// Whether the call may be used: not any more when it failed.
    usable: bool,
    /// Whether there is no other engine to go on with.
    required: bool,
    /// The longest frame asked for so far.
    frame_len: usize,
    completed: u64,
    /// What the program's own counts were when we last looked.
    counted: u64,
    failed: u64,
    lost: u64,
    window: Window,
    began_live: bool,
}

impl LiveSender {
    /// Loads the transmit program for an interface of the calling thread's namespace. `frame_len` is the usual length of a
    /// frame, `batch` the number of frames the kernel takes at a time (1 to [`MAX_BATCH`]). With `required`, a device
    /// that sends nothing this way is an error; else the packet socket goes on.
    ///
    /// # Errors
    /// [`LinkError::Privilege`] without CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW, [`LinkError::Load`] with the verifier's
    /// log, [`LinkError::Unsupported`] in a build without clang, [`LinkError::InterfaceGone`].
    pub(crate) fn open(
        interface: &Interface,
        left: Arc<Left>,
        frame_len: usize,
        batch: u32,
        required: bool,
    ) -> Result<Self, LinkError> {
        let packet = PacketSender::open(interface, frame_len)?;
        let program = Program::load()?;
        program.control.ifindex().store(interface.index, Ordering::Relaxed);
        let caller = Caller::new(program, Arc::clone(&left), batch.clamp(1, MAX_BATCH))?;
        Ok(Self {
            caller,
            ring: Ring::new(),
            packet,
            left,
            interface: interface.name.clone(),
            max_frame: (interface.mtu as usize + ETHERNET_HEADER).min(FRAME_MAX),
            reader: Reader::Us,
            proven: false,
            usable: true,
            required,
            frame_len: FRAME_MIN,
            completed: 0,
            counted: 0,
            failed: 0,
            lost: 0,
            window: Window { since_ns: now_ns(), frames: 0 },
            began_live: false,
        })
    }

    /// Whether this machine lets the transmit program be loaded.
    ///
    /// # Errors
    /// As [`LiveSender::open`].
    pub(crate) fn check() -> Result<(), LinkError> {
        Program::load().map(drop)
    }

    fn control(&self) -> &Control {
        &self.caller.program().control
    }

    fn memory(&self) -> &Mapping {
        &self.caller.program().ring
    }

    /// Sends by the packet socket what waits, or with `rest` only what it has already.
    fn send_by_packet(&mut self, rest: bool) -> Result<Kicked, LinkError> {
        let mut kicked = Kicked::default();
        loop {
            let Self { ring, packet, caller, .. } = self;
            let copied = if rest { 0 } else { ring.frames().min(COPIED) };
            let mut batch = packet.reserve(copied, self.frame_len)?;
            while let Some(slot) = batch.slot() {
                let Some((frame, behind)) = ring.oldest(&caller.program().ring) else { break };
                slot[..frame.len()].copy_from_slice(frame);
                ring.consumed(behind, 1);
                batch.push(frame.len());
            }
            let copied = batch.used();
            packet.commit(copied);
            let before = packet.completed();
            let result = packet.kick();
            let taken = self.packet.completed() - before;
            self.completed += taken;
            self.window.frames += taken;
            let some = result?;
            kicked.accepted += some.accepted;
            kicked.refused += some.refused;
            if rest || some.refused > 0 || self.ring.frames() == 0 {
                return Ok(kicked);
            }
        }
    }

    /// Wakes the call when there is much to send, and lets it read once it is there. Returns whether it is.
    fn seek_call(&mut self) -> Result<bool, LinkError> {
        if !self.usable {
            return Ok(false);
        }
        match self.caller.phase() {
            Phase::Asleep => {
                let waiting = self.ring.frames() + self.packet.pending();
                if self.window.is_busy() || waiting > WAKE_WAITING {
                    self.caller.wake(self.frame_len);
                }
            }
            Phase::Running => {
                // Even: the call is there, and waits to be told to read.
                let Some(order) = self.control().obeyed().filter(|order| order.is_multiple_of(2)) else {
                    return Ok(false);
                };
                if self.packet.pending() == 0 && self.ring.frames() > 0 {
                    self.hand_over(order);
                }
                return Ok(true);
            }
            Phase::Ending => {}
            Phase::Failed => self.give_up(None)?,
        }
        Ok(false)
    }

    fn hand_over(&mut self, order: u64) {
        let trial = (!self.proven).then(|| self.ring.behind(self.memory(), TRIAL_FRAMES));
        let sent_before = self.left.sent();
        self.counted = self.control().count().load(Ordering::Acquire);
        let control = self.control();
        control.start().store(self.ring.head(), Ordering::Relaxed);
        control.produced().store(trial.map_or(self.ring.tail(), |(behind, _)| behind), Ordering::Release);
        // The keeper may have changed it since: then nobody reads, and the next kick tries again.
        if control.order().compare_exchange(order, order + 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        self.reader = match trial {
            None => Reader::Call { order: order + 1 },
            Some((behind, frames)) => {
                Reader::Trial { order: order + 1, frames, behind, sent_before, since: Instant::now() }
            }
        };
        if !self.began_live {
            self.began_live = true;
            self.left.join();
        }
    }

    /// Counts what the call has read.
    fn refresh(&mut self) {
        let control = self.control();
        let head = control.consumed().load(Ordering::Acquire);
        let frames = control.frames().load(Ordering::Acquire);
        // Both are old until the call has begun with the order.
        if head >= self.ring.head() && frames >= self.counted {
            self.took(head, frames);
        }
    }

    fn took(&mut self, head: u64, frames: u64) {
        let new = frames - self.counted;
        self.counted = frames;
        self.ring.consumed(head, new as usize);
        self.completed += new;
        let failed = self.control().failed().load(Ordering::Relaxed);
        self.lost += failed - self.failed + self.left.claim_refused();
        self.left.handed(new - (failed - self.failed).min(new));
        self.failed = failed;
    }

    /// Whether the first frames left; a device without `ndo_xdp_xmit` takes them and says nothing.
    fn judge_trial(
        &mut self,
        order: u64,
        frames: usize,
        behind: u64,
        sent_before: u64,
        since: Instant,
    ) -> Result<(), LinkError> {
        if self.control().position().load(Ordering::Acquire) == behind
            && self.left.sent() >= sent_before + frames as u64
        {
            self.proven = true;
            let counted = self.counted + frames as u64;
            self.took(behind, counted);
            self.reader = Reader::Call { order };
            log::debug!("{}: frames leave by live XDP frames", self.interface);
            return Ok(());
        }
        if since.elapsed() >= TRIAL {
            self.control().take_back();
            self.reader = Reader::Returning { trusted: false };
        }
        Ok(())
    }

    /// Whether the call reads no more; then we do.
    fn has_returned(&mut self, trusted: bool) -> Result<bool, LinkError> {
        let control = self.control();
        if control.obeyed().is_none() && matches!(self.caller.phase(), Phase::Running | Phase::Ending) {
            return Ok(false);
        }
        let (head, frames) = (control.position().load(Ordering::Acquire), control.count().load(Ordering::Acquire));
        self.reader = Reader::Us;
        if trusted {
            if head >= self.ring.head() {
                self.took(head, frames);
            }
        } else {
            // Their memory has not been used for anything else: they go by the packet socket.
            self.counted = frames;
            self.give_up(Some(LinkError::Unsupported(format!(
                "the device of {} took live XDP frames and none of them left: its driver has no ndo_xdp_xmit, or the \
                 other end of a veth pair neither runs an XDP program nor has GRO on (ethtool -K PEER gro on)",
                self.interface
            ))))?;
        }
        Ok(true)
    }

    /// From now on by the packet socket only.
    fn give_up(&mut self, why: Option<LinkError>) -> Result<(), LinkError> {
        self.usable = false;
        let why = why.or_else(|| self.caller.failure());
        match why {
            Some(error) if self.required => Err(error),
            Some(error) => {
                log::warn!("{}: going on with the engine packet, because {error}", self.interface);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Waits until the device has answered for the last frames, and counts what it did not take.
    fn settle(&mut self, until: Instant) {
        if !self.began_live {
            return;
        }
        self.began_live = false;
        // The device gets the last frames when the kernel's batch is over: two batches of idle turns later.
        let idle = self.control().idle().load(Ordering::Relaxed);
        while self.caller.phase() == Phase::Running
            && self.control().idle().load(Ordering::Relaxed) - idle < u64::from(2 * MAX_BATCH)
            && Instant::now() < until
        {
            std::thread::yield_now();
        }
        self.lost += self.left.claim_refused() + self.left.leave();
    }
}

impl Sender for LiveSender {
    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn reserve(&mut self, frames: usize, frame_len: usize) -> Result<Batch<'_>, LinkError> {
        if frame_len > self.max_frame {
            return Err(LinkError::config(format!(
                "a frame of {frame_len} bytes is longer than the engine live sends on {} ({} bytes): shorten it, raise \
                 the MTU, or use the engine packet",
                self.interface, self.max_frame
            )));
        }
        self.frame_len = self.frame_len.max(frame_len);
        let Self { ring, caller, .. } = self;
        Ok(ring.reserve(&caller.program().ring, frames, frame_len))
    }

    fn commit(&mut self, frames: usize) {
        let Self { ring, caller, .. } = self;
        ring.commit(&caller.program().ring, frames);
    }

    fn kick(&mut self) -> Result<Kicked, LinkError> {
        let before = self.completed;
        if let Reader::Returning { trusted } = self.reader {
            self.has_returned(trusted)?;
        }
        let mut refused = 0;
        match self.reader {
            Reader::Us => {
                let alive = self.seek_call()?;
                if matches!(self.reader, Reader::Us) {
                    refused = self.send_by_packet(alive)?.refused;
                }
            }
            Reader::Trial { order, frames, behind, sent_before, since } => {
                self.judge_trial(order, frames, behind, sent_before, since)?;
            }
            Reader::Call { order } => {
                let control = self.control();
                control.produced().store(self.ring.tail(), Ordering::Release);
                if control.order().load(Ordering::Acquire) == order {
                    self.refresh();
                } else {
                    self.reader = Reader::Returning { trusted: true };
                }
            }
            Reader::Returning { .. } => {}
        }
        Ok(Kicked { accepted: self.completed - before, refused })
    }

    fn pending(&self) -> usize {
        self.ring.frames() + self.packet.pending()
    }

    fn completed(&self) -> u64 {
        self.completed
    }

    fn lost(&self) -> u64 {
        self.lost
    }

    fn withdraw(&mut self) {
        let trusted = match self.reader {
            Reader::Us => None,
            // Frames of a trial may have left: better counted as sent than sent and not counted.
            Reader::Call { .. } | Reader::Trial { .. } => {
                self.control().take_back();
                Some(true)
            }
            Reader::Returning { trusted } => Some(trusted),
        };
        let until = Instant::now() + WITHDRAW;
        if let Some(trusted) = trusted {
            // An error here would only say that another engine has to go on, and none will.
            while !self.has_returned(trusted).unwrap_or(true) && Instant::now() < until {
                std::thread::yield_now();
            }
        }
        self.settle(until);
    }
}

/// Counts the frames of the last moments, to tell much from little.
#[derive(Clone, Copy, Debug)]
struct Window {
    since_ns: u64,
    frames: u64,
}

impl Window {
    fn is_busy(&mut self) -> bool {
        let busy = self.frames >= WAKE_FRAMES;
        let now = now_ns();
        if now.saturating_sub(self.since_ns) >= WINDOW_NS {
            *self = Self { since_ns: now, frames: 0 };
        }
        busy
    }
}
