//! The responder in the kernel: an XDP program that answers for a World, millions of times a second.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{Array, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use irl_link::LinkError;
use irl_link::filter::attach_program;
use irl_targets::{Family, PrefixSet};

use crate::service::{MOST_BYTES, Service};
use crate::world::World;

/// Whether this build has the responder in it: false when there was no clang.
pub const RESPONDER_BUILT: bool = cfg!(irl_bpf);

#[cfg(irl_bpf)]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/responder.bpf.o"));
#[cfg(not(irl_bpf))]
static OBJECT: &[u8] = &[];

const PROGRAM: &str = "responder";
/// The most ranges of addresses, `MAX_RANGES` in `bpf/answer.h`.
const MAX_RANGES: usize = 16;
/// `sizeof(struct range)` there.
const RANGE_LEN: usize = 40;
/// Where `hold` and `reply` lie in `struct config`, and how long that is.
const HOLD_AT: usize = 16 + MAX_RANGES * RANGE_LEN;
const REPLY_AT: usize = HOLD_AT + 16;
const CONFIG_LEN: usize = REPLY_AT + (MOST_BYTES as usize).next_multiple_of(8);

/// What the responder did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounters {
    /// Frames it answered.
    pub answered: u64,
    /// Frames that nobody answers.
    pub silent: u64,
    /// Frames it left to the responder in user space.
    pub passed: u64,
    /// Frames too short for their answer, left to user space too.
    pub no_room: u64,
    /// Answers with data among those answered.
    pub served: u64,
    /// Segments that were swallowed while on hold.
    pub held: u64,
}

/// A World's hosts on an interface. Dropping it, or the death of the process, detaches it.
#[derive(Debug)]
pub struct XdpResponder {
    // Detached first.
    link: Option<OwnedFd>,
    ebpf: Ebpf,
    config: Box<[u8; CONFIG_LEN]>,
}

impl XdpResponder {
    /// Loads the responder for the addresses in `ranges` with a service behind each open port, and attaches it to an interface of the calling thread's
    /// namespace. What it can't answer needs [`serve`](crate::serve::serve) on the same interface.
    ///
    /// # Errors
    /// [`LinkError::Unsupported`] when it was built without clang, [`LinkError::Config`] for too many ranges,
    /// [`LinkError::Load`], [`LinkError::Occupied`], [`LinkError::UnknownInterface`], [`LinkError::Os`].
    pub fn attach(interface: &str, world: &World, ranges: &[PrefixSet], service: Service) -> Result<Self, LinkError> {
        let mut responder = Self::load(world, ranges, service)?;
        let program = responder.program()?;
        let descriptor = program.fd().map_err(|error| load_error(&error))?;
        responder.link = Some(attach_program(descriptor.as_fd(), interface)?);
        Ok(responder)
    }

    /// Loads it without attaching it: for [`XdpResponder::rehearse`].
    ///
    /// # Errors
    /// As [`XdpResponder::attach`].
    pub fn load(world: &World, ranges: &[PrefixSet], service: Service) -> Result<Self, LinkError> {
        if OBJECT.is_empty() {
            return Err(LinkError::Unsupported(
                "this build has no responder for the kernel, because clang was missing when it was made: install clang \
                 and build again"
                    .to_owned(),
            ));
        }
        let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(|error| load_error(&error))?;
        let config = Box::new(encode(world, ranges, service)?);
        configure(&mut ebpf, &config)?;
        let program: &mut Xdp = ebpf
            .program_mut(PROGRAM)
            .ok_or_else(|| missing(PROGRAM))?
            .try_into()
            .map_err(|error| load_error(&error))?;
        program.load().map_err(|error| load_error(&error))?;
        Ok(Self { link: None, ebpf, config })
    }

    /// Holds every dialogue: from now on SYNs are answered, and every other segment is swallowed and counted. Or goes on:
    /// what is then sent again is answered.
    ///
    /// # Errors
    /// [`LinkError::Load`] when the kernel refuses.
    pub fn hold(&mut self, hold: bool) -> Result<(), LinkError> {
        self.config[HOLD_AT..HOLD_AT + 4].copy_from_slice(&u32::from(hold).to_ne_bytes());
        configure(&mut self.ebpf, &self.config)
    }

    /// Gives a frame to the program without any network. Returns the answer, `None` when there is none, and whether the
    /// frame was left to user space.
    ///
    /// # Errors
    /// [`LinkError::Load`] when the kernel refuses.
    pub fn rehearse(&mut self, frame: &[u8]) -> Result<Rehearsed, LinkError> {
        const XDP_PASS: u32 = 2;
        const XDP_REDIRECT: u32 = 4;
        let mut out = [0; 2048];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = self.program()?.test_run(options).map_err(|error| load_error(&error))?;
        let length = result.data_size_out as usize;
        Ok(match result.return_value {
            XDP_REDIRECT => Rehearsed::Answered(out.get(..length).unwrap_or_default().to_vec()),
            XDP_PASS => Rehearsed::Passed,
            _ => Rehearsed::Silent,
        })
    }

    /// What it did so far.
    ///
    /// # Errors
    /// [`LinkError::Load`] when the kernel's counters cannot be read.
    pub fn counters(&self) -> Result<XdpCounters, LinkError> {
        let map = self.ebpf.map("counters").ok_or_else(|| missing("counters"))?;
        let counters: PerCpuArray<_, u64> = map.try_into().map_err(|error| load_error(&error))?;
        let sum = |index| -> Result<u64, LinkError> {
            Ok(counters.get(&index, 0).map_err(|error| load_error(&error))?.iter().sum())
        };
        Ok(XdpCounters {
            answered: sum(0)?,
            silent: sum(1)?,
            passed: sum(2)?,
            no_room: sum(3)?,
            served: sum(4)?,
            held: sum(5)?,
        })
    }

    fn program(&mut self) -> Result<&mut Xdp, LinkError> {
        self.ebpf
            .program_mut(PROGRAM)
            .ok_or_else(|| missing(PROGRAM))?
            .try_into()
            .map_err(|error: aya::programs::ProgramError| load_error(&error))
    }
}

/// What [`XdpResponder::rehearse`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rehearsed {
    /// This frame went back.
    Answered(Vec<u8>),
    /// Left to user space.
    Passed,
    /// Nothing.
    Silent,
}

fn configure(ebpf: &mut Ebpf, config: &[u8; CONFIG_LEN]) -> Result<(), LinkError> {
    let map = ebpf.map_mut("config").ok_or_else(|| missing("config"))?;
    let mut map: Array<_, [u8; CONFIG_LEN]> = map.try_into().map_err(|error| load_error(&error))?;
    map.set(0, config, 0).map_err(|error| load_error(&error))
}

/// `struct config` of `bpf/answer.h`.
fn encode(world: &World, ranges: &[PrefixSet], service: Service) -> Result<[u8; CONFIG_LEN], LinkError> {
    let mut out = [0; CONFIG_LEN];
    let all: Vec<_> = ranges.iter().flat_map(|set| set.ranges().iter().map(|range| (set.family(), *range))).collect();
    if all.len() > MAX_RANGES {
        return Err(LinkError::config(format!(
            "a responder answers for {MAX_RANGES} ranges at most, not {}",
            all.len()
        )));
    }
    let config = world.config();
    out[..8].copy_from_slice(&config.seed.to_ne_bytes());
    out[8..12].copy_from_slice(&u32::from(config.everything_open).to_ne_bytes());
    out[12..16].copy_from_slice(&(all.len() as u32).to_ne_bytes());
    for (slot, (family, (first, last))) in out[16..HOLD_AT].chunks_exact_mut(RANGE_LEN).zip(all) {
        let words =
            [(first >> 64) as u64, first as u64, (last >> 64) as u64, last as u64, u64::from(family == Family::V6)];
        for (place, word) in slot.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
    }
    if let Some(reply) = service.reply() {
        let length = reply.template.len();
        out[HOLD_AT + 4..HOLD_AT + 8].copy_from_slice(&u32::from(reply.fin).to_ne_bytes());
        out[HOLD_AT + 8..HOLD_AT + 12].copy_from_slice(&(reply.digits_at as u32).to_ne_bytes());
        out[HOLD_AT + 12..HOLD_AT + 14].copy_from_slice(&reply.sum().to_ne_bytes());
        // At most MOST_BYTES.
        out[HOLD_AT + 14..REPLY_AT].copy_from_slice(&(length as u16).to_ne_bytes());
        out[REPLY_AT..REPLY_AT + length].copy_from_slice(&reply.template);
    }
    Ok(out)
}

pub(crate) fn missing(name: &str) -> LinkError {
    LinkError::Load { reason: format!("the lab's object has no {name}"), log: String::new() }
}

pub(crate) fn load_error(error: &dyn std::error::Error) -> LinkError {
    let mut log = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        log += &format!("{cause}\n");
        source = cause.source();
    }
    LinkError::Load { reason: error.to_string(), log }
}
