//! IANA's special-purpose address registries, as a dated snapshot kept with the source.
//!
//! The files in `data/` keep IANA's column names, so that a new snapshot can be laid over them (<https://www.iana.org/assignments/iana-ipv4-special-registry>,
//! <https://www.iana.org/assignments/iana-ipv6-special-registry>; RFC 6890, RFC 8190). The snapshot's date is part of a
//! plan, because it decides which addresses are cut out of a wide target.

use std::sync::OnceLock;

use crate::error::Origin;
use crate::family::Family;
use crate::prefix::{PrefixSet, parse_range};

/// A day on which the registries held exactly the rows of the snapshot.
pub const SNAPSHOT_DATE: &str = "2026-07-18";

const IPV4: &str = include_str!("../data/iana-ipv4-special-registry.csv");
const IPV6: &str = include_str!("../data/iana-ipv6-special-registry.csv");

/// An entry of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// The block in CIDR notation.
    pub prefix: String,
    /// The block's first and last address.
    pub range: (u128, u128),
    /// What it is for.
    pub name: String,
    /// The RFCs that say so.
    pub rfc: String,
    /// Year and month of the allocation.
    pub allocation_date: String,
    /// IANA's column: `None` where it says N/A (6to4, Teredo) or nothing (terminated entries).
    pub globally_reachable: Option<bool>,
}

/// The entries of a family's registry, in its order.
pub fn special(family: Family) -> &'static [Special] {
    static V4: OnceLock<Vec<Special>> = OnceLock::new();
    static V6: OnceLock<Vec<Special>> = OnceLock::new();
    match family {
        Family::V4 => V4.get_or_init(|| parse(IPV4)),
        Family::V6 => V6.get_or_init(|| parse(IPV6)),
    }
}

/// Addresses that are not globally reachable unicast: the registry's (the most specific entry decides, and what is
/// neither true nor false counts as not reachable), multicast, and for IPv6 everything outside 2000::/3.
pub fn not_global(family: Family) -> &'static PrefixSet {
    static V4: OnceLock<PrefixSet> = OnceLock::new();
    static V6: OnceLock<PrefixSet> = OnceLock::new();
    match family {
        Family::V4 => V4.get_or_init(|| without_exceptions(family, &["224.0.0.0/4"], &[])),
        Family::V6 => V6.get_or_init(|| without_exceptions(family, &[], &["2000::/3"])),
    }
}

/// Addresses that no probe can be for, whatever was asked: "this network", loopback, multicast, the limited broadcast
/// address, the unspecified address, and IPv4-mapped IPv6 addresses.
pub fn never(family: Family) -> &'static PrefixSet {
    static V4: OnceLock<PrefixSet> = OnceLock::new();
    static V6: OnceLock<PrefixSet> = OnceLock::new();
    match family {
        Family::V4 => {
            V4.get_or_init(|| constant(family, &["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255"]))
        }
        Family::V6 => V6.get_or_init(|| constant(family, &["::/127", "::ffff:0:0/96", "ff00::/8"])),
    }
}

/// The name of the most specific registry entry that holds the address.
pub fn name_of(family: Family, address: u128) -> Option<&'static str> {
    special(family)
        .iter()
        .filter(|entry| entry.range.0 <= address && address <= entry.range.1)
        .min_by_key(|entry| entry.range.1 - entry.range.0)
        .map(|entry| entry.name.as_str())
}

fn without_exceptions(family: Family, also: &[&str], only_within: &[&str]) -> PrefixSet {
    let mut entries: Vec<&Special> = special(family).iter().collect();
    // Widest first, so that a more specific entry has the last word.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.range.1 - entry.range.0));
    let mut set = constant(family, also);
    if !only_within.is_empty() {
        set = combine(&set, &constant(family, only_within).complement(), PrefixSet::union);
    }
    let outside = set.clone();
    for entry in entries {
        let block = PrefixSet::from_ranges(family, vec![entry.range]);
        set = match entry.globally_reachable {
            Some(true) => combine(&set, &block, PrefixSet::minus),
            _ => combine(&set, &block, PrefixSet::union),
        };
    }
    combine(&set, &outside, PrefixSet::union)
}

fn combine(
    a: &PrefixSet,
    b: &PrefixSet,
    how: impl Fn(&PrefixSet, &PrefixSet) -> crate::Result<PrefixSet>,
) -> PrefixSet {
    how(a, b).expect("both sets are of the family asked for")
}

fn constant(family: Family, items: &[&str]) -> PrefixSet {
    let ranges = items.iter().map(|item| block(item)).collect();
    PrefixSet::from_ranges(family, ranges)
}

fn block(text: &str) -> (u128, u128) {
    parse_range(text, &Origin::default()).expect("the snapshot holds prefixes, which a test reads").1
}

fn parse(text: &str) -> Vec<Special> {
    let mut entries = Vec::new();
    for record in records(text).into_iter().skip(1) {
        let [blocks, name, rfc, allocated, _terminated, _source, _destination, _forwardable, reachable, _reserved] =
            <[String; 10]>::try_from(record).expect("a registry row has ten columns, which a test reads");
        for prefix in blocks.split(',') {
            let prefix = without_footnote(prefix);
            entries.push(Special {
                prefix: prefix.to_owned(),
                range: block(prefix),
                name: name.clone(),
                rfc: rfc.clone(),
                allocation_date: allocated.clone(),
                globally_reachable: match without_footnote(&reachable) {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => None,
                },
            });
        }
    }
    entries
}

/// `False [1]` -> `False`.
fn without_footnote(text: &str) -> &str {
    text.split('[').next().unwrap_or(text).trim()
}

/// RFC 4180: quoted fields may hold commas, line breaks and doubled quotes.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            '\r' if !quoted => {}
            _ => field.push(character),
        }
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(family: Family, text: &str) -> bool {
        not_global(family).contains(block(text).0)
    }

    #[test]
    fn every_row_of_the_snapshot_parses() {
        assert_eq!(special(Family::V4).len(), 26);
        assert_eq!(special(Family::V6).len(), 25);
        assert_eq!(special(Family::V4)[0].name, "\"This network\"");
        assert_eq!(name_of(Family::V4, block("192.0.0.9").0), Some("Port Control Protocol Anycast"));
        assert_eq!(name_of(Family::V4, block("198.18.0.1").0), Some("Benchmarking"));
    }

    #[test]
    fn the_most_specific_entry_decides_what_is_global() {
        for text in ["10.1.2.3", "127.0.0.1", "192.0.0.8", "192.0.0.171", "192.88.99.1", "198.19.255.255", "224.0.0.1"]
        {
            assert!(has(Family::V4, text), "{text} is not global");
        }
        for text in ["240.0.0.1", "255.255.255.255", "100.64.0.0", "203.0.113.9", "0.1.2.3", "172.31.255.255"] {
            assert!(has(Family::V4, text), "{text} is not global");
        }
        for text in
            ["192.0.0.9", "192.0.0.10", "192.31.196.1", "1.1.1.1", "172.32.0.0", "198.20.0.0", "223.255.255.255"]
        {
            assert!(!has(Family::V4, text), "{text} is global");
        }
        for text in
            ["::1", "64:ff9b::1", "2001::1", "2001:db8::1", "2002::1", "fd00::1", "fe80::1", "ff02::1", "3fff::1"]
        {
            assert!(has(Family::V6, text), "{text} is not global");
        }
        for text in ["2001:1::1", "2001:3::1", "2001:20::1", "2001:200::1", "2620:4f:8000::1", "2606:4700::1111"] {
            assert!(!has(Family::V6, text), "{text} is global");
        }
    }

    #[test]
    fn nothing_that_can_never_be_probed_is_global() {
        for family in [Family::V4, Family::V6] {
            assert!(never(family).is_subset(not_global(family)));
        }
    }
}
