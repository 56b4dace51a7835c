//! What a worker does with what comes back: a scan judges each answer, an exchange talks with whoever answers.
//!
//! The loop is made anew for each of them at compile time, so that a scan pays nothing for what it does not need.

use std::sync::Arc;

use arrow_array::RecordBatch;
use irl_link::record::Record;
use irl_link::{Gate, Hop, LinkError, NextHop};
use irl_targets::{Target, address_bits};
use irl_wire::{FrameBuilder, Mac};

use crate::attachment::Attachment;
use crate::checkpoint::Marks;
use crate::listing::Listing;
use crate::shared::Shared;
use crate::stats::WorkerCounters;

/// Where in a run a worker is.
pub(crate) struct Here<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) counters: &'a WorkerCounters,
    /// Its last probe has left.
    pub(crate) cooling: bool,
    pub(crate) now_ns: u64,
}

/// What a worker does with what comes back.
pub(crate) trait Answers: Send {
    /// Whether later passes send a SYN as a TCP sends it again, see [`syn_number`](crate::passes::syn_number). Else each
    /// probe has a port of its own, by which its answers are told from the others'.
    const SAME_PORT: bool;

    /// Reads a record that is whole and intact, neighbour frames aside. What it means may be told by [`Answers::settle`] only, which follows the
    /// last one.
    fn take(&mut self, record: Record<'_>, here: &Here<'_>);

    /// Tells what the records read so far mean.
    fn settle(&mut self, here: &Here<'_>);

    /// Sends what is owed to those that answered, as far as the device has room. It goes before probes, which would only
    /// make more of it due. Returns how many frames were built.
    fn send(&mut self, gate: &mut Gate, here: &Here<'_>) -> Result<u64, LinkError>;

    /// Whether something is still owed.
    fn owes(&self) -> bool;

    /// How many more probes may be under way.
    fn room(&mut self, _: &Here<'_>) -> u64 {
        u64::MAX
    }

    /// The list that targets come from instead of the plan.
    fn list(&self) -> Option<Arc<Listing>> {
        None
    }

    /// Whether this target may be probed now.
    fn may_probe(&mut self, _: Target, _now_ns: u64) -> bool {
        true
    }

    /// Answers so far, as a search for the fastest rate expects one a probe.
    fn heard(&self, here: &Here<'_>) -> u64;

    /// Does what time brings, when all that had come was read.
    fn due(&mut self, _: &Here<'_>) {}

    /// When time brings something next.
    fn next_due_ns(&self) -> Option<u64> {
        None
    }

    /// Whether something is under way that the run waits for, however long its cooldown is.
    fn is_busy(&self) -> bool {
        false
    }

    /// Whether a batch of rows is due.
    fn is_full(&self) -> bool;

    /// The rows so far; `None` when there are none.
    fn rows(&mut self) -> Option<RecordBatch>;

    /// What was marked in the answered map by the answers of the rows so far, where a checkpoint wants that.
    fn marks(&mut self) -> Marks {
        Marks::default()
    }

    /// Whether the targets that stay silent are told of at the end.
    fn tells_silent(&self) -> bool {
        false
    }

    /// One that did, and the address of ours that it was probed from.
    fn silent(&mut self, _ours: usize, _: Target, _: &Here<'_>) {}

    /// Writes down what it counts itself.
    fn publish(&self, _: &WorkerCounters) {}

    /// Ends what is under way, because the run does. What can still be sent is built.
    fn end(&mut self, gate: &mut Gate, here: &Here<'_>) -> Result<(), LinkError>;
}

/// Our addresses as one worker sees them.
#[derive(Clone)]
pub(crate) struct Ours {
    /// All of the run, those of this worker's network first, and what builds probes from each.
    pub(crate) addresses: Vec<u128>,
    pub(crate) builders: Vec<FrameBuilder>,
    /// How many of them are this network's. Answers to the others' may come in here, too.
    pub(crate) here: usize,
    gateway: Option<Mac>,
    hops: Arc<dyn NextHop>,
}

impl Ours {
    /// Those of all attachments, as the workers of number `turn` see them.
    pub(crate) fn of(attachments: &[Attachment], turn: usize) -> Self {
        let attachment = &attachments[turn];
        let others = attachments.iter().enumerate().filter(|(other, _)| *other != turn).map(|(_, each)| each);
        let all: Vec<&Attachment> = std::iter::once(attachment).chain(others).collect();
        let hops = attachment.network().next_hop();
        Self {
            addresses: all.iter().flat_map(|each| each.sources()).map(|source| address_bits(*source)).collect(),
            builders: all.iter().flat_map(|each| each.builders()).cloned().collect(),
            here: attachment.builders().len(),
            gateway: hops.constant(),
            hops,
        }
    }

    /// The number of an address of ours.
    #[inline]
    pub(crate) fn number(&self, address: u128) -> Option<usize> {
        match self.addresses.as_slice() {
            [one] => (*one == address).then_some(0),
            many => many.iter().position(|ours| *ours == address),
        }
    }

    /// The MAC that frames to this address go to, where it is known.
    #[inline]
    pub(crate) fn hop(&self, address: u128) -> Option<Mac> {
        self.gateway.or_else(|| match self.hops.lookup(address) {
            Hop::Known(mac) => Some(mac),
            Hop::Pending | Hop::Unreachable => None,
        })
    }
}
