//! What really left: the device's answer to live frames, which comes after the transmit program has run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf, EbpfLoader};

use super::turns::Turns;
use crate::ebpf::{Mapping, load_error, mapped, program_error, program_mut};
use crate::error::LinkError;
use crate::netdev::{Interface, Namespace};

#[cfg(irl_bpf)]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/left.bpf.o"));
#[cfg(not(irl_bpf))]
static OBJECT: &[u8] = &[];

const PROGRAM: &str = "irl_left";
const TRACEPOINT: &str = "xdp_devmap_xmit";
/// `struct left` of `bpf/left.bpf.c`.
const LEFT_BYTES: usize = 24;

/// The live frames of one interface that its device took and refused. All senders on the interface share it.
#[derive(Debug)]
pub(crate) struct Left {
    interface: Interface,
    traced: Option<Traced>,
    /// Refused frames that some sender has answered for.
    claimed: AtomicU64,
    /// Frames that the senders handed to the device.
    handed: AtomicU64,
    /// Those that neither left nor were refused, and that some sender has answered for.
    missed: AtomicU64,
    /// Senders that use the device at present.
    senders: Mutex<u32>,
    /// How busy their calls were.
    turns: Turns,
}

/// The tracepoint's counts. Detached with the value, or with the process.
#[derive(Debug)]
struct Traced {
    counts: Mapping,
    _ebpf: Ebpf,
}

impl Left {
    /// Counts by the tracepoint `xdp_devmap_xmit` where that is allowed, else by the device's own counter, which tells
    /// frames that left from those that did not, but not ours from others'.
    ///
    /// # Errors
    /// [`LinkError::UnknownInterface`] when the interface has gone since.
    pub(crate) fn of(interface: &Interface, namespace: &Namespace) -> Result<Self, LinkError> {
        let traced = Traced::attach(interface, namespace)
            .inspect_err(|error| {
                log::info!(
                    "{}: frames that the device refuses are not counted one by one, because {error}",
                    interface.name
                );
            })
            .ok();
        Ok(Self {
            // One of its own, with its own socket.
            interface: Interface::by_name(&interface.name)?,
            traced,
            claimed: AtomicU64::new(0),
            handed: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            senders: Mutex::default(),
            turns: Turns::default(),
        })
    }

    /// Frames that left, since some moment before.
    pub(super) fn sent(&self) -> u64 {
        match &self.traced {
            Some(traced) => traced.counts.u64(0).load(Ordering::Acquire),
            None => self.interface.counters().map_or(0, |counters| counters.tx_packets),
        }
    }

    /// Frames refused that nobody has answered for yet: they are the caller's now.
    pub(super) fn claim_refused(&self) -> u64 {
        let Some(traced) = &self.traced else { return 0 };
        let refused = traced.counts.u64(8).load(Ordering::Acquire);
        let before = self.claimed.fetch_max(refused, Ordering::AcqRel);
        refused.saturating_sub(before)
    }

    /// Where calls note how busy they were.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// How busy they were so far, by name.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        self.turns.counters()
    }

    /// A sender begins to hand frames to the device.
    pub(super) fn join(&self) {
        *self.senders.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// So many frames were handed over.
    pub(super) fn handed(&self, frames: u64) {
        self.handed.fetch_add(frames, Ordering::Relaxed);
    }

    /// A sender ends. The last one answers for frames of which the device said nothing: it was down or gone.
    pub(super) fn leave(&self) -> u64 {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        *senders -= 1;
        let Some(traced) = &self.traced else { return 0 };
        if *senders > 0 {
            return 0;
        }
        let known = traced.counts.u64(0).load(Ordering::Acquire) + traced.counts.u64(8).load(Ordering::Acquire);
        let missed = self.handed.load(Ordering::Relaxed).saturating_sub(known);
        missed.saturating_sub(self.missed.swap(missed, Ordering::Relaxed))
    }
}

impl Traced {
    fn attach(interface: &Interface, namespace: &Namespace) -> Result<Self, LinkError> {
        let btf = Btf::from_sys_fs().map_err(|error| load_error(PROGRAM, error.into()))?;
        let loaded = EbpfLoader::new().btf(Some(&btf)).load(OBJECT);
        let mut ebpf = loaded.map_err(|error| load_error(PROGRAM, error))?;
        let counts = mapped(&mut ebpf, "left", LEFT_BYTES)?;
        counts.u32(16).store(interface.index, Ordering::Relaxed);
        // The kernel's number of a namespace has 32 bits.
        counts.u32(20).store(namespace.inode() as u32, Ordering::Relaxed);
        let program: &mut BtfTracePoint = program_mut(&mut ebpf, PROGRAM)?;
        program.load(TRACEPOINT, &btf).map_err(|error| program_error(PROGRAM, error))?;
        program.attach().map_err(|error| program_error(PROGRAM, error))?;
        Ok(Self { counts, _ebpf: ebpf })
    }
}
