//! Fields of records, which are as long as they say and no longer.

use irl_targets::Family;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes)
}

pub(crate) fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map(u128::from_be_bytes)
}

/// An address of a family-neutral record: mapped IPv4 for IPv4 plans.
pub(crate) fn plain(family: Family, address: u128) -> Option<u128> {
    match family {
        Family::V6 => Some(address),
        Family::V4 => (address >> 32 == 0xffff).then_some(address & 0xffff_ffff),
    }
}
