//! What the person in charge said, and whether that is enough for the targets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use irl_targets::{Family, PrefixSet, address_bits, registry};

use super::Policy;

/// Frames a second where nothing else was said; ZMap's default.
pub const DEFAULT_RATE: u64 = 10_000;

/// How fast the run may send.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rate {
    /// Nobody said: [`DEFAULT_RATE`], and only on the simulated link or in a lab.
    #[default]
    Default,
    /// So many frames a second.
    PerSecond(f64),
    /// As fast as goes without loss of our own (`--rate 0`). Never towards globally reachable addresses.
    Unlimited,
}

impl Rate {
    /// Frames a second; `None` where there is no bound.
    pub fn per_second(self) -> Option<f64> {
        match self {
            Self::Default => Some(DEFAULT_RATE as f64),
            Self::PerSecond(rate) => Some(rate),
            Self::Unlimited => None,
        }
    }
}

/// Where the frames would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Arena {
    /// An interface of this machine.
    #[default]
    Network,
    /// An interface in a network namespace that the lab's keeper registered.
    Lab {
        /// The lab's name.
        name: String,
    },
    /// The simulated link: nothing leaves the process.
    Simulated,
    /// A file: a dry run, which sends nothing and is never refused.
    Disk,
}

/// A deny list that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyFile {
    /// Its path, for metadata and messages.
    pub name: String,
}

/// An opt-out file as it was read: who asked to be left alone. Its lines are nobody's business, so that metadata have
/// their number only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptOutFile {
    /// Its path.
    pub name: String,
    /// SHA-256 of its contents, in hexadecimal.
    pub sha256: String,
    /// Lines that hold.
    pub lines: u64,
    /// Lines that have expired and were passed over.
    pub expired: u64,
    /// When it was read: UTC in ns.
    pub read_ns: i64,
}

/// What the targets are.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// Prefixes and ranges as they were named, a set each. One that lies inside special-purpose space is allowed;
    /// of the others such space is cut out.
    Items(&'a [PrefixSet]),
    /// A list of single addresses, each of them named as such.
    Addresses(&'a PrefixSet),
    /// Frames that somebody else builds (`Stack.send`): every destination is its own target, and is judged when it
    /// comes.
    Frames,
}

/// Everything the policy goes by.
#[derive(Clone, Debug, Default)]
pub struct PolicySettings {
    /// Addresses that frames may come from.
    pub sources: Vec<IpAddr>,
    /// Further addresses of this machine, which are never sent to.
    pub own: Vec<IpAddr>,
    /// Broadcast addresses of the networks that the interface is on.
    pub broadcast: Vec<Ipv4Addr>,
    /// Where the frames go.
    pub arena: Arena,
    /// How fast they may.
    pub rate: Rate,
    /// Whom a probed network can write to: an e-mail address or URL.
    pub contact: Option<String>,
    /// Who authorised the run: a ticket or a person (`--authorized`).
    pub authorized: Option<String>,
    /// The deny file that was named, even if it is empty.
    pub deny_file: Option<DenyFile>,
    /// The opt-out file that was read before the run, what it says being in `deny`.
    pub optout: Option<OptOutFile>,
    /// Probes a second to each /24 of IPv4 or /48 of IPv6, at most. Held to where targets are taken.
    pub prefix_budget: Option<f64>,
    /// What is denied, from that file and elsewhere; at most one set a family is needed, more are fine.
    pub deny: Vec<PrefixSet>,
}

/// A setting that must be given first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An explicit rate.
    Rate,
    /// An explicit rate that is finite.
    FiniteRate,
    /// A contact.
    Contact,
    /// A named deny file.
    DenyFile,
    /// Who authorised it.
    Authorized,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "an explicit rate (--rate)",
            Self::FiniteRate => "an explicit finite rate (--rate above 0)",
            Self::Contact => "a contact (--contact, an e-mail address or URL)",
            Self::DenyFile => "a named deny file (--blocklist-file; it may be empty)",
            Self::Authorized => "who authorised it (--authorized with a ticket or person)",
        })
    }
}

impl Missing {
    /// `give A, B and C`.
    pub(super) fn sentence(missing: &[Self]) -> String {
        let texts: Vec<String> = missing.iter().map(Self::to_string).collect();
        match texts.as_slice() {
            [] => "nothing is missing".to_owned(),
            [one] => format!("give {one}"),
            [head @ .., last] => format!("give {} and {last}", head.join(", ")),
        }
    }
}

/// Why a run may not begin. Its text says what to give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefusal {
    /// Globally reachable targets without everything they need.
    #[error("{example} is globally reachable, and probing it needs more: {}", Missing::sentence(missing))]
    Global {
        /// One of the targets.
        example: String,
        /// What to give.
        missing: Vec<Missing>,
    },
    /// Special-purpose targets outside a lab at the default rate.
    #[error(
        "{example} may be somebody's network, and the default rate serves only the simulated link and a lab's \
         namespaces: {}",
        Missing::sentence(missing)
    )]
    Special {
        /// One of the targets.
        example: String,
        /// What to give.
        missing: Vec<Missing>,
    },
    /// After all that is never sent to and what is denied, no target is left.
    #[error(
        "no target is left: multicast, broadcast, loopback, our own addresses, the deny file and special-purpose space \
         inside wider targets are cut out; name targets outside of these"
    )]
    NothingLeft,
    /// A rate that is no rate.
    #[error("a rate of {0} is not possible: give frames a second, or 0 for as fast as goes")]
    BadRate(String),
    /// No source address of the targets' family.
    #[error("there is no {family} source address to send from: give one with --source-ip, or add one to the interface")]
    NoSource {
        /// The targets' family.
        family: Family,
    },
}

impl PolicySettings {
    /// The settings of a run on this interface and another: what either knows of addresses holds for both. The rest is
    /// taken from here.
    #[must_use]
    pub fn beside(mut self, other: Self) -> Self {
        self.sources.extend(other.sources);
        self.own.extend(other.own);
        self.broadcast.extend(other.broadcast);
        self
    }

    /// Decides whether the targets may be probed, and compiles the policy that judges each frame.
    ///
    /// Sends nothing and asks nothing of the system. A dry run does without.
    ///
    /// # Errors
    /// A [`PolicyRefusal`], which ends a run with exit code 3 before its first frame.
    pub fn authorise(&self, targets: Targets<'_>) -> Result<Policy, PolicyRefusal> {
        if let Rate::PerSecond(rate) = self.rate
            && !(rate.is_finite() && rate > 0.0)
        {
            return Err(PolicyRefusal::BadRate(rate.to_string()));
        }
        let mut allowed = [PrefixSet::empty(Family::V4), PrefixSet::empty(Family::V6)];
        for (family, slot) in [Family::V4, Family::V6].into_iter().zip(&mut allowed) {
            let (special, global) = self.wanted(family, targets);
            let special = self.without_never(&special);
            let global = self.without_never(&global);
            *slot = match targets {
                Targets::Frames => self.frames_allowed(family, &special, &global),
                _ => self.run_allowed(family, special, global)?,
            };
        }
        let [v4, v6] = allowed;
        if v4.is_empty() && v6.is_empty() && !matches!(targets, Targets::Frames) {
            return Err(PolicyRefusal::NothingLeft);
        }
        Ok(Policy::new(self.clone(), v4, v6))
    }

    /// What targets still need on the way to globally reachable addresses.
    pub(super) fn global_missing(&self) -> Vec<Missing> {
        if self.arena == Arena::Disk {
            return Vec::new();
        }
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
        let mut missing = Vec::new();
        if !given(&self.contact) {
            missing.push(Missing::Contact);
        }
        if self.deny_file.is_none() {
            missing.push(Missing::DenyFile);
        }
        if !matches!(self.rate, Rate::PerSecond(_)) {
            missing.push(Missing::FiniteRate);
        }
        if !given(&self.authorized) {
            missing.push(Missing::Authorized);
        }
        missing
    }

    /// What special-purpose targets still need.
    pub(super) fn special_missing(&self) -> Option<Missing> {
        (self.arena == Arena::Network && self.rate == Rate::Default).then_some(Missing::Rate)
    }

    /// The targets of a family in two parts: special-purpose ones and globally reachable ones.
    fn wanted(&self, family: Family, targets: Targets<'_>) -> (PrefixSet, PrefixSet) {
        let special = registry::not_global(family);
        let both = |set: &PrefixSet| (intersection(set, special), minus(set, special));
        match targets {
            Targets::Frames => both(&PrefixSet::all(family)),
            Targets::Addresses(set) if set.family() == family => both(set),
            Targets::Addresses(_) => both(&PrefixSet::empty(family)),
            Targets::Items(items) => {
                let (mut inside, mut outside) = (Vec::new(), Vec::new());
                for item in items.iter().filter(|item| item.family() == family) {
                    if item.is_subset(special) {
                        inside.extend_from_slice(item.ranges());
                    } else {
                        outside.extend_from_slice(minus(item, special).ranges());
                    }
                }
                (PrefixSet::from_ranges(family, inside), PrefixSet::from_ranges(family, outside))
            }
        }
    }

    /// A run's targets: all of them allowed, or the run does not begin.
    fn run_allowed(&self, family: Family, special: PrefixSet, global: PrefixSet) -> Result<PrefixSet, PolicyRefusal> {
        let example = |set: &PrefixSet| set.prefixes().next().unwrap_or_default();
        if !global.is_empty() {
            let missing = self.global_missing();
            if !missing.is_empty() {
                return Err(PolicyRefusal::Global { example: example(&global), missing });
            }
        }
        if !special.is_empty()
            && let Some(missing) = self.special_missing()
        {
            return Err(PolicyRefusal::Special { example: example(&special), missing: vec![missing] });
        }
        let allowed = union(&special, &global);
        if !allowed.is_empty() && !self.sources.iter().any(|source| Family::of(*source) == family) {
            return Err(PolicyRefusal::NoSource { family });
        }
        Ok(allowed)
    }

    /// For frames that come later: whatever the settings allow; the rest is refused frame by frame.
    fn frames_allowed(&self, family: Family, special: &PrefixSet, global: &PrefixSet) -> PrefixSet {
        let mut allowed = PrefixSet::empty(family);
        if self.special_missing().is_none() {
            allowed = union(&allowed, special);
        }
        if self.global_missing().is_empty() {
            allowed = union(&allowed, global);
        }
        allowed
    }

    /// A set less everything that is never sent to and everything denied.
    fn without_never(&self, set: &PrefixSet) -> PrefixSet {
        let family = set.family();
        let mut never = registry::never(family).ranges().to_vec();
        let single =
            |address: IpAddr| (Family::of(address) == family).then(|| (address_bits(address), address_bits(address)));
        never.extend(self.sources.iter().chain(&self.own).filter_map(|address| single(*address)));
        never.extend(self.broadcast.iter().filter_map(|address| single(IpAddr::V4(*address))));
        never.extend(self.deny.iter().filter(|deny| deny.family() == family).flat_map(PrefixSet::ranges));
        minus(set, &PrefixSet::from_ranges(family, never))
    }
}

/// Set algebra inside one family, where it cannot fail.
fn minus(set: &PrefixSet, other: &PrefixSet) -> PrefixSet {
    set.minus(other).expect("both sets are of the family that the caller sorted by")
}

fn intersection(set: &PrefixSet, other: &PrefixSet) -> PrefixSet {
    set.intersection(other).expect("both sets are of the family that the caller sorted by")
}

fn union(set: &PrefixSet, other: &PrefixSet) -> PrefixSet {
    set.union(other).expect("both sets are of the family that the caller sorted by")
}
