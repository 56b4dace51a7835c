//! The one clock of the hot paths.

/// CLOCK_MONOTONIC in ns: the clock of record times and of the times that probes carry.
#[cfg(target_os = "linux")]
pub fn now_ns() -> u64 {
    // CLOCK_MONOTONIC always exists, so the call cannot fail; 0 would only spoil a round-trip time.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// A monotonic time in ns since the first call.
#[cfg(not(target_os = "linux"))]
pub fn now_ns() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}

/// Whether the kernel's clock is kept in step with UTC, and by how many microseconds it may be off at most (adjtimex).
#[cfg(target_os = "linux")]
pub fn synchronised() -> Option<(bool, i64)> {
    // SAFETY: timex is plain integers, for which zero is valid.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: adjtimex reads and writes only the struct it is given; modes = 0 changes nothing.
    let result = unsafe { libc::adjtimex(&mut state) };
    (result >= 0).then_some((result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0, state.maxerror))
}

/// Whether the clock is kept in step with UTC is not known here.
#[cfg(not(target_os = "linux"))]
pub fn synchronised() -> Option<(bool, i64)> {
    None
}
