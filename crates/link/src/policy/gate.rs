//! The only way out of the process: builds into the engine's memory, judges each frame there, commits what is permitted.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Denied, Policy, RefusedBecause, Verdict};
use crate::capture::Sample;
use crate::clock::now_ns;
use crate::engine::{Kicked, Sender};
use crate::error::LinkError;

/// The most neighbour frames (ARP, neighbour discovery) a gate lets out in a second, answers and questions together.
/// On-link targets are probed no faster than they can be resolved.
pub const NEIGHBOUR_FRAMES_PER_S: u64 = 10_000;
/// How many of them may go at once.
const NEIGHBOUR_BURST: u64 = 1_000;

/// What kind of frame, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Probe,
    Reset,
    Segment,
    Neighbour,
}

/// What became of the frames of one class. `built = sent + refused by policy + refused by device + pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounters {
    /// Frames that were built.
    pub built: u64,
    /// Frames the policy (for neighbour frames: the bound on their rate) kept from being sent, for each
    /// [`RefusedBecause`] by its number.
    pub refused: [u64; RefusedBecause::COUNT],
    /// Neighbour frames above their rate; 0 for the other classes.
    pub over_rate: u64,
    /// Frames the device took.
    pub sent: u64,
    /// Frames that were committed and then given up, because the device is gone or the run ended.
    pub refused_by_device: u64,
}

impl ClassCounters {
    /// Frames kept back by a rule of ours.
    pub fn refused_by_policy(&self) -> u64 {
        self.refused.iter().sum::<u64>() + self.over_rate
    }

    /// Frames committed and on their way.
    pub fn pending(&self) -> u64 {
        self.built - self.refused_by_policy() - self.sent - self.refused_by_device
    }

    /// Adds another gate's counters.
    pub fn add(&mut self, other: &Self) {
        self.built += other.built;
        self.over_rate += other.over_rate;
        self.sent += other.sent;
        self.refused_by_device += other.refused_by_device;
        for (mine, theirs) in self.refused.iter_mut().zip(other.refused) {
            *mine += theirs;
        }
    }
}

/// A gate's counters since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateCounters {
    /// Frames of the measurement itself.
    pub probes: ClassCounters,
    /// Our RSTs.
    pub resets: ClassCounters,
    /// Segments of connections.
    pub segments: ClassCounters,
    /// ARP and neighbour discovery.
    pub neighbour: ClassCounters,
    /// How often the device said that it is full. Nothing is lost by it: the frames are offered again.
    pub device_full: u64,
    /// Frames, counted as sent, that the device refused when their memory was gone already: see [`Sender::lost`]. Nobody
    /// knows which they were.
    pub lost: u64,
}

impl GateCounters {
    /// Adds another gate's counters.
    pub fn add(&mut self, other: &Self) {
        self.probes.add(&other.probes);
        self.resets.add(&other.resets);
        self.segments.add(&other.segments);
        self.neighbour.add(&other.neighbour);
        self.device_full += other.device_full;
        self.lost += other.lost;
    }

    /// Frames of every class that the device took: what its own counter must have moved by.
    pub fn sent(&self) -> u64 {
        self.probes.sent + self.resets.sent + self.segments.sent + self.neighbour.sent - self.lost
    }
}

/// What one [`Gate::fill`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Frames that were built; fewer than asked for when `build` stopped or the engine has no memory free.
    pub built: usize,
    /// Those of them that the policy refused.
    pub refused: usize,
}

/// A [`Sender`] behind its policy.
pub struct Gate {
    sender: Box<dyn Sender>,
    policy: Arc<Policy>,
    /// What is denied while running, as of `generation`.
    denied: Option<Arc<Denied>>,
    generation: u64,
    counters: GateCounters,
    /// Committed frames by class, oldest first: tells whose frames the device took.
    queue: VecDeque<(Class, u64)>,
    neighbours: Bucket,
    /// Where a sample of what leaves is kept, and the number of this gate's interface in it.
    sample: Option<(Arc<Sample>, u32)>,
}

impl Gate {
    /// Puts a policy before a sender.
    pub fn new(sender: Box<dyn Sender>, policy: Arc<Policy>) -> Self {
        Self {
            sender,
            policy,
            denied: None,
            generation: 0,
            counters: GateCounters::default(),
            queue: VecDeque::new(),
            neighbours: Bucket::new(),
            sample: None,
        }
    }

    /// Shows a sample every frame that is committed from now on, but for those of neighbours.
    pub fn show(&mut self, sample: Arc<Sample>, interface: u32) {
        self.sample = Some((sample, interface));
    }

    /// Builds up to `frames` frames of at most `frame_len` bytes and commits those that the policy permits.
    ///
    /// `build` writes a frame into the slot it is given and returns its length, or `None` to stop. It is called only
    /// when there is a slot, so that whatever it counts off is really built. A slot holds whatever was there before.
    ///
    /// # Errors
    /// Those of [`Sender::reserve`].
    ///
    /// # Panics
    /// When `build` returns a length above `frame_len`.
    #[inline]
    pub fn fill(
        &mut self,
        frames: usize,
        frame_len: usize,
        build: impl FnMut(&mut [u8]) -> Option<usize>,
    ) -> Result<Filled, LinkError> {
        self.fill_class(Class::Probe, frames, frame_len, build)
    }

    /// The same for our RSTs, which are counted apart.
    ///
    /// # Errors
    /// As [`Gate::fill`].
    pub fn reset(
        &mut self,
        frames: usize,
        frame_len: usize,
        build: impl FnMut(&mut [u8]) -> Option<usize>,
    ) -> Result<Filled, LinkError> {
        self.fill_class(Class::Reset, frames, frame_len, build)
    }

    /// The same for the segments of connections, which are counted apart.
    ///
    /// # Errors
    /// As [`Gate::fill`].
    pub fn segments(
        &mut self,
        frames: usize,
        frame_len: usize,
        build: impl FnMut(&mut [u8]) -> Option<usize>,
    ) -> Result<Filled, LinkError> {
        self.fill_class(Class::Segment, frames, frame_len, build)
    }

    fn fill_class(
        &mut self,
        class: Class,
        frames: usize,
        frame_len: usize,
        mut build: impl FnMut(&mut [u8]) -> Option<usize>,
    ) -> Result<Filled, LinkError> {
        self.refresh_denied();
        let denied = self.denied.as_deref();
        let counters = match class {
            Class::Reset => &mut self.counters.resets,
            Class::Segment => &mut self.counters.segments,
            Class::Probe | Class::Neighbour => &mut self.counters.probes,
        };
        let mut filled = Filled::default();
        let mut batch = self.sender.reserve(frames, frame_len)?;
        while filled.built < frames {
            let Some(slot) = batch.slot() else { break };
            let Some(length) = build(slot) else { break };
            filled.built += 1;
            match self.policy.judge(&slot[..length], denied) {
                Verdict::Permitted => {
                    if let Some((sample, interface)) = &self.sample {
                        sample.sent(&slot[..length], *interface);
                    }
                    batch.push(length);
                }
                Verdict::Refused(because) => {
                    counters.refused[because as usize] += 1;
                    filled.refused += 1;
                }
            }
        }
        let permitted = batch.used();
        counters.built += filled.built as u64;
        self.commit(class, permitted);
        Ok(filled)
    }

    /// Sends a frame of ARP or neighbour discovery. It is exempt from the policy, bounded in rate, and counted.
    /// Returns whether it was committed: not when the bound is reached or the engine is full, as the asker asks again.
    ///
    /// # Errors
    /// Those of [`Sender::reserve`], and [`LinkError::Config`] for any other kind of frame.
    pub fn neighbour(&mut self, frame: &[u8]) -> Result<bool, LinkError> {
        if !is_neighbour(frame) {
            return Err(LinkError::config("only ARP and neighbour discovery may be sent as neighbour frames"));
        }
        self.counters.neighbour.built += 1;
        if !self.neighbours.take(now_ns()) {
            self.counters.neighbour.over_rate += 1;
            return Ok(false);
        }
        let mut batch = self.sender.reserve(1, frame.len())?;
        let Some(slot) = batch.slot() else {
            self.counters.neighbour.refused_by_device += 1;
            return Ok(false);
        };
        slot[..frame.len()].copy_from_slice(frame);
        batch.push(frame.len());
        self.commit(Class::Neighbour, 1);
        Ok(true)
    }

    /// Gets committed frames moving. Does not block.
    ///
    /// # Errors
    /// Those of [`Sender::kick`]. Frames the device had taken before are counted as sent.
    pub fn kick(&mut self) -> Result<Kicked, LinkError> {
        let before = self.sender.pending();
        let kicked = self.sender.kick();
        // Before the error is looked at, so that a failing kick loses no count.
        self.account(before);
        let kicked = kicked?;
        self.counters.device_full += kicked.refused;
        Ok(kicked)
    }

    /// Gives up what the device has not taken: after an error, or when a run stops. The counters balance from then on.
    pub fn abandon(&mut self) {
        let before = self.sender.pending();
        self.sender.withdraw();
        self.account(before);
        for (class, frames) in self.queue.drain(..) {
            of(&mut self.counters, class).refused_by_device += frames;
        }
    }

    /// Frames committed and not yet taken by the device.
    pub fn pending(&self) -> usize {
        self.sender.pending()
    }

    /// See [`Sender::completed`].
    pub fn completed(&self) -> u64 {
        self.sender.completed()
    }

    /// See [`Sender::max_frame`].
    pub fn max_frame(&self) -> usize {
        self.sender.max_frame()
    }

    /// The counters so far.
    pub fn counters(&self) -> GateCounters {
        self.counters
    }

    /// The policy that judges here.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    fn refresh_denied(&mut self) {
        let generation = self.policy.generation();
        if generation != self.generation {
            let denied = self.policy.denied();
            self.denied = (!denied.is_empty()).then_some(denied);
            self.generation = generation;
        }
    }

    fn commit(&mut self, class: Class, frames: usize) {
        if frames == 0 {
            return;
        }
        self.sender.commit(frames);
        match self.queue.back_mut() {
            Some((last, waiting)) if *last == class => *waiting += frames as u64,
            _ => self.queue.push_back((class, frames as u64)),
        }
    }

    /// Counts what left the queue since so many frames waited, and what the device lost.
    fn account(&mut self, before: usize) {
        self.took((before - self.sender.pending()) as u64);
        self.counters.lost = self.sender.lost();
    }

    fn took(&mut self, mut frames: u64) {
        while frames > 0 {
            let Some((class, waiting)) = self.queue.front_mut() else { return };
            let now = frames.min(*waiting);
            of(&mut self.counters, *class).sent += now;
            *waiting -= now;
            frames -= now;
            if *waiting == 0 {
                self.queue.pop_front();
            }
        }
    }
}

fn of(counters: &mut GateCounters, class: Class) -> &mut ClassCounters {
    match class {
        Class::Probe => &mut counters.probes,
        Class::Reset => &mut counters.resets,
        Class::Segment => &mut counters.segments,
        Class::Neighbour => &mut counters.neighbour,
    }
}

/// ARP, or ICMPv6 of the neighbour discovery types.
fn is_neighbour(frame: &[u8]) -> bool {
    let ip = match frame.get(12..14) {
        Some([0x81, 0x00]) => 18,
        _ => 14,
    };
    match frame.get(ip - 2..ip) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => {
            frame.get(ip + 6) == Some(&58) && frame.get(ip + 40).is_some_and(|kind| (133..=137).contains(kind))
        }
        _ => false,
    }
}

/// A token bucket over the monotonic clock.
#[derive(Debug)]
struct Bucket {
    tokens: u64,
    filled_ns: u64,
}

impl Bucket {
    fn new() -> Self {
        Self { tokens: NEIGHBOUR_BURST, filled_ns: now_ns() }
    }

    fn take(&mut self, now_ns: u64) -> bool {
        const NS_PER_TOKEN: u64 = 1_000_000_000 / NEIGHBOUR_FRAMES_PER_S;
        let earned = now_ns.saturating_sub(self.filled_ns) / NS_PER_TOKEN;
        self.filled_ns += earned * NS_PER_TOKEN;
        self.tokens = (self.tokens + earned).min(NEIGHBOUR_BURST);
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
