//! `irlstack.PrefixSet`.

use std::net::IpAddr;
use std::path::PathBuf;

use irl_targets::{Family, PrefixSet, address_bits};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::errors::{Error, Result};

/// "ipv4" or "ipv6".
pub(crate) fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

pub(crate) fn parse_family(name: &str) -> Result<Family> {
    match name {
        "ipv4" => Ok(Family::V4),
        "ipv6" => Ok(Family::V6),
        _ => Err(Error::config(format!("{name:?} is no address family; write \"ipv4\" or \"ipv6\"."))),
    }
}

/// An address as Python users have it: text, an `ipaddress` object, or an integer of the family meant.
#[derive(FromPyObject)]
pub(crate) enum AddressLike {
    Integer(u128),
    Address(IpAddr),
}

impl AddressLike {
    /// Its integer, if it is of this family.
    fn bits(&self, family: Family) -> Option<u128> {
        match *self {
            Self::Integer(value) => (value <= family.max()).then_some(value),
            Self::Address(address) => (Family::of(address) == family).then(|| address_bits(address)),
        }
    }
}

/// A set of addresses of one family, held as sorted ranges: exact counts, and from rank to address and back.
///
/// Items are CIDR prefixes, single addresses or ranges, as text or `ipaddress` objects:
///
/// >>> import irlstack as irl
/// >>> allowed = irl.PrefixSet("10.0.0.0/8", "192.0.2.7") - irl.PrefixSet("10.0.0.0-10.0.0.255")
/// >>> allowed.count
/// 16776961
/// >>> allowed.select(0)
/// IPv4Address('10.0.1.0')
/// >>> "10.0.0.7" in allowed
/// False
/// >>> irl.PrefixSet("192.0.2.0/25", "192.0.2.128/25").prefixes()
/// ['192.0.2.0/24']
///
/// `|`, `&` and `-` combine sets of one family; `len()` serves counts below 2^63.
///
/// Raises:
///     ConfigError: a text is no prefix, or families are mixed.
#[pyclass(frozen, eq, module = "irlstack", name = "PrefixSet")]
#[derive(PartialEq)]
pub(crate) struct PyPrefixSet(pub(crate) PrefixSet);

/// The items of a constructor as text.
pub(crate) fn texts(items: &Bound<'_, PyTuple>) -> Result<Vec<String>> {
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        texts.push(item.str()?.to_string_lossy().into_owned());
    }
    Ok(texts)
}

#[pymethods]
impl PyPrefixSet {
    #[new]
    #[pyo3(signature = (*items))]
    fn new(items: &Bound<'_, PyTuple>) -> Result<Self> {
        if items.is_empty() {
            return Err(Error::config("Name at least one prefix, or use PrefixSet.empty(\"ipv4\")."));
        }
        let items = texts(items)?;
        Ok(Self(PrefixSet::parse_items(items.iter().map(String::as_str))?))
    }

    /// The set of no address of a family, "ipv4" or "ipv6".
    #[staticmethod]
    fn empty(family: &str) -> Result<Self> {
        Ok(Self(PrefixSet::empty(parse_family(family)?)))
    }

    /// Every address of a family, "ipv4" or "ipv6".
    #[staticmethod]
    fn all(family: &str) -> Result<Self> {
        Ok(Self(PrefixSet::all(parse_family(family)?)))
    }

    /// Reads a file in ZMap's blocklist format: a prefix, address or range a line, `#` starts a comment.
    ///
    /// Args:
    ///     path: the file.
    ///     family: of the empty set that a file without entries gives.
    ///
    /// Raises:
    ///     ConfigError: a line does not parse; the message names file and line.
    ///     OSError: the file cannot be read.
    #[staticmethod]
    #[pyo3(signature = (path, family="ipv4"))]
    fn from_file(path: PathBuf, family: &str) -> Result<Self> {
        Ok(Self(PrefixSet::from_file(path, parse_family(family)?)?))
    }

    /// "ipv4" or "ipv6".
    #[getter]
    fn family(&self) -> &'static str {
        family_name(self.0.family())
    }

    /// How many addresses: exact, but all of IPv6 says 2^128 - 1.
    #[getter]
    fn count(&self) -> u128 {
        self.0.count()
    }

    /// The address with `rank` lower addresses in the set.
    ///
    /// Raises:
    ///     IndexError: the set has no more than `rank` addresses.
    fn select(&self, rank: u128) -> Result<IpAddr> {
        if rank >= self.0.count() {
            let message = format!("There is no address of rank {rank} in a set of {}.", self.0.count());
            return Err(PyIndexError::new_err(message).into());
        }
        Ok(self.0.family().address(self.0.select(rank)))
    }

    /// How many lower addresses are in the set; None when the address itself is not.
    fn rank(&self, address: AddressLike) -> Option<u128> {
        self.0.rank(address.bits(self.0.family())?)
    }

    /// The fewest CIDR prefixes that make up the set, in order.
    fn prefixes(&self) -> Vec<String> {
        self.0.prefixes().collect()
    }

    /// The ranges that make up the set, as pairs of first and last address, in order.
    fn ranges(&self) -> Vec<(IpAddr, IpAddr)> {
        let family = self.0.family();
        self.0.ranges().iter().map(|&(first, last)| (family.address(first), family.address(last))).collect()
    }

    fn __contains__(&self, address: AddressLike) -> bool {
        address.bits(self.0.family()).is_some_and(|bits| self.0.contains(bits))
    }

    fn __len__(&self) -> Result<usize> {
        // PyO3 turns what does not fit Python's own index type into an OverflowError.
        usize::try_from(self.0.count())
            .map_err(|_| Error::config("This set is too large for len(); its attribute `count` has no bound."))
    }

    fn __bool__(&self) -> bool {
        !self.0.is_empty()
    }

    fn __or__(&self, other: &Self) -> Result<Self> {
        Ok(Self(self.0.union(&other.0)?))
    }

    fn __and__(&self, other: &Self) -> Result<Self> {
        Ok(Self(self.0.intersection(&other.0)?))
    }

    fn __sub__(&self, other: &Self) -> Result<Self> {
        Ok(Self(self.0.minus(&other.0)?))
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.0.family().hash(&mut hasher);
        self.0.ranges().hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        const SHOWN: usize = 4;
        if self.0.is_empty() {
            return format!("PrefixSet.empty({:?})", self.family());
        }
        let mut prefixes = self.0.prefixes();
        let mut items: Vec<_> = prefixes.by_ref().take(SHOWN).map(|prefix| format!("'{prefix}'")).collect();
        if prefixes.next().is_some() {
            items.push("...".to_owned());
            return format!("<PrefixSet of {} addresses: {}>", self.0.count(), items.join(", "));
        }
        format!("PrefixSet({})", items.join(", "))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, set) = (slf.py(), &slf.get().0);
        if set.is_empty() {
            let args = PyTuple::new(py, [family_name(set.family())])?;
            return Ok((slf.get_type().getattr("empty")?, args));
        }
        let family = set.family();
        let ranges =
            set.ranges().iter().map(|&(first, last)| format!("{}-{}", family.address(first), family.address(last)));
        Ok((slf.get_type().into_any(), PyTuple::new(py, ranges.collect::<Vec<_>>())?))
    }
}
