//! CPUs that a thread may run on.

use crate::error::LinkError;

/// Refuses CPUs that this process may not run on: not there, or not in its cpuset.
///
/// # Errors
/// [`LinkError::Config`] naming the first such CPU and those that it may, [`LinkError::Unsupported`] off Linux.
pub fn check(cores: &[usize]) -> Result<(), LinkError> {
    if cores.is_empty() {
        return Ok(());
    }
    let allowed = allowed()?;
    match cores.iter().find(|core| !allowed.contains(core)) {
        None => Ok(()),
        Some(core) => {
            let allowed = allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            Err(LinkError::config(format!("--cores {core} cannot be: this process may run on the CPUs {allowed}")))
        }
    }
}

/// The CPUs that the calling thread may run on.
#[cfg(target_os = "linux")]
fn allowed() -> Result<Vec<usize>, LinkError> {
    use nix::sched::CpuSet;
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))
        .map_err(|error| LinkError::os("asking for the CPUs of this process", error.into()))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Binds the calling thread to one CPU.
///
/// # Errors
/// [`LinkError::Os`] when there is no such CPU for this process, [`LinkError::Unsupported`] off Linux.
#[cfg(target_os = "linux")]
pub fn pin(core: usize) -> Result<(), LinkError> {
    let bind = || {
        let mut set = nix::sched::CpuSet::new();
        set.set(core)?;
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
    };
    bind().map_err(|error| LinkError::os("binding a thread to its CPU", error.into()))
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Result<Vec<usize>, LinkError> {
    Err(LinkError::Unsupported("threads can be bound to CPUs on Linux only: leave --cores out".to_owned()))
}

/// Binds the calling thread to one CPU.
///
/// # Errors
/// [`LinkError::Unsupported`].
#[cfg(not(target_os = "linux"))]
pub fn pin(_core: usize) -> Result<(), LinkError> {
    allowed().map(drop)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_where_it_was_bound_and_the_others_stay_free() {
        let before = allowed().unwrap();
        let core = *before.last().unwrap();
        check(&before).unwrap();
        let bound = std::thread::spawn(move || {
            pin(core).unwrap();
            allowed().unwrap()
        });
        assert_eq!(bound.join().unwrap(), [core]);
        assert_eq!(allowed().unwrap(), before);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named() {
        let error = check(&[0, 1_000_000]).unwrap_err().to_string();
        assert!(error.contains("1000000 cannot be") || error.contains("--cores 0 cannot be"), "{error}");
        assert!(pin(1_000_000).is_err());
    }
}
