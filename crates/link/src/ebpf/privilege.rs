//! Which capability the process lacks.

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// The first capability that loading and attaching an XDP program needs and this process does not have in effect.
pub fn missing_capability() -> Option<&'static str> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    missing_of(u64::from_str_radix(effective.trim(), 16).ok()?)
}

fn missing_of(effective: u64) -> Option<&'static str> {
    let has = |capability: u32| effective >> capability & 1 == 1;
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        Some("CAP_BPF")
    } else if !has(CAP_NET_ADMIN) {
        Some("CAP_NET_ADMIN")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_capability_is_named() {
        assert_eq!(missing_of(0), Some("CAP_BPF"));
        assert_eq!(missing_of(1 << CAP_BPF), Some("CAP_NET_ADMIN"));
        assert_eq!(missing_of(1 << CAP_NET_ADMIN), Some("CAP_BPF"));
        assert_eq!(missing_of(1 << CAP_BPF | 1 << CAP_NET_ADMIN), None);
        assert_eq!(missing_of(1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN), None);
    }
}
