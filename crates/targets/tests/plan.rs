//! Claims about plans: text and value are the same, the fingerprint follows what decides the frames and nothing else,
//! files are held to their hashes, shards are disjoint and complete, and bad input is refused in words.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use irl_targets::{
    Family, Plan, PlanBuilder, PortSet, PrefixSet, SecretKey, SourcePorts, Target, TargetList, TargetsError, Versions,
};
use proptest::prelude::*;

/// A folder of its own that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("irl-targets-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ports(text: &str) -> PortSet {
    PortSet::parse(text).unwrap()
}

fn builder(target: &str) -> PlanBuilder {
    Plan::builder().target(target).ports(ports("80")).seed(7).secret(SecretKey::from_bytes([9; 16]))
}

fn message<T: std::fmt::Debug>(result: Result<T, TargetsError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn the_text_form_is_this_and_reads_back() {
    let args = BTreeMap::from([("layout".to_owned(), "smallest".to_owned())]);
    let plan = builder("10.0.0.0/8")
        .target("192.0.2.1-192.0.2.9")
        .max_targets(u64::MAX)
        .shards(3)
        .probes(2)
        .rate(100_000)
        .contact("noc@example.org")
        .sources(["198.18.0.10".parse().unwrap()])
        .source_ports(SourcePorts::new(40_000, 40_999).unwrap())
        .ttl(64)
        .probe("tcp_synscan", args)
        .build()
        .unwrap();
    let expected = r#"family = "ipv4"
targets = ["10.0.0.0/8", "192.0.2.1-192.0.2.9"]
ports = "80"
seed = 7
order = "random"
max_targets = "18446744073709551615"
probes = 2
shards = 3
sources = ["198.18.0.10"]
source_ports = "40000-40999"
ttl = 64
rate = 100000
contact = "noc@example.org"
secret = "09090909090909090909090909090909"

[versions]
plan = 1
permutation = 1
cookie = 1
registry = "2026-07-18"

[probe]
name = "tcp_synscan"

[probe.args]
layout = "smallest"
"#;
    assert_eq!(plan.to_toml(), expected);
    assert_eq!(Plan::from_toml(expected).unwrap(), plan);
}

#[test]
fn the_fingerprint_is_frozen() {
    // Resumed runs and metadata of earlier releases hold fingerprints; a change here needs a new plan version.
    let plan = builder("10.0.0.0/8").build().unwrap();
    assert_eq!(plan.fingerprint().unwrap(), "1c1e346cfe7e95e29693bc22a4aa42927148a23dc79a66195eb48559f61fd6a7");
}

#[test]
fn the_fingerprint_follows_what_decides_the_frames() {
    let base = || builder("10.0.0.0/8");
    let print = |builder: PlanBuilder| builder.build().unwrap().fingerprint().unwrap();
    let reference = print(base());
    for same in [
        base().rate(5),
        base().contact("someone else"),
        builder("10.1.2.3/8"),
        builder("10.0.0.0/8").target("10.0.0.0/8"),
        builder("10.0.0.0-10.255.255.255"),
    ] {
        assert_eq!(print(same), reference);
    }
    let args = BTreeMap::from([("layout".to_owned(), "smallest".to_owned())]);
    let mut seen = vec![reference];
    for other in [
        base().target("11.0.0.0/8"),
        base().ports(ports("81")),
        base().seed(8),
        base().secret(SecretKey::from_bytes([8; 16])),
        base().max_targets(10),
        base().shards(2),
        base().probes(2),
        base().ttl(64),
        base().sources(["198.18.0.1".parse().unwrap()]),
        base().source_ports(SourcePorts::new(61_000, 61_001).unwrap()),
        base().probe("udp", BTreeMap::new()),
        base().probe("tcp_synscan", args),
    ] {
        let print = print(other);
        assert!(!seen.contains(&print));
        seen.push(print);
    }
}

#[test]
fn the_key_is_in_the_file_and_nowhere_else() {
    let plan = builder("10.0.0.0/8").build().unwrap();
    assert!(!format!("{plan:?}").contains("9, 9") && !format!("{plan:?}").contains("0909"));
    assert!(format!("{plan:?}").contains("redacted"));
    assert!(plan.to_toml().contains("09090909"));
    assert_ne!(SecretKey::random().unwrap(), SecretKey::random().unwrap());
    assert_ne!(plan.secret.hash(), SecretKey::from_bytes([8; 16]).hash());
    let broken = plan.to_toml().replace("0909\"", "09\"");
    let message = message(Plan::from_toml(&broken));
    assert!(message.contains("32 hexadecimal digits"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_plan_file_is_private_even_when_an_older_one_was_not() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("private");
    let path = folder.file("plan.toml", "old");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let plan = builder("10.0.0.0/8").build().unwrap();
    plan.save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Plan::load(&path).unwrap().to_toml(), plan.to_toml());
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no temporary file is left");
    assert!(message(plan.save(folder.0.join("no/such/folder.toml"))).contains("cannot write"));
}

#[test]
fn files_are_held_to_their_hash_and_found_beside_the_plan() {
    let folder = Folder::new("files");
    let deny = folder.file("deny.txt", "10.1.0.0/16\nfd00::/8\n");
    let allow = folder.file("allow.txt", "10.0.0.0/8\n10.0.0.0/9\n");
    let plan = Plan::builder().allowlist(&allow).blocklist(&deny).ports(ports("80")).build().unwrap();
    let counts = plan.target_set().unwrap().counts();
    assert_eq!((counts.asked, counts.denied, counts.kept), (1 << 24, 1 << 16, (1 << 24) - (1 << 16)));

    // On another machine the files lie beside the plan.
    let elsewhere = Folder::new("elsewhere");
    plan.save(elsewhere.0.join("plan.toml")).unwrap();
    fs::rename(&deny, elsewhere.0.join("deny.txt")).unwrap();
    fs::rename(&allow, elsewhere.0.join("allow.txt")).unwrap();
    let moved = Plan::load(elsewhere.0.join("plan.toml")).unwrap();
    assert_eq!(moved.target_set().unwrap().counts(), counts);
    assert_eq!(moved.fingerprint().unwrap(), plan.fingerprint().unwrap());
    assert!(message(plan.target_set()).contains("cannot read"));

    elsewhere.file("deny.txt", "10.2.0.0/16\n");
    let message = message(moved.compile(0));
    assert!(message.contains("deny.txt has changed since the plan was made"), "{message}");
}

#[test]
fn special_purpose_space_is_cut_from_wider_targets_only() {
    let kept = |items: &[&str]| {
        let plan = Plan::builder().targets(items.iter().copied()).ports(ports("80")).build().unwrap();
        plan.target_set().unwrap()
    };
    let wide = kept(&["0.0.0.0/0"]);
    let addresses = wide.addresses().unwrap();
    assert!(!addresses.contains(0x0a00_0001) && addresses.contains(0x0101_0101));
    assert_eq!(wide.counts().asked, 1 << 32);
    assert_eq!(wide.counts().special + wide.counts().kept, 1 << 32);
    assert!(kept(&["0.0.0.0/0", "10.0.0.0/8"]).addresses().unwrap().contains(0x0a00_0001));
    assert_eq!(kept(&["198.18.0.0/15"]).len(), 1 << 17);
    assert_eq!(kept(&["fd00::/108"]).len(), 1 << 20);
    assert_eq!(kept(&["126.0.0.0/7"]).len(), 1 << 24, "loopback is never a target");
    let nothing = Plan::builder().target("224.0.0.0/4").ports(ports("80")).build().unwrap();
    let message = message(nothing.target_set());
    assert!(message.contains("no target left") && message.contains("special-purpose space 268435456"), "{message}");
}

#[test]
fn without_a_target_the_plan_is_for_all_of_ipv4() {
    let plan = Plan::builder().ports(ports("80")).build().unwrap();
    assert_eq!((plan.family, plan.targets.as_slice()), (Family::V4, &["0.0.0.0/0".to_owned()][..]));
}

#[test]
fn bad_input_is_refused_in_words() {
    let cases = [
        (message(builder("10.0.0.0/33").build()), "a prefix length is 0 to 32"),
        (message(builder("10.0.0.0/8").target("fd00::/8").build()), "a plan has one address family"),
        (
            message(builder("10.0.0.0/8").sources(["fd00::1".parse().unwrap()]).build()),
            "the source addresses must be too",
        ),
        (message(builder("10.0.0.0/8").sources(["127.0.0.1".parse().unwrap()]).build()), "not an address that frames"),
        (message(builder("10.0.0.0/8").shards(3).build().unwrap().compile(3)), "shard 3 of 3 does not exist"),
        (message(builder("10.0.0.0/8").shards(0).build()), "shards = 0 cannot be"),
        (message(builder("10.0.0.0/8").max_targets(0).build()), "max_targets = 0 cannot be"),
        (message(builder("2001:db8::/32").build().unwrap().compile(0)), "--max-targets"),
        (message(PortSet::parse("65536")), "ports end at 65535"),
        (message("70000".parse::<SourcePorts>()), "ports end at 65535"),
        (message(builder("10.0.0.0/8").blocklist("/nonexistent").build()), "cannot read /nonexistent"),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message}");
    }
    let folder = Folder::new("bad");
    let deny = folder.file("deny.txt", "10.0.0.0/8\nnonsense\n");
    assert!(message(builder("10.0.0.0/8").blocklist(&deny).build()).contains("deny.txt:2: \"nonsense\""));
    let deny = folder.file("deny.txt", "0.0.0.0/0\n");
    let all_denied = builder("10.0.0.0/8").blocklist(&deny).build().unwrap();
    assert!(message(all_denied.target_set()).contains("the blocklist holds 16777216 of them"));
}

#[test]
fn a_plan_of_another_version_is_refused() {
    let text = builder("10.0.0.0/8").build().unwrap().to_toml();
    for (from, to, what) in [
        ("permutation = 1", "permutation = 2", "permutation version 2"),
        ("cookie = 1", "cookie = 9", "cookie version 9"),
        ("plan = 1", "plan = 0", "plan version 0"),
        (Versions::default().registry.as_str(), "1999-01-01", "registry version 1999-01-01"),
    ] {
        let message = message(Plan::from_toml(&text.replace(from, to)));
        assert!(message.contains(what), "{message}");
    }
    assert!(message(Plan::from_toml(&format!("colour = 1\n{text}"))).contains("unknown field `colour`"));
    assert!(message(Plan::from_toml("family = 4")).contains("line 1"));
}

#[test]
fn a_list_is_numbered_by_its_lines() {
    let folder = Folder::new("list");
    let path = folder.file("list.txt", "# hosts\n192.0.2.7:80\n192.0.2.9:443\n\n192.0.2.7:80\n192.0.2.7:81\n");
    let list = TargetList::from_file(&path).unwrap();
    assert_eq!((list.len(), list.has_ports(), list.family()), (4, true, Family::V4));
    let plan = Plan::builder().list(&list).ports(ports("22")).build().unwrap();
    let set = plan.target_set().unwrap();
    let all: Vec<Target> = (0..set.len()).map(|index| set.get(index)).collect();
    let at = |last: u128, port| Target { address: 0xc000_0200 + last, port };
    assert_eq!(all, [at(7, 80), at(9, 443), at(7, 81)]);
    assert_eq!(set.counts().duplicates, 1);
    for (index, &target) in all.iter().enumerate() {
        assert_eq!(set.index_of(target), Some(index as u128));
    }
    assert_eq!(set.index_of(at(9, 80)), None);

    fs::write(&path, "192.0.2.7:80\n").unwrap();
    assert!(message(plan.compile(0)).contains("has changed since the plan was made"));
}

#[test]
fn a_list_of_addresses_takes_the_plans_ports_and_blocklist() {
    let folder = Folder::new("addresses");
    let deny = folder.file("deny.txt", "2606:4700::2\n");
    let text = "2606:4700::1\n2606:4700::2\n2606:4700::3\nfd00::1\n";
    let list = TargetList::from_reader("-", text.as_bytes()).unwrap();
    let plan = Plan::builder().list(&list).blocklist(&deny).ports(ports("80,443")).seed(3).build().unwrap();
    assert!(message(plan.compile(0)).contains("read from -"));
    let compiled = plan.compile_with(list.clone(), 0).unwrap();
    assert_eq!(compiled.len(), 4);
    let counts = compiled.targets().counts();
    assert_eq!((counts.asked, counts.denied, counts.special, counts.kept), (4, 1, 1, 2));
    let other = TargetList::from_reader("-", &b"2606:4700::1\n"[..]).unwrap();
    assert!(message(plan.compile_with(other, 0)).contains("has changed"));

    let special = TargetList::from_reader("-", &b"fd00::1\nfd00::2\n"[..]).unwrap();
    let plan = Plan::builder().list(&special).ports(ports("80")).build().unwrap();
    assert_eq!(plan.compile_with(special, 0).unwrap().len(), 2, "a list that lies in special-purpose space was meant");
}

#[test]
fn a_bad_line_of_a_list_is_named() {
    for (text, expected) in [
        ("192.0.2.7\n192.0.2.7:80\n", "list:2: \"192.0.2.7:80\" is not a target (the lines before it have no port"),
        ("192.0.2.7:80\n192.0.2.7\n", "list:2:"),
        ("192.0.2.7:65536\n", "ports end at 65535"),
        ("192.0.2.7\nfd00::1\n", "list:2: \"fd00::1\" is IPv6"),
        ("fe80::1%eth0\n", "neither an address nor address:port"),
        ("# none\n", "no target in it"),
    ] {
        let message = message(TargetList::from_reader("list", text.as_bytes()));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn shards_are_disjoint_and_complete() {
    let plan = builder("10.0.0.0/22").ports(ports("80-82,443")).shards(3).build().unwrap();
    let mut seen = vec![0u8; 4096];
    let mut total = 0;
    for shard in 0..3 {
        let compiled = plan.compile(shard).unwrap();
        let mut out = vec![(0, Target::default()); 100];
        let mut first = 0;
        loop {
            let count = compiled.fill(first, &mut out);
            for (i, &(slot, target)) in out[..count].iter().enumerate() {
                seen[slot as usize] += 1;
                assert_eq!(compiled.targets().get(slot.into()), target);
                assert_eq!(compiled.slot_of(target), Some(slot));
                assert_eq!(compiled.shard_and_position_of(target), Some((shard, first + i as u64)));
            }
            first += count as u64;
            if count < out.len() {
                break;
            }
        }
        assert_eq!(first, compiled.len());
        assert_eq!(compiled.target(first), None);
        total += first;
    }
    assert_eq!(total, 4096);
    assert!(seen.iter().all(|&count| count == 1));
}

#[test]
fn max_targets_is_the_first_of_the_order_whatever_the_shards() {
    let targets = |shards: u32| {
        let plan = builder("10.0.0.0/16").max_targets(1000).shards(shards).build().unwrap();
        let mut targets: Vec<(u64, Target)> = Vec::new();
        for shard in 0..shards {
            let compiled = plan.compile(0).unwrap().shard(shard).unwrap();
            targets.extend((0..compiled.len()).map(|position| compiled.target(position).unwrap()));
        }
        targets.sort_unstable();
        targets
    };
    let whole = targets(1);
    assert_eq!(whole.len(), 1000);
    for shards in [2, 3, 7, 999, 1001] {
        assert_eq!(targets(shards), whole, "{shards} shards");
    }
}

#[test]
fn a_set_beyond_64_bits_is_sampled_and_known_by_position() {
    let plan = builder("2001:db8::/32").ports(ports("80,443")).max_targets(10_000).shards(3).build().unwrap();
    let compiled = plan.compile(1).unwrap();
    assert_eq!((compiled.total(), compiled.len(), compiled.slots()), (10_000, 3333, 10_000));
    for position in 0..compiled.len() {
        let (slot, target) = compiled.target(position).unwrap();
        assert_eq!(slot, position * 3 + 1);
        assert_eq!(compiled.slot_of(target), Some(slot));
        assert_eq!(compiled.shard_and_position_of(target), Some((1, position)));
    }
    assert_eq!(compiled.slot_of(Target { address: 0x2001_0db8 << 96, port: 80 }), None, "not among the first 10,000");
}

/// ZMap 4.3.4 repeats targets here.
#[test]
fn the_first_40_million_targets_of_a_300_port_internet_scan_are_unique() {
    const COUNT: usize = 40_000_000;
    let plan = Plan::builder().target("0.0.0.0/0").ports(ports("80-379")).seed(1).build().unwrap().compile(0).unwrap();
    assert!(plan.len() > 1 << 40);
    let mut slots = Vec::with_capacity(COUNT);
    let mut out = vec![(0, Target::default()); 4096];
    while slots.len() < COUNT {
        let filled = plan.fill(slots.len() as u64, &mut out);
        // A slot names one target, and a target one slot, so unique slots are unique targets.
        slots.extend(out[..filled].iter().map(|&(slot, _)| slot));
        let (slot, target) = out[0];
        assert_eq!(plan.slot_of(target), Some(slot));
        assert!((80..380).contains(&target.port));
    }
    slots.sort_unstable();
    assert!(slots.windows(2).all(|pair| pair[0] != pair[1]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_plan_reads_back(
        prefix in (any::<u32>(), 0u8..=32),
        port in any::<u16>(),
        seed: u64,
        max in proptest::option::of(1u64..),
        rate in proptest::option::of(any::<u64>()),
        key: [u8; 16],
        probes in 1u16..,
        shards in 1u32..,
        text in "\\PC{0,20}",
    ) {
        let target = format!("{}/{}", std::net::Ipv4Addr::from_bits(prefix.0), prefix.1);
        let mut builder = Plan::builder().target(target).ports(PortSet::from_ports([port]).unwrap()).seed(seed);
        builder = builder.secret(SecretKey::from_bytes(key)).probes(probes).shards(shards).contact(text.as_str());
        builder = builder.probe("udp", BTreeMap::from([("payload".to_owned(), text)]));
        if let Some(max) = max {
            builder = builder.max_targets(max);
        }
        if let Some(rate) = rate {
            builder = builder.rate(rate);
        }
        let plan = builder.build().unwrap();
        let read = Plan::from_toml(&plan.to_toml()).unwrap();
        prop_assert_eq!(&read, &plan);
        prop_assert_eq!(read.fingerprint().unwrap(), plan.fingerprint().unwrap());
    }

    #[test]
    fn every_target_of_a_product_knows_its_place(
        ranges in proptest::collection::vec((0x0100_0000u32..0x0a00_0000, 1u32..5000), 1..20),
        list in proptest::collection::vec(any::<u16>(), 1..400),
        seed: u64,
    ) {
        let ranges = ranges.iter().map(|&(first, more)| (first.into(), (first + more).into())).collect();
        let set = PrefixSet::from_ranges(Family::V4, ranges);
        let ports = PortSet::from_ports(list).unwrap();
        let builder = Plan::builder().targets(set.prefixes()).ports(ports.clone()).seed(seed);
        let plan = builder.build().unwrap().compile(0).unwrap();
        prop_assert_eq!(u128::from(plan.len()), set.count() * ports.len() as u128);
        let mut out = vec![(0, Target::default()); 200];
        let first = seed % plan.len();
        let count = plan.fill(first, &mut out);
        for (i, &(slot, target)) in out[..count].iter().enumerate() {
            prop_assert_eq!(plan.index_at(first + i as u64), u128::from(slot));
            prop_assert!(set.contains(target.address) && ports.contains(target.port));
            prop_assert_eq!(plan.targets().get(slot.into()), target);
            prop_assert_eq!(plan.position_of(target), Some(first + i as u64));
        }
    }
}
