//! The transmit program and its maps, loaded.

use std::io;
use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp};

use super::layout::{CONTROL_BYTES, Control, FRAME_MIN, RING_BYTES};
use crate::ebpf::{Mapping, load_error, mapped, missing, missing_capability, program_error, program_mut};
use crate::error::LinkError;

#[cfg(irl_bpf)]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/transmit.bpf.o"));
#[cfg(not(irl_bpf))]
static OBJECT: &[u8] = &[];

const PROGRAM: &str = "irl_transmit";

/// The program, its control block and its ring. One a sender.
#[derive(Debug)]
pub(super) struct Program {
    ebpf: Ebpf,
    pub(super) control: Control,
    pub(super) ring: Mapping,
}

impl Program {
    /// Loads the program. Nothing is attached to anything: it runs only while a call of [`Program::run`] does.
    pub(super) fn load() -> Result<Self, LinkError> {
        if OBJECT.is_empty() {
            return Err(LinkError::Unsupported(
                "this build has no eBPF programs, because clang was missing when it was made: install clang and \
                 build again"
                    .to_owned(),
            ));
        }
        if let Some(capability) = missing_capability() {
            return Err(LinkError::Privilege { capability, what: "the engine live".to_owned() });
        }
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| load_error(PROGRAM, error))?;
        let control = Control(mapped(&mut ebpf, "control", CONTROL_BYTES)?);
        let ring = mapped(&mut ebpf, "ring", RING_BYTES)?;
        let program: &mut Xdp = program_mut(&mut ebpf, PROGRAM)?;
        program.load().map_err(|error| program_error(PROGRAM, error))?;
        Ok(Self { ebpf, control, ring })
    }

    /// One call: runs the program over live frames, `batch` at a time, until a signal comes or the turns are used up.
    /// A signal is no error.
    pub(super) fn run(&self, batch: u32) -> Result<(), LinkError> {
        let program: &Xdp = self
            .ebpf
            .program(PROGRAM)
            .ok_or_else(|| missing(PROGRAM))?
            .try_into()
            .map_err(|error| program_error(PROGRAM, error))?;
        let usual_len = self.control.usual_len().load(Ordering::Relaxed);
        let frame = vec![0; usual_len as usize];
        debug_assert!(frame.len() >= FRAME_MIN, "the kernel refuses shorter frames");
        // `struct xdp_md`: data 0, data_end, and zeros.
        let mut context = [0; 24];
        context[4..8].copy_from_slice(&usual_len.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: u32::MAX,
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
            ..TestRunOptions::new()
        };
        match program.test_run(options) {
            Ok(_) => Ok(()),
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(ProgramError::SyscallError(error)) => Err(LinkError::os("sending live XDP frames", error.io_error)),
            Err(error) => Err(program_error(PROGRAM, error)),
        }
    }
}
