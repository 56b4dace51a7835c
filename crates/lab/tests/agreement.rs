//! The two responders agree with each other and with the truth. Needs root, for BPF_PROG_TEST_RUN.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use irl_lab::xdp::{RESPONDER_BUILT, Rehearsed, XdpResponder};
use irl_lab::{Class, Responder, Service, World, WorldConfig, sim};
use irl_link::netdev::Interface;
use irl_link::packet::Tap;
use irl_targets::PrefixSet;
use irl_wire::{Endpoint, FrameBuilder, Key, PortRange, Probe};

struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn builder(name: &str, args: &[(&str, &str)], source: IpAddr) -> FrameBuilder {
    let args: BTreeMap<String, String> = args.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let probe = Probe::resolve(name, &args).unwrap();
    let from = Endpoint { mac: sim::OUR_MAC, address: source, ports: PortRange::DEFAULT, ttl: 64, vlan: None };
    FrameBuilder::new(&probe, &from, &Key::new([7; 16])).unwrap()
}

#[test]
fn kernel_and_user_space_answer_alike() {
    if !nix::unistd::geteuid().is_root() || !RESPONDER_BUILT {
        eprintln!("SKIPPED kernel_and_user_space_answer_alike: needs root and a build with clang");
        return;
    }
    let world = World::new(WorldConfig { seed: 21, everything_open: false });
    let ranges = [PrefixSet::parse_items(["10.0.0.0/8"]).unwrap(), PrefixSet::parse_items(["fd00::/64"]).unwrap()];
    let mut kernel = XdpResponder::load(&world, &ranges, Service::Response).unwrap();
    let mut user = Responder::new(world, sim::GATEWAY_MAC);
    let v4 = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 10));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 10));
    let builders: Vec<(bool, bool, FrameBuilder)> = [
        (true, false, builder("tcp_synscan", &[], v4)),
        (true, true, builder("tcp_synscan", &[], v6)),
        (true, false, builder("tcp_synscan", &[("layout", "smallest")], v4)),
        (false, false, builder("udp", &[("text", "hello, world, this is a payload")], v4)),
        (false, true, builder("udp", &[("text", "hello")], v6)),
        (false, false, builder("icmp_echoscan", &[], v4)),
        (false, true, builder("icmp_echoscan", &[], v6)),
        (false, false, builder("tcp_synackscan", &[], v4)),
        (false, true, builder("tcp_synackscan", &[], v6)),
    ]
    .into();
    let mut draws = Draws(99);
    let mut seen = BTreeMap::new();
    let mut slot = [0; 256];
    for _ in 0..1_000_000 {
        // Mostly SYNs, as in scans.
        let draw = draws.next();
        let pick = if draw & 7 < 5 { draw >> 8 & 1 } else { (draw >> 8) % 9 } as usize;
        let (tcp, is_v6, builder) = &builders[pick];
        let port = [80, 443, 22, 8080, 7777, (draws.next() & 0xffff) as u16][(draws.next() % 6) as usize];
        let low = u128::from(draws.next() & 0xff_ffff);
        let target = if *is_v6 { 0xfd00_u128 << 112 | low } else { 0x0a00_0000 | low };
        let length = builder.build(&mut slot, sim::GATEWAY_MAC, target, port, 0, 1_000_000);
        let frame = &slot[..length];
        let mut answers = Vec::new();
        user.respond(frame, &mut |answer| answers.push(answer.to_vec()));
        let class = world.truth(target, port).class;
        if *tcp {
            *seen.entry(class.name()).or_insert(0) += 1;
            let expected = match class {
                Class::Absent => 0,
                Class::Duplicate => 2,
                _ => 1,
            };
            assert_eq!(answers.len(), expected, "{class:?} at {target:x}:{port}");
        }
        match kernel.rehearse(frame).unwrap() {
            Rehearsed::Answered(answer) => assert_eq!([answer], answers[..], "{class:?} at {target:x}:{port}"),
            Rehearsed::Silent => assert!(answers.is_empty(), "{class:?} at {target:x}:{port}: the kernel said nothing"),
            Rehearsed::Passed => assert!(
                class == Class::Duplicate || (class == Class::Filtered && answers[0].len() > frame.len()) || !tcp,
                "{class:?} at {target:x}:{port} was left to user space"
            ),
        }
    }
    assert_eq!(seen.len(), Class::ALL.len(), "{seen:?}");
    let counters = kernel.counters().unwrap();
    assert!(counters.answered > 30_000 && counters.passed < 5_000, "{counters:?}");
}

#[test]
fn nobody_answers_what_came_broken() {
    if !nix::unistd::geteuid().is_root() || !RESPONDER_BUILT {
        eprintln!("SKIPPED nobody_answers_what_came_broken: needs root and a build with clang");
        return;
    }
    let world = World::new(WorldConfig { seed: 21, everything_open: true });
    let ranges = [PrefixSet::parse_items(["10.0.0.0/8"]).unwrap(), PrefixSet::parse_items(["fd00::/64"]).unwrap()];
    let mut kernel = XdpResponder::load(&world, &ranges, Service::Response).unwrap();
    let v4 = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 10));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 10));
    for (source, target, header) in [(v4, 0x0a00_0005, 20), (v6, (0xfd00 << 112) + 5, 40)] {
        for (name, args) in [("tcp_synscan", &[][..]), ("udp", &[("text", "odd")]), ("icmp_echoscan", &[])] {
            let mut slot = [0; 256];
            let length = builder(name, args, source).build(&mut slot, sim::GATEWAY_MAC, target, 80, 0, 1_000_000);
            let frame = &mut slot[..length];
            assert!(matches!(kernel.rehearse(frame).unwrap(), Rehearsed::Answered(_)), "{name} to {target:x}");
            // IPv6's own header has no checksum, and each byte of the rest is in one.
            let start = 14 + if source.is_ipv4() { 0 } else { header };
            for at in start..length {
                frame[at] ^= 0x10;
                let broken = kernel.rehearse(frame).unwrap();
                assert!(!matches!(broken, Rehearsed::Answered(_)), "{name} to {target:x}, byte {at}: {broken:?}");
                frame[at] ^= 0x10;
            }
        }
    }
}

/// Runs `command` in a shell.
fn shell(command: &str) {
    let status = std::process::Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

#[test]
fn a_client_without_xdp_gets_its_answers() {
    const SYNS: u32 = 10_000;
    if !nix::unistd::geteuid().is_root() || !RESPONDER_BUILT {
        eprintln!("SKIPPED a_client_without_xdp_gets_its_answers: needs root and a build with clang");
        return;
    }
    let body = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        shell("ip link add va type veth peer name vb && ip link set va up && ip link set vb up");
        // GRO keeps the receiving side of a veth pair awake; the rest as in a lab.
        shell("for each in va vb; do ethtool -K $each tx off tso off gso off gro on >/dev/null; done");
        let world = World::new(WorldConfig { seed: 21, everything_open: true });
        let ranges = [PrefixSet::parse_items(["10.0.0.0/8"]).unwrap()];
        let responder = XdpResponder::attach("vb", &world, &ranges, Service::Response).unwrap();
        let gateway = Interface::by_name("vb").unwrap().mac;
        let syn = builder("tcp_synscan", &[], IpAddr::V4(Ipv4Addr::new(198, 18, 0, 10)));
        let mut client = Tap::open("va").unwrap();
        let (mut slot, mut got) = ([0; 256], 0);
        let mut synack = |frame: &[u8]| got += u32::from(frame.len() > 47 && frame[23] == 6 && frame[47] == 0x12);
        for number in 0..SYNS {
            let length = syn.build(&mut slot, gateway, u128::from(0x0a00_0000 + number), 80, 0, 1_000_000);
            assert!(client.send(&slot[..length]).unwrap());
            if number % 32 == 31 {
                client.flush().unwrap();
                client.receive(4096, &mut synack).unwrap();
                // A veth's queue is short.
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        client.flush().unwrap();
        let deadline = Instant::now() + Duration::from_millis(500);
        while Instant::now() < deadline {
            client.receive(4096, &mut synack).unwrap();
            client.wait(Duration::from_millis(10)).unwrap();
        }
        assert_eq!((got, responder.counters().unwrap().answered), (SYNS, u64::from(SYNS)));
    };
    std::thread::spawn(body).join().unwrap();
}
