//! What a plan probes: a product of addresses and ports, or a list; index <-> target.

use crate::error::{Result, TargetsError};
use crate::family::Family;
use crate::list::{Entries, Lookup};
use crate::ports::PortSet;
use crate::prefix::PrefixSet;
use crate::search::PrefixIndex;

/// An address and a port (0 where the probe has no port). The family is the plan's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The address; IPv4 is its 32-bit value.
    pub address: u128,
    /// The port.
    pub port: u16,
}

/// How the addresses asked for became those of the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetCounts {
    /// Addresses (of a list: entries) asked for.
    pub asked: u128,
    /// Cut because they lie in special-purpose space and a wider target held them, or can never be probed.
    pub special: u128,
    /// Cut by the blocklist.
    pub denied: u128,
    /// Entries of a list that repeat an earlier one.
    pub duplicates: u64,
    /// Addresses (of a list: entries) left.
    pub kept: u128,
}

/// The targets of a plan, numbered from 0.
///
/// Numbers are address-major: with n ports, targets `n * rank .. n * (rank + 1)` are the ports of one address in order.
#[derive(Clone, Debug)]
pub enum TargetSet {
    /// Every port of every address of a set.
    Product(Product),
    /// The entries of a file.
    List(ListTargets),
}

/// Every port of every address of a set.
#[derive(Clone, Debug)]
pub struct Product {
    addresses: PrefixIndex,
    ports: PortList,
    len: u128,
    counts: TargetCounts,
}

/// The entries of a target list; where its lines have no port, every port of every entry.
#[derive(Clone, Debug)]
pub struct ListTargets {
    family: Family,
    lookup: Lookup,
    /// `None` where the lines name their port.
    ports: Option<PortList>,
    len: u128,
    counts: TargetCounts,
}

impl TargetSet {
    /// The product of addresses and ports.
    ///
    /// # Errors
    /// [`TargetsError::NoTargets`] for an empty set of addresses; [`TargetsError::TooManyTargets`] above 2^128 - 1
    /// targets (two ports over nearly all of IPv6).
    pub fn product(addresses: PrefixSet, ports: PortSet) -> Result<Self> {
        let counts = TargetCounts { asked: addresses.count(), kept: addresses.count(), ..TargetCounts::default() };
        Self::product_counted(addresses, ports, counts)
    }

    pub(crate) fn product_counted(addresses: PrefixSet, ports: PortSet, counts: TargetCounts) -> Result<Self> {
        not_empty(counts)?;
        let len = addresses
            .count()
            .checked_mul(ports.len() as u128)
            .ok_or(TargetsError::TooManyTargets { size: u128::MAX })?;
        Ok(Self::Product(Product { addresses: PrefixIndex::new(addresses), ports: PortList::new(ports), len, counts }))
    }

    /// The entries that `keep` admits, each once. `ports` serves lists whose lines have none.
    pub(crate) fn list(
        family: Family,
        entries: Entries,
        ports: PortSet,
        mut counts: TargetCounts,
        keep: impl Fn(u128) -> bool,
    ) -> Result<Self> {
        let ports = (!entries.has_ports()).then(|| PortList::new(ports));
        let lookup = Lookup::new(entries, keep);
        let kept = lookup.entries.len() as u128;
        counts.kept = kept;
        counts.duplicates = lookup.duplicates;
        not_empty(counts)?;
        // At most 2^32 entries times 2^16 ports.
        let len = kept * ports.as_ref().map_or(1, |ports| ports.set.len() as u128);
        Ok(Self::List(ListTargets { family, lookup, ports, len, counts }))
    }

    /// How many targets; at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u128 {
        match self {
            Self::Product(product) => product.len,
            Self::List(list) => list.len,
        }
    }

    /// The family of the addresses.
    pub fn family(&self) -> Family {
        match self {
            Self::Product(product) => product.addresses.set().family(),
            Self::List(list) => list.family,
        }
    }

    /// What was asked for, cut and kept.
    pub fn counts(&self) -> TargetCounts {
        match self {
            Self::Product(product) => product.counts,
            Self::List(list) => list.counts,
        }
    }

    /// The addresses, where they are a set; `None` for a list.
    pub fn addresses(&self) -> Option<&PrefixSet> {
        match self {
            Self::Product(product) => Some(product.addresses.set()),
            Self::List(_) => None,
        }
    }

    /// The target with this index.
    ///
    /// # Panics
    /// When `index` is not below [`TargetSet::len`].
    pub fn get(&self, index: u128) -> Target {
        assert!(index < self.len(), "target {index} of {}", self.len());
        match self {
            Self::Product(product) => product.get(index),
            // A list has at most 2^48 targets.
            Self::List(list) => list.get(index as u64),
        }
    }

    /// The index of a target, if it is in the set.
    #[inline]
    pub fn index_of(&self, target: Target) -> Option<u128> {
        match self {
            Self::Product(product) => {
                let rank = product.addresses.rank(target.address)?;
                let place = product.ports.set.index_of(target.port)?;
                Some(rank * product.ports.set.len() as u128 + place as u128)
            }
            Self::List(list) => match &list.ports {
                None => list.lookup.find(target).map(|entry| entry as u128),
                Some(ports) => {
                    let entry = list.lookup.find(Target { port: 0, ..target })?;
                    let place = ports.set.index_of(target.port)?;
                    Some(entry as u128 * ports.set.len() as u128 + place as u128)
                }
            },
        }
    }

    /// Whether some target has this address.
    pub fn contains_address(&self, address: u128) -> Option<bool> {
        match self {
            Self::Product(product) => Some(product.addresses.contains(address)),
            Self::List(list) if list.ports.is_some() => Some(list.lookup.find(Target { address, port: 0 }).is_some()),
            Self::List(_) => None,
        }
    }

    /// Writes the targets of `indices`, all below the length, which is at most 2^64.
    pub(crate) fn resolve(&self, indices: &[u64], out: &mut [(u64, Target)]) {
        match self {
            Self::Product(product) => match product.addresses.narrow() {
                Some(ranks) if product.ports.set.len() == 1 => {
                    let port = product.ports.set.as_slice()[0];
                    for (slot, &index) in out.iter_mut().zip(indices) {
                        *slot = (index, Target { address: ranks.select(index), port });
                    }
                }
                Some(ranks) => {
                    for (slot, &index) in out.iter_mut().zip(indices) {
                        let (rank, port) = product.ports.split(index);
                        *slot = (index, Target { address: ranks.select(rank), port });
                    }
                }
                None => {
                    for (slot, &index) in out.iter_mut().zip(indices) {
                        *slot = (index, product.get(u128::from(index)));
                    }
                }
            },
            Self::List(list) => {
                for (slot, &index) in out.iter_mut().zip(indices) {
                    *slot = (index, list.get(index));
                }
            }
        }
    }
}

fn not_empty(counts: TargetCounts) -> Result<()> {
    if counts.kept > 0 {
        return Ok(());
    }
    Err(TargetsError::NoTargets { asked: counts.asked, denied: counts.denied, special: counts.special })
}

impl Product {
    fn get(&self, index: u128) -> Target {
        let ports = self.ports.set.len() as u128;
        // The remainder is below the number of ports.
        let port = self.ports.set.as_slice()[(index % ports) as usize];
        Target { address: self.addresses.select(index / ports), port }
    }
}

impl ListTargets {
    fn get(&self, index: u64) -> Target {
        let (entry, port) = match &self.ports {
            None => (index, None),
            Some(ports) => {
                let (entry, port) = ports.split(index);
                (entry, Some(port))
            }
        };
        let entries = &self.lookup.entries;
        // Below the number of entries, as index is below the length.
        let entry = entry as usize;
        Target { address: entries.address(entry), port: port.unwrap_or_else(|| entries.port(entry)) }
    }
}

/// A port set that splits an index into rank and port without a division.
#[derive(Clone, Debug)]
struct PortList {
    set: PortSet,
    /// floor((2^64 - 1) / number of ports).
    reciprocal: u64,
}

impl PortList {
    fn new(set: PortSet) -> Self {
        let reciprocal = u64::MAX / set.len() as u64;
        Self { set, reciprocal }
    }

    /// Quotient and port of the remainder. The product with the reciprocal falls short of the quotient by at most 1.
    #[inline(always)]
    fn split(&self, index: u64) -> (u64, u16) {
        let ports = self.set.as_slice();
        let divisor = ports.len() as u64;
        let quotient = ((u128::from(index) * u128::from(self.reciprocal)) >> 64) as u64;
        let remainder = index - quotient * divisor;
        let short = remainder >= divisor;
        let remainder = remainder - if short { divisor } else { 0 };
        (quotient + u64::from(short), ports[remainder as usize])
    }
}
