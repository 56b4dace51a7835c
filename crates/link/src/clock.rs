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
