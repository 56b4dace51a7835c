//! Claims about address sets: the algebra agrees with a naive model, ranks and counts are exact, and the fast index
//! agrees with the set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use irl_targets::{Family, PrefixIndex, PrefixSet};
use proptest::prelude::*;

const WORLD: u128 = 256;

/// Ranges within 256 addresses at the bottom, in the middle or at the very top of the space.
fn ranges() -> impl Strategy<Value = Vec<(u128, u128)>> {
    proptest::collection::vec((0..WORLD, 0..40u128), 0..12)
        .prop_map(|ranges| ranges.into_iter().map(|(first, more)| (first, (first + more).min(WORLD - 1))).collect())
}

fn family_and_base() -> impl Strategy<Value = (Family, u128)> {
    let top = |family: Family| family.max() - (WORLD - 1);
    proptest::sample::select(vec![
        (Family::V4, 0),
        (Family::V4, 0x0a00_0080),
        (Family::V4, top(Family::V4)),
        (Family::V6, 0),
        (Family::V6, 0xfd00 << 112),
        (Family::V6, (1 << 64) - 128),
        (Family::V6, top(Family::V6)),
    ])
}

fn build(family: Family, base: u128, ranges: &[(u128, u128)]) -> (PrefixSet, BTreeSet<u128>) {
    let set = PrefixSet::from_ranges(family, ranges.iter().map(|&(a, b)| (base + a, base + b)).collect());
    let model = ranges.iter().flat_map(|&(a, b)| a..=b).map(|address| base + address).collect();
    (set, model)
}

fn agrees(set: &PrefixSet, model: &BTreeSet<u128>) -> Result<(), TestCaseError> {
    prop_assert_eq!(set.count(), model.len() as u128);
    prop_assert_eq!(set.is_empty(), model.is_empty());
    let listed: Vec<u128> = set.ranges().iter().flat_map(|&(first, last)| first..=last).collect();
    prop_assert!(listed.iter().eq(model.iter()));
    prop_assert!(set.ranges().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "ranges neither touch nor overlap");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_algebra_is_that_of_sets((family, base) in family_and_base(), a in ranges(), b in ranges()) {
        let ((a, in_a), (b, in_b)) = (build(family, base, &a), build(family, base, &b));
        agrees(&a, &in_a)?;
        agrees(&a.union(&b).unwrap(), &in_a.union(&in_b).copied().collect())?;
        agrees(&a.intersection(&b).unwrap(), &in_a.intersection(&in_b).copied().collect())?;
        agrees(&a.minus(&b).unwrap(), &in_a.difference(&in_b).copied().collect())?;
        prop_assert_eq!(a.is_subset(&b), in_a.is_subset(&in_b));
        prop_assert_eq!(a.complement().complement(), a.clone());
        prop_assert_eq!(a.complement().minus(&a).unwrap(), a.complement());
        prop_assert_eq!(a.union(&a.complement()).unwrap(), PrefixSet::all(family));
    }

    #[test]
    fn ranks_and_addresses_invert_each_other((family, base) in family_and_base(), a in ranges()) {
        let (set, model) = build(family, base, &a);
        let index = PrefixIndex::new(set.clone());
        for (rank, &address) in model.iter().enumerate() {
            prop_assert_eq!(set.select(rank as u128), address);
            prop_assert_eq!(index.select(rank as u128), address);
            prop_assert_eq!(set.rank(address), Some(rank as u128));
        }
        for address in (0..WORLD).map(|offset| base + offset) {
            prop_assert_eq!(set.contains(address), model.contains(&address));
            prop_assert_eq!(index.contains(address), model.contains(&address));
            prop_assert_eq!(index.rank(address), set.rank(address));
        }
    }

    #[test]
    fn the_index_agrees_with_the_set_over_the_whole_space(
        ranges in proptest::collection::vec((any::<u32>(), 0u32..30), 1..400),
        addresses in proptest::collection::vec(any::<u32>(), 50),
        ranks in proptest::collection::vec(any::<u64>(), 50),
    ) {
        let ranges = ranges.iter().map(|&(first, log2)| (first.into(), u128::from(first) + (1 << log2) - 1)).collect();
        let set = PrefixSet::from_ranges(Family::V4, ranges);
        let index = PrefixIndex::new(set.clone());
        for address in addresses {
            prop_assert_eq!(index.contains(address.into()), set.contains(address.into()));
            prop_assert_eq!(index.rank(address.into()), set.rank(address.into()));
        }
        for rank in ranks.into_iter().map(|rank| u128::from(rank) % set.count()) {
            prop_assert_eq!(index.select(rank), set.select(rank));
            prop_assert_eq!(set.rank(set.select(rank)), Some(rank));
        }
    }

    #[test]
    fn the_fullest_network_has_as_many_as_the_model_says(
        (family, base) in family_and_base(), a in ranges(), host_bits in 0_u8..12
    ) {
        let (set, model) = build(family, base, &a);
        let mut networks = BTreeMap::new();
        for address in &model {
            *networks.entry(address >> host_bits).or_insert(0) += 1;
        }
        prop_assert_eq!(set.most_within(family.bits() - host_bits), networks.into_values().max().unwrap_or(0));
    }

    #[test]
    fn prefixes_spell_the_same_set((family, base) in family_and_base(), a in ranges()) {
        let (set, _) = build(family, base, &a);
        if !set.is_empty() {
            let prefixes: Vec<String> = set.prefixes().collect();
            prop_assert_eq!(PrefixSet::parse_items(prefixes.iter().map(String::as_str)).unwrap(), set);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,40}", file in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = PrefixSet::parse_items([text.as_str()]);
        let _ = PrefixSet::from_file_bytes(Path::new("x"), &file);
        let _ = irl_targets::PortSet::parse(&text);
        let _ = irl_targets::parse_target(&text);
        let _ = irl_targets::TargetList::from_reader("x", file.as_slice());
        let _ = irl_targets::Plan::from_toml(&text);
    }
}

#[test]
fn the_widest_sets_count_and_rank() {
    assert_eq!(PrefixSet::all(Family::V6).most_within(0), u128::MAX);
    assert_eq!(PrefixSet::all(Family::V6).most_within(48), 1 << 80);
    assert_eq!(PrefixSet::all(Family::V4).most_within(24), 256);
    let all = PrefixSet::all(Family::V4);
    assert_eq!(all.count(), 1 << 32);
    assert_eq!(all.to_string(), "0.0.0.0/0");
    assert_eq!(all.rank(u32::MAX.into()), Some(u32::MAX.into()));
    let all = PrefixSet::all(Family::V6);
    assert_eq!(all.count(), u128::MAX, "2^128 does not fit and saturates");
    assert_eq!(all.to_string(), "::/0");
    let half = PrefixIndex::new(PrefixSet::parse_items(["8000::/1", "::1"]).unwrap());
    assert_eq!(half.set().count(), (1 << 127) + 1);
    assert_eq!(half.select(1), 1 << 127);
    assert_eq!(half.rank(u128::MAX), Some(1 << 127));
}

#[test]
fn host_bits_are_masked_as_zmap_does() {
    let set = PrefixSet::parse_items(["10.1.2.3/8", "192.0.2.9/31"]).unwrap();
    assert_eq!(set.to_string(), "10.0.0.0/8,192.0.2.8/31");
    assert_eq!(PrefixSet::parse_items(["2001:db8::1/32"]).unwrap().to_string(), "2001:db8::/32");
    assert_eq!(PrefixSet::parse_items(["1.2.3.4/0"]).unwrap(), PrefixSet::all(Family::V4));
    assert_eq!(PrefixSet::parse_items(["1.2.3.4/32"]).unwrap(), PrefixSet::parse_items(["1.2.3.4"]).unwrap());
}

#[test]
fn a_range_is_the_prefixes_that_make_it_up() {
    let set = PrefixSet::parse_items(["192.0.2.1 - 192.0.2.8"]).unwrap();
    assert_eq!(set.to_string(), "192.0.2.1/32,192.0.2.2/31,192.0.2.4/30,192.0.2.8/32");
    assert_eq!(set.count(), 8);
}

#[test]
fn a_file_is_read_as_zmap_reads_its_blocklists() {
    let text = b"# comment\r\n10.0.0.0/8 # private\r\n\n  192.0.2.7\n192.0.2.10-192.0.2.20\n";
    let set = PrefixSet::from_file_bytes(Path::new("deny.txt"), text).unwrap().unwrap();
    assert_eq!(set.count(), (1 << 24) + 1 + 11);
    assert_eq!(PrefixSet::from_file_bytes(Path::new("deny.txt"), b"# nothing\n").unwrap(), None);
    let (v4, v6) = PrefixSet::both_from_file_bytes(Path::new("deny.txt"), b"10.0.0.0/8\nfd00::/8\n").unwrap();
    assert_eq!((v4.to_string(), v6.to_string()), ("10.0.0.0/8".into(), "fd00::/8".into()));
}

#[test]
fn a_bad_line_is_named_by_file_and_line() {
    for (text, expected) in [
        ("10.0.0.0/8\n10.0.0.0/33\n", "deny.txt:2: \"10.0.0.0/33\" is not a prefix (a prefix length is 0 to 32)"),
        ("10.0.0.300\n", "deny.txt:1: \"10.0.0.300\" is not a prefix (it is not an address; names are not resolved)"),
        ("\n\nexample.org # x\n", "deny.txt:3: \"example.org\" is not a prefix"),
        ("10.0.0.9-10.0.0.1\n", "(the range runs backwards)"),
        ("10.0.0.0-fd00::\n", "(the ends of the range are of different families)"),
        ("10.0.0.0/8\nfd00::/8\n", "deny.txt:2: \"fd00::/8\" is IPv6, but the targets before it are IPv4"),
        ("10.0.0.0/\n", "(the prefix length is not a number)"),
        ("fd00::/129\n", "(a prefix length is 0 to 128)"),
    ] {
        let message = PrefixSet::from_file_bytes(Path::new("deny.txt"), text.as_bytes()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert!(
        PrefixSet::from_file("/nonexistent/deny.txt", Family::V4)
            .unwrap_err()
            .to_string()
            .contains("/nonexistent/deny.txt")
    );
}
