//! Receives without an XDP program: a packet socket's ring, the filter's twin, and a queue for each owner.
//!
//! The host sees the same frames. On a spare address it ignores them; on an address of its own it answers them with
//! RSTs, which `EngineInfo::kernel_rst` says.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ring::{Arrival, Ring};
use super::{bare, checksum};
use crate::clock::now_ns;
use crate::engine::Receiver;
use crate::error::LinkError;
use crate::filter::{FilterConfig, FilterCounters, OwnerConfig, TwinFilter, Verdict};
use crate::memory::Taken;
use crate::netdev::{Interface, os_error};
use crate::record::Record;

/// The kernel's ring.
const RING_BYTES: usize = 32 << 20;
/// Frames taken from the ring in one turn, so that no owner waits long for another's.
const FRAMES_PER_TURN: usize = 4096;

/// One ring for all owners of an interface: whoever polls moves what has arrived to its owner's queue.
pub struct PacketPump {
    source: Mutex<Source>,
    queues: Mutex<BTreeMap<u16, Arc<Mutex<Queue>>>>,
    descriptor: OwnedFd,
    interface: String,
}

struct Source {
    ring: Ring,
    /// Whether frames come with an Ethernet header.
    ethernet: bool,
    twin: TwinFilter,
    /// Frames the kernel's ring had no room for.
    ring_dropped: u64,
    /// A record on its way to a queue, and a frame that had to be mended first.
    record: Vec<u8>,
    mended: Vec<u8>,
}

/// Records of one owner, one behind the other.
#[derive(Default)]
struct Queue {
    records: Vec<u8>,
    limit: usize,
    overruns: u64,
}

impl PacketPump {
    /// Opens the ring, in the calling thread's namespace.
    ///
    /// # Errors
    /// [`LinkError::Privilege`] without CAP_NET_RAW, [`LinkError::Config`] for addresses given twice.
    pub fn open(interface: &Interface, config: &FilterConfig) -> Result<Arc<Self>, LinkError> {
        let twin = TwinFilter::new(config)?;
        let ring = Ring::open(interface, RING_BYTES)?;
        let descriptor = ring
            .descriptor()
            .try_clone()
            .map_err(|source| interface.error("doubling a packet socket's descriptor", source))?;
        Ok(Arc::new(Self {
            source: Mutex::new(Source {
                ring,
                ethernet: interface.ethernet,
                twin,
                ring_dropped: 0,
                record: Vec::new(),
                mended: Vec::new(),
            }),
            queues: Mutex::default(),
            descriptor,
            interface: interface.name.clone(),
        }))
    }

    /// Takes an owner in.
    ///
    /// # Errors
    /// [`LinkError::Config`] when its ports overlap another's.
    pub fn add_owner(self: &Arc<Self>, config: &OwnerConfig) -> Result<PacketReceiver, LinkError> {
        lock(&self.source).twin.add_owner(config)?;
        let queue = Arc::new(Mutex::new(Queue { limit: config.ring_bytes, ..Queue::default() }));
        lock(&self.queues).insert(config.owner, Arc::clone(&queue));
        Ok(PacketReceiver { pump: Arc::clone(self), queue, taken: Taken::default() })
    }

    /// Gives an owner's ports back.
    pub fn remove_owner(&self, owner: u16) {
        lock(&self.source).twin.remove_owner(owner);
        lock(&self.queues).remove(&owner);
    }

    /// What became of the frames, as the filter counts.
    pub fn counters(&self) -> FilterCounters {
        lock(&self.source).twin.counters().clone()
    }

    /// Frames that the kernel's ring had no room for.
    pub fn dropped(&self) -> u64 {
        let mut source = lock(&self.source);
        source.ring_dropped = source.ring.dropped();
        source.ring_dropped
    }

    /// Moves what has arrived to the queues. Does nothing while another owner is at it.
    fn turn(&self) {
        let mut source = match self.source.try_lock() {
            Ok(source) => source,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let queues = lock(&self.queues);
        let Source { ring, ethernet, twin, record, mended, .. } = &mut *source;
        // The ring has the time of day; records have the monotonic time.
        let realtime_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let age_to_monotonic = now_ns().wrapping_sub(realtime_ns);
        for _ in 0..FRAMES_PER_TURN {
            let Some(arrival) = ring.next() else { break };
            let time_ns = arrival.realtime_ns.wrapping_add(age_to_monotonic);
            record.clear();
            let verdict = twin.judge(whole(&arrival, *ethernet, mended), time_ns, record);
            let (Verdict::Record { owner } | Verdict::Copied { owner }) = verdict else { continue };
            let Some(queue) = queues.get(&owner) else { continue };
            let mut queue = lock(queue);
            if queue.records.len() + record.len() > queue.limit {
                queue.overruns += 1;
                twin.lost(owner);
            } else {
                queue.records.extend_from_slice(record);
            }
        }
    }
}

/// The frame as it would be on the wire: with its VLAN tag and its checksum; and with a header, where the device has none.
fn whole<'a>(arrival: &'a Arrival<'_>, ethernet: bool, mended: &'a mut Vec<u8>) -> &'a [u8] {
    if !ethernet {
        mended.clear();
        bare::dress(arrival.bytes, mended);
        if arrival.checksum_not_ready {
            checksum::finish(mended);
        }
        return mended;
    }
    if (arrival.vlan.is_none() && !arrival.checksum_not_ready) || arrival.bytes.len() < 14 {
        return arrival.bytes;
    }
    mended.clear();
    mended.extend_from_slice(arrival.bytes);
    if arrival.checksum_not_ready {
        checksum::finish(mended);
    }
    if let Some(tci) = arrival.vlan {
        let [high, low] = tci.to_be_bytes();
        mended.splice(12..12, [0x81, 0x00, high, low]);
    }
    mended
}

/// The receiving half of the engine `packet` where no filter is attached: the records of one owner.
pub struct PacketReceiver {
    pump: Arc<PacketPump>,
    queue: Arc<Mutex<Queue>>,
    taken: Taken,
}

impl Receiver for PacketReceiver {
    fn poll(&mut self, max: usize, each: &mut dyn FnMut(Record<'_>)) -> Result<usize, LinkError> {
        let refill = |memory: &mut Vec<u8>| {
            self.pump.turn();
            std::mem::swap(memory, &mut lock(&self.queue).records);
            Ok(())
        };
        self.taken.poll(max, refill, each)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), LinkError> {
        if !self.taken.is_empty() || !lock(&self.queue).records.is_empty() {
            return Ok(());
        }
        let mut waiting = [PollFd::new(self.pump.descriptor.as_fd(), PollFlags::POLLIN)];
        // Another owner may take our records from the ring while we sleep: look again soon.
        let timeout = timeout.min(Duration::from_millis(10)).as_micros().div_ceil(1000) as u16;
        match poll(&mut waiting, PollTimeout::from(timeout)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(LinkError::os("waiting for frames", errno.into())),
        }
        let failed = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        if waiting[0].revents().is_some_and(|events| events.intersects(failed))
            && let Some(error) = lock(&self.pump.source).ring.pending_error()
        {
            return Err(os_error(&self.pump.interface, "receiving frames", error));
        }
        Ok(())
    }

    /// What this owner's queue had no room for, and what the kernel's ring dropped for all owners together.
    fn overruns(&self) -> u64 {
        lock(&self.queue).overruns + self.pump.dropped()
    }
}

impl Drop for PacketReceiver {
    fn drop(&mut self) {
        // The pump may outlive us: give the memory back, and take no more.
        let mut queue = lock(&self.queue);
        queue.limit = 0;
        queue.records = Vec::new();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
