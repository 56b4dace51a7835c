//! Echo requests.

use super::answer::{class, cookie};
use super::names::{Args, refuse_others};
use super::{Base, MatchRule, Patch, PatchSource, Probe, ProbeError, Protocol};

/// Identifier and sequence number carry the cookie's low half.
pub(super) const PATCHES: [Patch; 2] = [
    Patch { offset: 4, width: 2, source: PatchSource::Cookie(0) },
    Patch { offset: 6, width: 2, source: PatchSource::Cookie(16) },
];

/// That they do, in an answer or in what an error quotes.
pub(super) fn ours(base: Base) -> Vec<MatchRule> {
    vec![cookie(base, 4, 2, 0, 0), cookie(base, 6, 2, 16, 0)]
}

pub(super) fn echoscan(args: &Args) -> Result<Probe, ProbeError> {
    refuse_others("icmp_echoscan", args, &[], "none")?;
    // Type and code are the builder's, which knows the family; 8 bytes of time, 2 of probe number, 6 of nothing.
    let mut patches = PATCHES.to_vec();
    patches.push(Patch { offset: 8, width: 8, source: PatchSource::Nanoseconds });
    patches.push(Patch { offset: 16, width: 2, source: PatchSource::ProbeNumber });
    let answers = vec![
        class("echoreply", true, Protocol::Icmp, ours(Base::Transport)),
        class("icmp", false, Protocol::Icmp, ours(Base::Quoted)),
    ];
    Ok(Probe { template: vec![0; 24], patches, answers, ..Probe::named("icmp_echoscan", Protocol::Icmp) })
}
