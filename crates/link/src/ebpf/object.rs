//! What every embedded eBPF object needs: its maps by name, and the loader's errors in full sentences.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Map, MapError};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfError};

use super::mapping::Mapping;
use super::privilege::missing_capability;
use crate::error::LinkError;

/// The object lacks what the code expects: it was built from other sources.
pub(crate) fn missing(name: &str) -> LinkError {
    LinkError::Unsupported(format!("the embedded eBPF object has no {name}: build again from a clean tree"))
}

/// A program of the object, of this kind.
pub(crate) fn program_mut<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, LinkError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|error| program_error(name, error))
}

/// A map of the object.
pub(crate) fn map_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map, LinkError> {
    ebpf.map_mut(name).ok_or_else(|| missing(name))
}

/// The descriptor of an array.
pub(crate) fn descriptor<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<BorrowedFd<'a>, LinkError> {
    match map_mut(ebpf, name)? {
        Map::Array(data) | Map::ArrayOfMaps(data) => Ok(data.fd().as_fd()),
        _ => Err(missing(name)),
    }
}

/// An array made with BPF_F_MMAPABLE, mapped.
pub(crate) fn mapped(ebpf: &mut Ebpf, name: &str, len: usize) -> Result<Mapping, LinkError> {
    Mapping::new(descriptor(ebpf, name)?, len, 0, true)
        .map_err(|error| LinkError::os(format!("mapping the eBPF map {name}"), error))
}

/// What a map refused, in a sentence.
pub(crate) fn map_error(error: MapError) -> LinkError {
    match error {
        MapError::SyscallError(error) => LinkError::os(error.call, error.io_error),
        other => LinkError::Unsupported(format!("an eBPF map cannot be used: {other}")),
    }
}

/// EPERM although the capabilities are there: a container or a user namespace that the kernel does not trust with BPF.
fn refused_bpf() -> LinkError {
    LinkError::Privilege {
        capability: missing_capability().unwrap_or("CAP_BPF in the host's own user namespace"),
        what: "loading an eBPF program".to_owned(),
    }
}

/// Why the program `name` and its maps could not be loaded.
pub(crate) fn load_error(name: &str, error: EbpfError) -> LinkError {
    match error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) if io_error.raw_os_error() == Some(libc::EPERM) => {
            refused_bpf()
        }
        EbpfError::ProgramError(error) => program_error(name, error),
        other => LinkError::Load { reason: with_sources(&other), log: String::new() },
    }
}

/// Why the kernel refused the program `name`, with the verifier's log.
pub(crate) fn program_error(name: &str, error: ProgramError) -> LinkError {
    match error {
        ProgramError::LoadError { io_error, .. }
            if matches!(io_error.raw_os_error(), Some(libc::EPERM)) && missing_capability().is_some() =>
        {
            refused_bpf()
        }
        ProgramError::LoadError { io_error, verifier_log } => {
            LinkError::Load { reason: format!("{name}: {io_error}"), log: verifier_log.to_string() }
        }
        ProgramError::SyscallError(error) => LinkError::os(error.call, error.io_error),
        other => LinkError::Load { reason: format!("{name}: {}", with_sources(&other)), log: String::new() },
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(all(test, irl_bpf))]
mod tests {
    use std::io::Write;

    use aya::programs::Xdp;

    use super::*;

    static REFUSED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/refused.bpf.o"));

    #[test]
    fn a_refusal_shows_what_the_verifier_said() {
        if missing_capability().is_some() {
            // Past the test harness, which swallows what it prints for tests that pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED: a_refusal_shows_what_the_verifier_said needs root");
            return;
        }
        let mut ebpf = Ebpf::load(REFUSED).unwrap();
        let program: &mut Xdp = program_mut(&mut ebpf, "irl_refused").unwrap();
        let error = program_error("irl_refused", program.load().unwrap_err());
        let LinkError::Load { reason, log } = &error else { panic!("{error:?}") };
        assert!(reason.contains("irl_refused: "), "{reason}");
        assert!(log.contains("invalid access to packet"), "{log}");
        let shown = error.to_string();
        assert!(shown.contains("the kernel refused our XDP program"), "{shown}");
        assert!(shown.contains("invalid access to packet"), "{shown}");
    }
}
