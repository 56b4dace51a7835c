//! The far end of the transmit benchmarks: an XDP program that counts frames and drops them.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::PerCpuArray;
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use irl_link::LinkError;
use irl_link::filter::attach_program;

use crate::xdp::{load_error, missing};

#[cfg(irl_bpf)]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sink.bpf.o"));
#[cfg(not(irl_bpf))]
static OBJECT: &[u8] = &[];

const PROGRAM: &str = "sink";

/// What arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// TCP frames to 10.0.0.0/8.
    pub frames: u64,
    /// Their bytes, from the Ethernet header on, without FCS.
    pub bytes: u64,
}

/// A sink on an interface. Dropping it, or the death of the process, detaches it.
#[derive(Debug)]
pub struct Sink {
    // Detached first.
    _link: OwnedFd,
    ebpf: Ebpf,
}

impl Sink {
    /// Attaches a sink to an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// [`LinkError::Unsupported`] when it was built without clang, [`LinkError::Load`], [`LinkError::Occupied`],
    /// [`LinkError::UnknownInterface`], [`LinkError::Os`].
    pub fn attach(interface: &str) -> Result<Self, LinkError> {
        if OBJECT.is_empty() {
            return Err(LinkError::Unsupported(
                "this build has no sink, because clang was missing when it was made: install clang and build again"
                    .to_owned(),
            ));
        }
        let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(|error| load_error(&error))?;
        let program: &mut Xdp = ebpf
            .program_mut(PROGRAM)
            .ok_or_else(|| missing(PROGRAM))?
            .try_into()
            .map_err(|error: aya::programs::ProgramError| load_error(&error))?;
        program.load().map_err(|error| load_error(&error))?;
        let descriptor = program.fd().map_err(|error| load_error(&error))?;
        let link = attach_program(descriptor.as_fd(), interface)?;
        Ok(Self { _link: link, ebpf })
    }

    /// What arrived so far.
    ///
    /// # Errors
    /// [`LinkError::Load`] when the kernel's counters cannot be read.
    pub fn arrived(&self) -> Result<Arrived, LinkError> {
        let map = self.ebpf.map("totals").ok_or_else(|| missing("totals"))?;
        let totals: PerCpuArray<_, [u64; 2]> = map.try_into().map_err(|error| load_error(&error))?;
        let each = totals.get(&0, 0).map_err(|error| load_error(&error))?;
        Ok(each.iter().fold(Arrived::default(), |sum, [frames, bytes]| Arrived {
            frames: sum.frames + frames,
            bytes: sum.bytes + bytes,
        }))
    }
}
