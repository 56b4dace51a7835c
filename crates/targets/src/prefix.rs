//! Sets of addresses: prefixes, ranges, files of them, and their algebra.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::error::{Origin, Result, TargetsError};
use crate::family::{Family, address_bits};

/// A set of addresses of one family, held as sorted disjoint inclusive ranges that do not touch.
///
/// ```
/// use irl_targets::PrefixSet;
/// let allowed = PrefixSet::parse_items(["10.0.0.0/8", "192.0.2.7"]).unwrap();
/// let denied = PrefixSet::parse_items(["10.0.0.0-10.0.0.255"]).unwrap();
/// let set = allowed.minus(&denied).unwrap();
/// assert_eq!(set.count(), (1 << 24) - 256 + 1);
/// assert_eq!(set.select(0), 0x0a000100);
/// assert_eq!(set.rank(0x0a000101), Some(1));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PrefixSet {
    family: Family,
    ranges: Vec<(u128, u128)>,
    /// How many addresses lie before each range; saturates with `count`.
    before: Vec<u128>,
    count: u128,
}

impl PrefixSet {
    /// The set of no address.
    pub fn empty(family: Family) -> Self {
        Self::from_ranges(family, Vec::new())
    }

    /// The set of every address of the family.
    pub fn all(family: Family) -> Self {
        Self::from_ranges(family, vec![(0, family.max())])
    }

    /// The set of one address.
    pub fn single(address: IpAddr) -> Self {
        let value = address_bits(address);
        Self::from_ranges(Family::of(address), vec![(value, value)])
    }

    /// A set of inclusive ranges in any order, overlapping or not. Ranges that run backwards are left out, and what
    /// lies above the family's highest address is cut.
    pub fn from_ranges(family: Family, mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.retain(|&(first, last)| first <= last && first <= family.max());
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            let last = last.min(family.max());
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self::from_sorted(family, merged)
    }

    /// The ranges are sorted, disjoint and do not touch.
    fn from_sorted(family: Family, ranges: Vec<(u128, u128)>) -> Self {
        let mut count = 0u128;
        let before = ranges
            .iter()
            .map(|&(first, last)| {
                let so_far = count;
                count = count.saturating_add((last - first).saturating_add(1));
                so_far
            })
            .collect();
        Self { family, ranges, before, count }
    }

    /// Parses prefixes (`192.0.2.0/24`; host bits that are set are masked away, as ZMap does), single addresses and
    /// ranges (`192.0.2.1-192.0.2.9`). All must be of one family.
    ///
    /// # Errors
    /// [`TargetsError::Prefix`] and [`TargetsError::MixedFamilies`]; no item at all is [`TargetsError::Value`], because
    /// then the family is not known.
    pub fn parse_items<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut parser = SetParser::default();
        for item in items {
            parser.add(item.trim(), &Origin::default())?;
        }
        parser.finish().ok_or_else(|| {
            TargetsError::value("targets", "[]", "name at least one prefix, so that the family is known")
        })
    }

    /// Parses a file in ZMap's blocklist format: a prefix, address or range a line; `#` starts a comment; blank lines
    /// are skipped. A file without any entry is the empty set of `family_if_empty`.
    ///
    /// # Errors
    /// As [`PrefixSet::parse_items`], with file and line; [`TargetsError::Io`].
    pub fn from_file(path: impl AsRef<Path>, family_if_empty: Family) -> Result<Self> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(TargetsError::read(path))?;
        Ok(Self::from_file_bytes(path, &bytes)?.unwrap_or_else(|| Self::empty(family_if_empty)))
    }

    /// The same over a file's bytes; `None` when it has no entry. `path` serves the messages.
    ///
    /// # Errors
    /// As [`PrefixSet::from_file`].
    pub fn from_file_bytes(path: &Path, bytes: &[u8]) -> Result<Option<Self>> {
        let mut parser = SetParser::default();
        for_each_line(path, bytes, |text, origin| parser.add(text, origin))?;
        Ok(parser.finish())
    }

    /// A file that may hold both families (a blocklist, an opt-out list): its IPv4 and its IPv6 set.
    ///
    /// # Errors
    /// [`TargetsError::Prefix`] with file and line; [`TargetsError::Io`].
    pub fn both_from_file(path: impl AsRef<Path>) -> Result<(Self, Self)> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(TargetsError::read(path))?;
        Self::both_from_file_bytes(path, &bytes)
    }

    /// The same over a file's bytes.
    ///
    /// # Errors
    /// [`TargetsError::Prefix`] with file and line.
    pub fn both_from_file_bytes(path: &Path, bytes: &[u8]) -> Result<(Self, Self)> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for_each_line(path, bytes, |text, origin| {
            let (family, range) = parse_range(text, origin)?;
            if family == Family::V4 {
                v4.push(range)
            } else {
                v6.push(range)
            }
            Ok(())
        })?;
        Ok((Self::from_ranges(Family::V4, v4), Self::from_ranges(Family::V6, v6)))
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether there is no address in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many addresses. Exact, but for one set: all of IPv6 has 2^128 and says 2^128 - 1.
    pub fn count(&self) -> u128 {
        self.count
    }

    /// How many addresses the prefix of this length has that has most of them.
    pub fn most_within(&self, prefix_len: u8) -> u128 {
        let host_bits = u32::from(self.family.bits().saturating_sub(prefix_len));
        let mask = u128::MAX.checked_shl(host_bits).map_or(u128::MAX, |network| !network);
        let (mut most, mut network, mut within) = (0, 0, 0_u128);
        for &(first, last) in &self.ranges {
            // The range before may have ended in the same one.
            if first & !mask != network {
                (network, within) = (first & !mask, 0);
            }
            let end = last.min(network | mask);
            within = within.saturating_add((end - first).saturating_add(1));
            most = most.max(within);
            if end < last {
                let next = last & !mask;
                if next - network > mask.saturating_add(1) {
                    return mask.saturating_add(1);
                }
                (network, within) = (next, last - next + 1);
                most = most.max(within);
            }
        }
        most
    }

    /// The inclusive ranges: sorted, disjoint, not touching.
    pub fn ranges(&self) -> &[(u128, u128)] {
        &self.ranges
    }

    /// Whether the address is in the set.
    #[inline]
    pub fn contains(&self, address: u128) -> bool {
        self.range_of(address).is_some()
    }

    /// The address with `rank` lower addresses in the set.
    ///
    /// # Panics
    /// When `rank` is not below [`PrefixSet::count`].
    #[inline]
    pub fn select(&self, rank: u128) -> u128 {
        assert!(rank < self.count, "rank {rank} of {}", self.count);
        // before[0] is 0, so the partition point is at least 1.
        let range = self.before.partition_point(|&before| before <= rank) - 1;
        self.ranges[range].0 + (rank - self.before[range])
    }

    /// How many lower addresses are in the set, if this one is.
    #[inline]
    pub fn rank(&self, address: u128) -> Option<u128> {
        let range = self.range_of(address)?;
        Some(self.before[range] + (address - self.ranges[range].0))
    }

    /// How many addresses lie before this range.
    #[inline]
    pub(crate) fn before(&self, range: usize) -> u128 {
        self.before[range]
    }

    fn range_of(&self, address: u128) -> Option<usize> {
        let range = self.ranges.partition_point(|&(first, _)| first <= address).checked_sub(1)?;
        (address <= self.ranges[range].1).then_some(range)
    }

    /// The addresses in either set.
    ///
    /// # Errors
    /// [`TargetsError::MixedFamilies`].
    pub fn union(&self, other: &Self) -> Result<Self> {
        self.same_family(other)?;
        Ok(Self::from_ranges(self.family, [self.ranges(), other.ranges()].concat()))
    }

    /// The addresses in both sets.
    ///
    /// # Errors
    /// [`TargetsError::MixedFamilies`].
    pub fn intersection(&self, other: &Self) -> Result<Self> {
        self.same_family(other)?;
        let (mut mine, mut theirs) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        let mut ranges = Vec::new();
        while let (Some(&&a), Some(&&b)) = (mine.peek(), theirs.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                ranges.push((first, last));
            }
            if a.1 <= b.1 {
                mine.next();
            } else {
                theirs.next();
            }
        }
        Ok(Self::from_sorted(self.family, ranges))
    }

    /// The addresses in this set and not in `other`.
    ///
    /// # Errors
    /// [`TargetsError::MixedFamilies`].
    pub fn minus(&self, other: &Self) -> Result<Self> {
        self.intersection(&other.complement())
    }

    /// The addresses of the family that are not in this set.
    pub fn complement(&self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        let mut next = Some(0);
        for &(first, last) in &self.ranges {
            match next {
                Some(start) if start < first => ranges.push((start, first - 1)),
                _ => {}
            }
            next = last.checked_add(1);
        }
        match next {
            Some(start) if start <= self.family.max() => ranges.push((start, self.family.max())),
            _ => {}
        }
        Self::from_sorted(self.family, ranges)
    }

    /// Whether every address of this set is in `other`. Sets of different families are never subsets, unless empty.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.is_empty()
            || self.family == other.family
                && self
                    .ranges
                    .iter()
                    .all(|&(first, last)| other.range_of(first).is_some_and(|range| last <= other.ranges[range].1))
    }

    /// The fewest prefixes that make up the set, in order: `(first address, prefix length)`.
    pub fn cidrs(&self) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        let bits = u32::from(self.family.bits());
        self.ranges.iter().flat_map(move |&(first, last)| {
            let mut next = Some(first);
            std::iter::from_fn(move || {
                let start = next.filter(|&start| start <= last)?;
                let aligned = start.trailing_zeros().min(bits);
                // The longest run that fits: 2^fitting <= last - start + 1.
                let fitting = (last - start).checked_add(1).map_or(128, |length| 127 - length.leading_zeros());
                let size = aligned.min(fitting);
                next = 1u128.checked_shl(size).and_then(|length| start.checked_add(length));
                Some((self.family.address(start), (bits - size) as u8))
            })
        })
    }

    /// The same as texts: `192.0.2.0/24`.
    pub fn prefixes(&self) -> impl Iterator<Item = String> + '_ {
        self.cidrs().map(|(address, length)| format!("{address}/{length}"))
    }

    fn same_family(&self, other: &Self) -> Result<()> {
        if self.family == other.family {
            return Ok(());
        }
        Err(TargetsError::MixedFamilies {
            origin: Origin::default(),
            text: other.to_string(),
            expected: self.family,
            found: other.family,
        })
    }
}

impl fmt::Display for PrefixSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (address, length)) in self.cidrs().enumerate() {
            write!(f, "{}{address}/{length}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for PrefixSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        write!(f, "PrefixSet({}, {} addresses: ", self.family, self.count)?;
        for (i, prefix) in self.prefixes().take(SHOWN + 1).enumerate() {
            match i {
                0 => f.write_str(&prefix)?,
                SHOWN => f.write_str(", ...")?,
                _ => write!(f, ", {prefix}")?,
            }
        }
        f.write_str(")")
    }
}

/// Gathers items into a set and keeps to one family.
#[derive(Default)]
pub(crate) struct SetParser {
    family: Option<Family>,
    ranges: Vec<(u128, u128)>,
}

impl SetParser {
    pub(crate) fn expecting(family: Option<Family>) -> Self {
        Self { family, ranges: Vec::new() }
    }

    pub(crate) fn add(&mut self, text: &str, origin: &Origin) -> Result<()> {
        let (found, range) = parse_range(text, origin)?;
        let expected = *self.family.get_or_insert(found);
        if expected != found {
            return Err(TargetsError::MixedFamilies { origin: origin.clone(), text: text.to_owned(), expected, found });
        }
        self.ranges.push(range);
        Ok(())
    }

    pub(crate) fn into_ranges(self) -> Vec<(u128, u128)> {
        self.ranges
    }

    pub(crate) fn finish(self) -> Option<PrefixSet> {
        Some(PrefixSet::from_ranges(self.family?, self.ranges))
    }
}

/// Reads one prefix, address or range.
pub(crate) fn parse_range(text: &str, origin: &Origin) -> Result<(Family, (u128, u128))> {
    let wrong = |reason| TargetsError::Prefix { origin: origin.clone(), text: text.to_owned(), reason };
    let address = |text: &str| text.trim().parse::<IpAddr>();
    if let Some((network, length)) = text.split_once('/') {
        let network = address(network).map_err(|_| wrong("what stands before the slash is not an address"))?;
        let family = Family::of(network);
        let length = length.trim();
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong("the prefix length is not a number"));
        }
        let length: u8 = length.parse().ok().filter(|&length| length <= family.bits()).ok_or_else(|| {
            wrong(match family {
                Family::V4 => "a prefix length is 0 to 32",
                Family::V6 => "a prefix length is 0 to 128",
            })
        })?;
        // A shift by all bits leaves no host bit: a single address.
        let host_bits = match family {
            Family::V4 => u128::from(u32::MAX.checked_shr(u32::from(length)).unwrap_or(0)),
            Family::V6 => u128::MAX.checked_shr(u32::from(length)).unwrap_or(0),
        };
        let first = address_bits(network) & !host_bits;
        return Ok((family, (first, first | host_bits)));
    }
    if let Some((first, last)) = text.split_once('-') {
        let first = address(first).map_err(|_| wrong("what stands before the dash is not an address"))?;
        let last = address(last).map_err(|_| wrong("what stands after the dash is not an address"))?;
        if Family::of(first) != Family::of(last) {
            return Err(wrong("the ends of the range are of different families"));
        }
        if first > last {
            return Err(wrong("the range runs backwards"));
        }
        return Ok((Family::of(first), (address_bits(first), address_bits(last))));
    }
    let single = address(text).map_err(|_| wrong("it is not an address; names are not resolved"))?;
    Ok((Family::of(single), (address_bits(single), address_bits(single))))
}

/// Calls `visit` with each entry of a file: comments cut, blanks skipped, lines counted from 1.
pub(crate) fn for_each_line(
    path: &Path,
    bytes: &[u8],
    mut visit: impl FnMut(&str, &Origin) -> Result<()>,
) -> Result<()> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut origin = Origin::line(path, 0);
    for line in bytes.split(|&byte| byte == b'\n') {
        origin.line += 1;
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            continue;
        }
        let text = std::str::from_utf8(line).map_err(|_| TargetsError::Prefix {
            origin: origin.clone(),
            text: String::from_utf8_lossy(line).into_owned(),
            reason: "the line is not text",
        })?;
        visit(text, &origin)?;
    }
    Ok(())
}
