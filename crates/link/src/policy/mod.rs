//! May this frame leave? Judged at the one place where frames are committed, on the copy that will be sent.
//!
//! Two levels. [`PolicySettings::authorise`] decides before a run whether its targets may be probed at all, and says in
//! a full sentence what is missing. The [`Policy`] it yields then judges every single frame at the [`Gate`]; what it
//! does not know it refuses.
//!
//! The rules: never multicast, broadcast, loopback, "this network", our own addresses; never from an address that is
//! not ours; only whole IPv4 and IPv6 packets (no fragments, no tunnels, no source routes, no stacked tags).
//! Globally reachable destinations need a contact, a named deny file, an explicit finite rate and a text that says who
//! authorised it. Special-purpose space (IANA's registry) is cut out of a wider target, and allowed when the target
//! itself lies inside it, with an explicit rate; the default rate serves only the simulated link and lab namespaces.

mod frame;
mod gate;
mod lab;
mod settings;
mod table;
mod verdict;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use irl_targets::{Family, PrefixSet, address_bits, registry};

pub use gate::{ClassCounters, Filled, Gate, GateCounters, NEIGHBOUR_FRAMES_PER_S};
pub use lab::lab_of_namespace;
pub use settings::{Arena, DEFAULT_RATE, DenyFile, Missing, OptOutFile, PolicyRefusal, PolicySettings, Rate, Targets};
pub use verdict::{RefusedBecause, Verdict};

use frame::Headers;
use table::{RangeTable, WordTable};

/// The compiled rules of one run. Shared by all its gates.
#[derive(Debug)]
pub struct Policy {
    v4: FamilyRules<WordTable>,
    v6: FamilyRules<RangeTable>,
    settings: PolicySettings,
    /// Shared with the policies made by [`Policy::leaving_from`].
    running: Arc<Running>,
}

/// What changes while a run goes on.
#[derive(Debug, Default)]
struct Running {
    denied: RwLock<Arc<Denied>>,
    /// Raised with every change of `denied`, so that a gate looks at the lock only then.
    generation: AtomicU64,
    optouts: Mutex<Reread>,
}

/// How often the opt-out file was read again while a run went on, and what it was then: at the last few times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reread {
    /// How often.
    pub times: u64,
    /// The last of them, at most [`Reread::MOST`].
    pub last: VecDeque<OptOutFile>,
}

impl Reread {
    /// So many are remembered.
    pub const MOST: usize = 100;
}

/// Where frames of one family may go, and where they may come from.
#[derive(Debug)]
struct FamilyRules<T> {
    /// Destinations that every rule allows; both may be as large as a list of targets, so no policy copies them.
    allowed: Arc<T>,
    allowed_set: Arc<PrefixSet>,
    /// Our addresses, sorted.
    sources: Vec<u128>,
    /// Our address, if there is just one.
    only_source: Option<u128>,
}

/// What was denied after the run began; empty for most runs.
#[derive(Debug)]
pub(crate) struct Denied {
    v4: PrefixSet,
    v6: PrefixSet,
}

impl Default for Denied {
    fn default() -> Self {
        Self { v4: PrefixSet::empty(Family::V4), v6: PrefixSet::empty(Family::V6) }
    }
}

impl Denied {
    fn set(&self, family: Family) -> &PrefixSet {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl Policy {
    /// Compiles what [`PolicySettings::authorise`] found allowed.
    fn new(settings: PolicySettings, v4: PrefixSet, v6: PrefixSet) -> Self {
        let sources = |family| of_family(&settings.sources, family);
        Self {
            v4: FamilyRules::new(Arc::new(WordTable::new(&v4)), Arc::new(v4), sources(Family::V4)),
            v6: FamilyRules::new(Arc::new(RangeTable::new(&v6)), Arc::new(v6), sources(Family::V6)),
            settings,
            running: Arc::default(),
        }
    }

    /// The same rules for one of a run's interfaces: frames leave only from those of the sources that are named here. The
    /// others stay addresses of ours, which are never sent to. What is denied while running holds for both.
    pub fn leaving_from(&self, sources: &[IpAddr]) -> Self {
        let mut settings = self.settings.clone();
        let (here, elsewhere) = settings.sources.into_iter().partition::<Vec<_>, _>(|source| sources.contains(source));
        let of = |family| of_family(&here, family);
        let (v4, v6) = (self.v4.with_sources(of(Family::V4)), self.v6.with_sources(of(Family::V6)));
        settings.own.extend(elsewhere);
        settings.sources = here;
        Self { v4, v6, settings, running: Arc::clone(&self.running) }
    }

    /// Judges a whole Ethernet frame.
    pub fn check(&self, frame: &[u8]) -> Verdict {
        match self.generation() {
            0 => self.judge(frame, None),
            _ => self.judge(frame, Some(&self.denied())),
        }
    }

    /// Judges a frame, given what is denied at present ([`Policy::denied`], looked up once for a batch).
    #[inline]
    pub(crate) fn judge(&self, frame: &[u8], denied: Option<&Denied>) -> Verdict {
        if let Some((source, destination)) = frame::plain_v4(frame)
            && self.v4.only_source == Some(u128::from(source))
            && denied.is_none()
            && self.v4.allowed.contains(destination)
        {
            return Verdict::Permitted;
        }
        self.judge_in_full(frame, denied)
    }

    #[inline(never)]
    fn judge_in_full(&self, frame: &[u8], denied: Option<&Denied>) -> Verdict {
        let headers = match Headers::parse(frame) {
            Ok(headers) => headers,
            Err(because) => return Verdict::Refused(because),
        };
        match headers {
            Headers::V4 { source, destination } => {
                if !self.v4.is_ours(u128::from(source)) {
                    return Verdict::Refused(RefusedBecause::ForeignSource);
                }
                if !self.v4.allowed.contains(destination) {
                    return Verdict::Refused(self.why(Family::V4, u128::from(destination)));
                }
                match denied {
                    Some(denied) if denied.v4.contains(u128::from(destination)) => {
                        Verdict::Refused(RefusedBecause::DeniedNow)
                    }
                    _ => Verdict::Permitted,
                }
            }
            Headers::V6 { source, destination } => {
                if !self.v6.is_ours(source) {
                    return Verdict::Refused(RefusedBecause::ForeignSource);
                }
                if !self.v6.allowed.contains(destination) {
                    return Verdict::Refused(self.why(Family::V6, destination));
                }
                match denied {
                    Some(denied) if denied.v6.contains(destination) => Verdict::Refused(RefusedBecause::DeniedNow),
                    _ => Verdict::Permitted,
                }
            }
        }
    }

    /// The rule that keeps a destination from being allowed: looked for only once a frame is refused.
    #[cold]
    fn why(&self, family: Family, destination: u128) -> RefusedBecause {
        let address = family.address(destination);
        if let Some(because) = never(&self.settings, address) {
            return because;
        }
        if self.settings.deny.iter().any(|set| set.family() == family && set.contains(destination)) {
            return RefusedBecause::Denied;
        }
        if registry::not_global(family).contains(destination) {
            return match self.settings.special_missing() {
                Some(_) => RefusedBecause::NotAuthorised,
                None => RefusedBecause::SpecialPurpose,
            };
        }
        if self.settings.global_missing().is_empty() {
            return RefusedBecause::NotATarget;
        }
        RefusedBecause::NotAuthorised
    }

    /// Whether frames to this address may leave at present.
    pub fn allows(&self, destination: IpAddr) -> bool {
        let value = address_bits(destination);
        let allowed = match destination {
            IpAddr::V4(v4) => self.v4.allowed.contains(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.allowed.contains(v6.to_bits()),
        };
        allowed && !self.denied().set(Family::of(destination)).contains(value)
    }

    /// The destinations allowed when the run began.
    pub fn allowed(&self, family: Family) -> &PrefixSet {
        match family {
            Family::V4 => &self.v4.allowed_set,
            Family::V6 => &self.v6.allowed_set,
        }
    }

    /// What the run may send in a second: loops that pace must keep to it.
    pub fn rate(&self) -> Rate {
        self.settings.rate
    }

    /// The settings this was compiled from, for metadata.
    pub fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    /// Denies more destinations while running, or fewer again: replaces what was denied so before. It acts here only
    /// (indices of the target set stay as they are), from each gate's next batch on, and what it stops is counted.
    pub fn deny(&self, sets: &[PrefixSet]) {
        let of = |family| {
            let ranges = sets.iter().filter(|set| set.family() == family).flat_map(|set| set.ranges()).copied();
            PrefixSet::from_ranges(family, ranges.collect())
        };
        let fresh = Arc::new(Denied { v4: of(Family::V4), v6: of(Family::V6) });
        *self.running.denied.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.running.generation.fetch_add(1, Ordering::Release);
    }

    /// Remembers that the opt-out file was read again, for metadata; what it says is for [`Policy::deny`].
    pub fn note_optout(&self, file: OptOutFile) {
        let mut reread = self.running.optouts.lock().unwrap_or_else(PoisonError::into_inner);
        reread.times += 1;
        reread.last.push_back(file);
        if reread.last.len() > Reread::MOST {
            reread.last.pop_front();
        }
    }

    /// How often the opt-out file was read again, and what it was.
    pub fn optouts_reread(&self) -> Reread {
        self.running.optouts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is denied at present.
    pub(crate) fn denied(&self) -> Arc<Denied> {
        Arc::clone(&self.running.denied.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes whenever [`Policy::denied`] does; 0 as long as nothing was.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.running.generation.load(Ordering::Acquire)
    }

    /// The whole sentence for a refused frame: what the rule is, and what to give where something can be given.
    pub fn explain(&self, because: RefusedBecause) -> String {
        match because {
            RefusedBecause::NotAuthorised => {
                let mut text = because.to_string();
                if let Some(missing) = self.settings.special_missing() {
                    text += &format!("; towards special-purpose space, {}", Missing::sentence(&[missing]));
                }
                let missing = self.settings.global_missing();
                if !missing.is_empty() {
                    text += &format!("; towards globally reachable addresses, {}", Missing::sentence(&missing));
                }
                text
            }
            _ => because.to_string(),
        }
    }
}

impl<T> FamilyRules<T> {
    fn new(allowed: Arc<T>, allowed_set: Arc<PrefixSet>, sources: Vec<u128>) -> Self {
        let only_source = match sources.as_slice() {
            [one] => Some(*one),
            _ => None,
        };
        Self { allowed, allowed_set, sources, only_source }
    }

    fn with_sources(&self, sources: Vec<u128>) -> Self {
        Self::new(Arc::clone(&self.allowed), Arc::clone(&self.allowed_set), sources)
    }

    #[inline]
    fn is_ours(&self, source: u128) -> bool {
        self.only_source == Some(source) || self.sources.binary_search(&source).is_ok()
    }
}

/// Those of one family, sorted, each once.
fn of_family(addresses: &[IpAddr], family: Family) -> Vec<u128> {
    let mut bits: Vec<u128> = addresses
        .iter()
        .filter(|address| Family::of(**address) == family)
        .map(|address| address_bits(*address))
        .collect();
    bits.sort_unstable();
    bits.dedup();
    bits
}

/// The rules without exception, for one destination.
fn never(settings: &PolicySettings, destination: IpAddr) -> Option<RefusedBecause> {
    let family = Family::of(destination);
    if destination.is_multicast() {
        return Some(RefusedBecause::Multicast);
    }
    let broadcast = match destination {
        IpAddr::V4(v4) => v4.is_broadcast() || settings.broadcast.contains(&v4),
        IpAddr::V6(_) => false,
    };
    if broadcast {
        return Some(RefusedBecause::Broadcast);
    }
    if destination.is_loopback() {
        return Some(RefusedBecause::Loopback);
    }
    if settings.sources.contains(&destination) || settings.own.contains(&destination) {
        return Some(RefusedBecause::OwnAddress);
    }
    registry::never(family).contains(address_bits(destination)).then_some(RefusedBecause::ThisNetwork)
}
