//! The policy and its gate, rule by rule.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use irl_targets::{Family, PrefixSet};
use proptest::prelude::*;

use super::super::{Arena, DenyFile, Missing, Policy, PolicyRefusal, PolicySettings, Rate, Targets};
use super::*;
use crate::engine::Batch;
use crate::null::NullSender;

const OURS: &str = "198.18.0.10";
const OURS6: &str = "fd00::10";

fn set(items: &[&str]) -> PrefixSet {
    PrefixSet::parse_items(items.iter().copied()).unwrap()
}

fn items(items: &[&str]) -> Vec<PrefixSet> {
    items.iter().map(|item| set(&[item])).collect()
}

/// A private network at an explicit rate.
fn private() -> PolicySettings {
    PolicySettings {
        sources: vec![OURS.parse().unwrap(), OURS6.parse().unwrap()],
        own: vec!["198.18.0.1".parse().unwrap()],
        broadcast: vec![Ipv4Addr::new(198, 18, 255, 255)],
        rate: Rate::PerSecond(1000.0),
        ..PolicySettings::default()
    }
}

/// Everything that globally reachable targets need.
fn public() -> PolicySettings {
    PolicySettings {
        contact: Some("noc@example.org".into()),
        authorized: Some("ticket 7".into()),
        deny_file: Some(DenyFile { name: "deny.txt".into() }),
        deny: vec![set(&["8.8.0.0/16"])],
        ..private()
    }
}

fn policy(settings: &PolicySettings, targets: &[&str]) -> Policy {
    settings.authorise(Targets::Items(&items(targets))).unwrap()
}

/// A SYN to this address from our own, whole and correct in what the policy looks at.
fn syn(destination: &str) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match destination.parse().unwrap() {
        IpAddr::V4(destination) => {
            frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            frame.extend(OURS.parse::<Ipv4Addr>().unwrap().octets());
            frame.extend(destination.octets());
        }
        IpAddr::V6(destination) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
            frame.extend(OURS6.parse::<std::net::Ipv6Addr>().unwrap().octets());
            frame.extend(destination.octets());
        }
    }
    frame.resize(frame.len() + 20, 0);
    frame
}

fn refusal(policy: &Policy, frame: &[u8]) -> Option<RefusedBecause> {
    match policy.check(frame) {
        Verdict::Permitted => None,
        Verdict::Refused(because) => Some(because),
    }
}

#[test]
fn a_target_is_permitted_and_its_neighbour_is_not() {
    let policy = policy(&private(), &["10.0.0.0/24", "fd00:1::/64"]);
    assert_eq!(refusal(&policy, &syn("10.0.0.255")), None);
    assert_eq!(refusal(&policy, &syn("10.0.1.0")), Some(RefusedBecause::SpecialPurpose));
    assert_eq!(refusal(&policy, &syn("fd00:1::5")), None);
    assert_eq!(refusal(&policy, &syn("fd00:2::5")), Some(RefusedBecause::SpecialPurpose));
}

#[test]
fn some_destinations_are_never_permitted() {
    let policy = public().authorise(Targets::Frames).unwrap();
    for (destination, because) in [
        ("224.0.0.1", RefusedBecause::Multicast),
        ("239.255.255.255", RefusedBecause::Multicast),
        ("ff02::1", RefusedBecause::Multicast),
        ("255.255.255.255", RefusedBecause::Broadcast),
        ("198.18.255.255", RefusedBecause::Broadcast),
        ("127.0.0.1", RefusedBecause::Loopback),
        ("::1", RefusedBecause::Loopback),
        ("0.0.0.0", RefusedBecause::ThisNetwork),
        ("0.1.2.3", RefusedBecause::ThisNetwork),
        ("::", RefusedBecause::ThisNetwork),
        ("::ffff:10.0.0.1", RefusedBecause::ThisNetwork),
        ("198.18.0.10", RefusedBecause::OwnAddress),
        ("198.18.0.1", RefusedBecause::OwnAddress),
        ("fd00::10", RefusedBecause::OwnAddress),
        ("8.8.8.8", RefusedBecause::Denied),
    ] {
        assert_eq!(refusal(&policy, &syn(destination)), Some(because), "{destination}");
        assert!(!policy.allows(destination.parse().unwrap()), "{destination}");
    }
    for destination in ["9.9.9.9", "10.0.0.1", "2001:4860::1", "fd00::11", "198.18.0.11"] {
        assert_eq!(refusal(&policy, &syn(destination)), None, "{destination}");
    }
}

#[test]
fn naming_a_forbidden_destination_as_a_target_does_not_allow_it() {
    for target in ["224.0.0.0/4", "127.0.0.0/8", "0.0.0.0/8", "255.255.255.255", "ff00::/8", "::1", "198.18.0.10"] {
        let refused = public().authorise(Targets::Items(&items(&[target]))).unwrap_err();
        assert_eq!(refused, PolicyRefusal::NothingLeft, "{target}");
    }
}

#[test]
fn only_our_own_sources_are_permitted() {
    let policy = policy(&private(), &["10.0.0.0/8", "fd01::/64"]);
    let mut frame = syn("10.0.0.1");
    frame[29] ^= 1;
    assert_eq!(refusal(&policy, &frame), Some(RefusedBecause::ForeignSource));
    let mut frame = syn("fd01::1");
    frame[37] ^= 1;
    assert_eq!(refusal(&policy, &frame), Some(RefusedBecause::ForeignSource));
    // An address of the machine that this stack doesn't send from is no source either.
    let mut frame = syn("10.0.0.1");
    frame[26..30].copy_from_slice(&[198, 18, 0, 1]);
    assert_eq!(refusal(&policy, &frame), Some(RefusedBecause::ForeignSource));
}

#[test]
fn each_of_several_interfaces_lets_out_its_own_sources_and_sends_to_none_of_the_others() {
    let other = "198.18.2.10".parse().unwrap();
    let beside = PolicySettings { sources: vec![other], ..private() };
    let both = policy(&private().beside(beside), &["10.0.0.0/8", "198.18.0.0/15"]);
    let (one, two) = (both.leaving_from(&private().sources), both.leaving_from(&[other]));
    assert_eq!(refusal(&both, &syn("10.1.2.3")), None);
    assert_eq!(refusal(&one, &syn("10.1.2.3")), None);
    assert_eq!(refusal(&two, &syn("10.1.2.3")), Some(RefusedBecause::ForeignSource));
    assert_eq!(two.settings().sources, [other]);
    for each in [&both, &one, &two] {
        assert!(!each.allows(other) && private().sources.iter().all(|source| !each.allows(*source)));
    }
    assert_eq!(refusal(&one, &syn("198.18.2.10")), Some(RefusedBecause::OwnAddress), "and says so");
    assert!(both.leaving_from(&["203.0.113.9".parse().unwrap()]).settings().sources.is_empty(), "no source is added");
    both.deny(&items(&["10.1.0.0/16"]));
    assert_eq!(refusal(&one, &syn("10.1.2.3")), Some(RefusedBecause::DeniedNow), "denied for one is denied for all");
}

#[test]
fn only_whole_packets_are_permitted() {
    let policy = policy(&private(), &["10.0.0.0/8", "fd01::/64"]);
    let v4 = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = syn("10.0.0.1");
        change(&mut frame);
        refusal(&policy, &frame)
    };
    let v6 = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = syn("fd01::1");
        change(&mut frame);
        refusal(&policy, &frame)
    };
    use RefusedBecause::*;
    assert_eq!(v4(&|f| f[0] = 1), Some(Multicast), "group MAC");
    assert_eq!(v4(&|f| f[..6].fill(0xff)), Some(Broadcast), "broadcast MAC");
    assert_eq!(v4(&|f| f[12..14].copy_from_slice(&[8, 6])), Some(NotIp), "ARP");
    assert_eq!(v4(&|f| f[20] = 0x20), Some(Fragment), "more fragments");
    assert_eq!(v4(&|f| f[21] = 1), Some(Fragment), "an offset");
    assert_eq!(v4(&|f| f[20] = 0x40), None, "don't fragment");
    for tunnel in [4, 41, 47, 50, 94, 97, 137] {
        assert_eq!(v4(&|f| f[23] = tunnel), Some(Tunnel), "protocol {tunnel}");
        assert_eq!(v6(&|f| f[20] = tunnel), Some(Tunnel), "next header {tunnel}");
    }
    assert_eq!(v4(&|f| f[14] = 0x65), Some(Malformed), "version 6 inside an IPv4 frame");
    assert_eq!(v4(&|f| f[14] = 0x44), Some(Malformed), "a header of 16 bytes");
    assert_eq!(v4(&|f| f[17] = 41), Some(Malformed), "a total length past the frame's end");
    assert_eq!(v4(&|f| f[17] = 19), Some(Malformed), "a total length inside the header");
    assert_eq!(v4(&|f| f.truncate(33)), Some(Malformed), "cut inside the header");
    assert_eq!(v4(&|f| f.resize(60, 0)), None, "padded to Ethernet's minimum");
    assert_eq!(v4(&|f| f.resize(61, 0)), Some(Malformed), "more than padding");
    assert_eq!(v6(&|f| f[14] = 0x45), Some(Malformed), "version 4 inside an IPv6 frame");
    assert_eq!(v6(&|f| f[19] = 21), Some(Malformed), "a length past the frame's end");
    assert_eq!(v6(&|f| f[20] = 44), Some(Fragment), "a fragment header");
    assert_eq!(v6(&|f| f[20] = 43), Some(SourceRoute), "a routing header");
    let tag = |f: &mut Vec<u8>, tags: &[[u8; 4]]| tags.iter().rev().for_each(|t| drop(f.splice(12..12, *t)));
    assert_eq!(v4(&|f| tag(f, &[[0x81, 0, 0, 5]])), None, "one VLAN tag");
    assert_eq!(v4(&|f| tag(f, &[[0x81, 0, 0, 5], [0x81, 0, 0, 6]])), Some(StackedTags));
    assert_eq!(v4(&|f| tag(f, &[[0x88, 0xa8, 0, 5], [0x81, 0, 0, 6]])), Some(StackedTags));
}

#[test]
fn source_routes_are_refused_and_other_options_are_not() {
    let policy = policy(&private(), &["10.0.0.0/8", "fd01::/64"]);
    let with_options = |options: [u8; 8]| {
        let mut frame = syn("10.0.0.1");
        frame[14] = 0x47;
        frame[17] = 48;
        frame.splice(34..34, options);
        refusal(&policy, &frame)
    };
    assert_eq!(with_options([131, 7, 4, 1, 2, 3, 4, 0]), Some(RefusedBecause::SourceRoute));
    assert_eq!(with_options([1, 137, 7, 4, 1, 2, 3, 4]), Some(RefusedBecause::SourceRoute));
    assert_eq!(with_options([7, 7, 4, 0, 0, 0, 0, 0]), None, "record route");
    assert_eq!(with_options([7, 0, 0, 0, 0, 0, 0, 0]), Some(RefusedBecause::Malformed));
    assert_eq!(with_options([7, 9, 0, 0, 0, 0, 0, 0]), Some(RefusedBecause::Malformed));

    let with_extension = |kind: u8, next: u8| {
        let mut frame = syn("fd01::1");
        frame[19] = 28;
        frame[20] = kind;
        frame.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
        refusal(&policy, &frame)
    };
    assert_eq!(with_extension(60, 6), None, "destination options before TCP");
    assert_eq!(with_extension(0, 43), Some(RefusedBecause::SourceRoute));
    assert_eq!(with_extension(60, 44), Some(RefusedBecause::Fragment));
    assert_eq!(with_extension(60, 41), Some(RefusedBecause::Tunnel));
}

#[test]
fn special_purpose_space_is_cut_out_of_a_wider_target() {
    let wide = policy(&public(), &["0.0.0.0/0"]);
    assert_eq!(refusal(&wide, &syn("9.9.9.9")), None);
    for special in ["10.0.0.1", "192.168.1.1", "100.64.0.1", "198.18.5.5"] {
        assert_eq!(refusal(&wide, &syn(special)), Some(RefusedBecause::SpecialPurpose), "{special}");
    }
    let both = policy(&public(), &["0.0.0.0/0", "10.0.0.0/8"]);
    assert_eq!(refusal(&both, &syn("10.0.0.1")), None, "named as a target of its own");
    assert_eq!(refusal(&both, &syn("192.168.1.1")), Some(RefusedBecause::SpecialPurpose));
    // One step wider than 10.0.0.0/8, and it is no longer inside.
    assert_eq!(refusal(&policy(&public(), &["10.0.0.0/7"]), &syn("10.0.0.1")), Some(RefusedBecause::SpecialPurpose));
    let narrow = policy(&public(), &["9.0.0.0/8"]);
    assert_eq!(refusal(&narrow, &syn("9.1.1.1")), None);
    assert_eq!(refusal(&narrow, &syn("11.1.1.1")), Some(RefusedBecause::NotATarget));
}

#[test]
fn a_list_names_each_of_its_addresses() {
    let list = set(&["9.255.255.255", "10.0.0.0"]);
    let policy = public().authorise(Targets::Addresses(&list)).unwrap();
    assert_eq!(refusal(&policy, &syn("10.0.0.0")), None);
    assert_eq!(refusal(&policy, &syn("9.255.255.255")), None);
    assert_eq!(refusal(&policy, &syn("10.0.0.1")), Some(RefusedBecause::SpecialPurpose));
}

#[test]
fn globally_reachable_targets_need_everything() {
    let refused = |settings: PolicySettings| match settings.authorise(Targets::Items(&items(&["9.0.0.0/8"]))) {
        Err(PolicyRefusal::Global { example, missing }) => {
            assert_eq!(example, "9.0.0.0/8");
            missing
        }
        other => panic!("{other:?}"),
    };
    use Missing::{Authorized, Contact, FiniteRate};
    assert_eq!(refused(private()), [Contact, Missing::DenyFile, Authorized]);
    assert_eq!(refused(PolicySettings { contact: None, ..public() }), [Contact]);
    assert_eq!(refused(PolicySettings { contact: Some(" ".into()), ..public() }), [Contact]);
    assert_eq!(refused(PolicySettings { deny_file: None, ..public() }), [Missing::DenyFile]);
    assert_eq!(refused(PolicySettings { authorized: Some(String::new()), ..public() }), [Authorized]);
    assert_eq!(refused(PolicySettings { rate: Rate::Default, ..public() }), [FiniteRate]);
    assert_eq!(refused(PolicySettings { rate: Rate::Unlimited, ..public() }), [FiniteRate]);
    // Neither the lab nor the simulated link softens that.
    for arena in [Arena::Simulated, Arena::Lab { name: "demo".into() }] {
        assert_eq!(refused(PolicySettings { arena, contact: None, ..public() }), [Contact]);
    }
    let text = private().authorise(Targets::Items(&items(&["0.0.0.0/0"]))).unwrap_err().to_string();
    assert_eq!(
        text,
        "1.0.0.0/8 is globally reachable, and probing it needs more: give a contact (--contact, an e-mail address or \
         URL), a named deny file (--blocklist-file; it may be empty) and who authorised it (--authorized with a ticket \
         or person)"
    );
}

#[test]
fn the_default_rate_serves_only_the_lab_and_the_simulated_link() {
    let at = |arena: Arena, rate: Rate| PolicySettings { arena, rate, ..private() };
    let target = items(&["10.0.0.0/8"]);
    let lab = Arena::Lab { name: "demo".into() };
    for allowed in [
        at(Arena::Network, Rate::PerSecond(5.0)),
        at(Arena::Network, Rate::Unlimited),
        at(lab.clone(), Rate::Default),
        at(Arena::Simulated, Rate::Default),
    ] {
        assert!(allowed.authorise(Targets::Items(&target)).is_ok(), "{allowed:?}");
    }
    let refused = at(Arena::Network, Rate::Default).authorise(Targets::Items(&target)).unwrap_err();
    assert!(refused.to_string().ends_with("give an explicit rate (--rate)"), "{refused}");
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = at(Arena::Simulated, Rate::PerSecond(rate)).authorise(Targets::Items(&target)).unwrap_err();
        assert!(matches!(refused, PolicyRefusal::BadRate(_)), "{rate}");
    }
}

#[test]
fn a_run_needs_a_source_of_its_family() {
    let settings = PolicySettings { sources: vec![OURS.parse().unwrap()], ..private() };
    let refused = settings.authorise(Targets::Items(&items(&["fd00:1::/64"]))).unwrap_err();
    assert_eq!(refused, PolicyRefusal::NoSource { family: Family::V6 });
}

#[test]
fn frames_to_come_are_refused_one_by_one_and_told_why() {
    let policy = private().authorise(Targets::Frames).unwrap();
    assert_eq!(refusal(&policy, &syn("10.0.0.1")), None);
    assert_eq!(refusal(&policy, &syn("9.9.9.9")), Some(RefusedBecause::NotAuthorised));
    assert!(policy.explain(RefusedBecause::NotAuthorised).contains("--contact"));
    let policy = PolicySettings { rate: Rate::Default, ..private() }.authorise(Targets::Frames).unwrap();
    assert_eq!(refusal(&policy, &syn("10.0.0.1")), Some(RefusedBecause::NotAuthorised));
    assert!(policy.explain(RefusedBecause::NotAuthorised).contains("give an explicit rate (--rate);"));
}

#[test]
fn what_is_denied_while_running_is_refused_from_the_next_batch_on_and_counted() {
    let policy = Arc::new(policy(&private(), &["10.0.0.0/8"]));
    let mut gate = Gate::new(Box::new(NullSender::default()), Arc::clone(&policy));
    let send = |gate: &mut Gate, destination: &str| {
        let frame = syn(destination);
        let mut once = Some(());
        gate.fill(1, 128, |slot| {
            once.take()?;
            slot[..frame.len()].copy_from_slice(&frame);
            Some(frame.len())
        })
        .unwrap()
    };
    assert_eq!(send(&mut gate, "10.1.0.1"), Filled { built: 1, refused: 0 });
    policy.deny(&[set(&["10.1.0.0/16"])]);
    assert_eq!(refusal(&policy, &syn("10.1.0.1")), Some(RefusedBecause::DeniedNow));
    assert!(!policy.allows("10.1.0.1".parse().unwrap()));
    assert_eq!(send(&mut gate, "10.1.0.1"), Filled { built: 1, refused: 1 });
    assert_eq!(send(&mut gate, "10.2.0.1"), Filled { built: 1, refused: 0 });
    policy.deny(&[]);
    assert_eq!(send(&mut gate, "10.1.0.1"), Filled { built: 1, refused: 0 });
    assert_eq!(gate.counters().probes.refused[RefusedBecause::DeniedNow as usize], 1);
}

/// Takes as many frames a kick as it is told, and remembers them.
struct Stubborn {
    bytes: Vec<u8>,
    lengths: Vec<u16>,
    pending: usize,
    takes: usize,
}

impl Sender for Stubborn {
    fn max_frame(&self) -> usize {
        128
    }
    fn reserve(&mut self, frames: usize, frame_len: usize) -> Result<Batch<'_>, LinkError> {
        let free = self.lengths.len() - self.pending;
        Ok(Batch::new(&mut self.bytes, &mut self.lengths[..frames.min(free)], frame_len))
    }
    fn commit(&mut self, frames: usize) {
        self.pending += frames;
    }
    fn kick(&mut self) -> Result<Kicked, LinkError> {
        let taken = self.takes.min(self.pending);
        self.pending -= taken;
        Ok(Kicked { accepted: taken as u64, refused: u64::from(self.pending > 0) })
    }
    fn pending(&self) -> usize {
        self.pending
    }
    fn completed(&self) -> u64 {
        0
    }
}

#[test]
fn the_gates_counters_balance_by_class() {
    let policy = Arc::new(policy(&private(), &["10.0.0.0/8"]));
    let sender = Stubborn { bytes: vec![0; 64 * 128], lengths: vec![0; 64], pending: 0, takes: 3 };
    let mut gate = Gate::new(Box::new(sender), policy);
    let good = syn("10.0.0.1");
    let bad = syn("11.0.0.1");
    let write = |slot: &mut [u8], frame: &[u8]| {
        slot[..frame.len()].copy_from_slice(frame);
        Some(frame.len())
    };
    let mut turn = 0;
    let filled = gate
        .fill(4, 128, |slot| {
            turn += 1;
            write(slot, if turn == 2 { &bad } else { &good })
        })
        .unwrap();
    assert_eq!(filled, Filled { built: 4, refused: 1 });
    assert_eq!(gate.reset(2, 128, |slot| write(slot, &good)).unwrap().built, 2);
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6]);
    arp.resize(42, 0);
    assert!(gate.neighbour(&arp).unwrap());
    assert!(gate.neighbour(&good).is_err(), "the exemption is for neighbour frames only");
    gate.kick().unwrap();
    let counters = gate.counters();
    assert_eq!((counters.probes.sent, counters.resets.sent, counters.neighbour.sent), (3, 0, 0));
    assert_eq!((counters.probes.pending(), counters.resets.pending(), counters.neighbour.pending()), (0, 2, 1));
    assert_eq!(counters.device_full, 1);
    gate.abandon();
    let counters = gate.counters();
    assert_eq!((counters.resets.refused_by_device, counters.neighbour.refused_by_device), (2, 1));
    assert_eq!(counters.probes.refused_by_policy(), 1);
    for class in [counters.probes, counters.resets, counters.neighbour] {
        assert_eq!(class.pending(), 0);
    }
}

#[test]
fn neighbour_frames_are_bounded_in_rate() {
    let policy = Arc::new(policy(&private(), &["10.0.0.0/8"]));
    let mut gate = Gate::new(Box::new(NullSender::default()), policy);
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6]);
    arp.resize(42, 0);
    let began = now_ns();
    for _ in 0..5_000 {
        gate.neighbour(&arp).unwrap();
        gate.kick().unwrap();
    }
    let most = NEIGHBOUR_BURST + NEIGHBOUR_FRAMES_PER_S * (now_ns() - began) / 1_000_000_000 + 1;
    let counters = gate.counters().neighbour;
    assert!(counters.sent <= most, "{} of at most {most}", counters.sent);
    assert_eq!(counters.sent + counters.over_rate, 5_000);
}

proptest! {
    /// The short way through a frame says nothing that the long one does not.
    #[test]
    fn the_short_way_agrees_with_the_long_one(changes in prop::collection::vec((0usize..54, any::<u8>()), 0..4), cut in 0usize..56) {
        let mut frame = syn("10.0.0.1");
        changes.iter().for_each(|&(at, byte)| frame[at] = byte);
        frame.truncate(cut.max(20));
        if let Some((source, destination)) = super::super::frame::plain_v4(&frame) {
            let long = super::super::frame::Headers::parse(&frame);
            prop_assert_eq!(long, Ok(super::super::frame::Headers::V4 { source, destination }));
        }
    }

    /// Whatever the bytes are, judging does not panic; and what it permits comes from us and goes to a target.
    #[test]
    fn any_bytes_can_be_judged(mut bytes in prop::collection::vec(any::<u8>(), 0..120), base in 0u8..3) {
        let policy = policy(&private(), &["10.0.0.0/8", "fd01::/64"]);
        let good = if base == 1 { syn("10.0.0.1") } else { syn("fd01::1") };
        if base > 0 {
            // A good frame with some bytes changed comes further than noise.
            let noise = std::mem::replace(&mut bytes, good);
            for pair in noise.chunks_exact(12) {
                let at = usize::from(pair[0]) % bytes.len();
                bytes[at] = pair[1];
            }
        }
        if policy.check(&bytes) == Verdict::Permitted {
            let v4 = bytes.windows(5).any(|w| w[..4] == [198, 18, 0, 10] && w[4] == 10);
            let v6 = bytes.windows(2).any(|w| w == [0xfd, 0x01]);
            prop_assert!(v4 || v6);
        }
    }
}
