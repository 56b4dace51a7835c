//! The services of open ports, in the kernel and in user space: what they say, that they say the same, and that they hold.
//! Needs root, for BPF_PROG_TEST_RUN.
#![cfg(target_os = "linux")]

use std::sync::Arc;

use irl_lab::responder::Hold;
use irl_lab::xdp::{RESPONDER_BUILT, Rehearsed, XdpResponder};
use irl_lab::{Class, Responder, Service, World, WorldConfig, sim};
use irl_targets::PrefixSet;
use irl_wire::packet::{Envelope, Ethernet, Packet, Tcp, protocol, tcp_flags};

const ACK: u8 = tcp_flags::ACK;
const PSH: u8 = tcp_flags::PSH;
const FIN: u8 = tcp_flags::FIN;
const SYN: u8 = tcp_flags::SYN;
const RST: u8 = tcp_flags::RST;
const OUR_PORT: u16 = 61_234;
const OURS: [u128; 2] = [0xc612_000a, (0xfd00_0018_u128 << 96) + 0x10];
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 1, 2, 3, 9, 9, 9, 9];

/// Whether the kernel can be asked; says so when not.
fn can(test: &str) -> bool {
    let can = nix::unistd::geteuid().is_root() && RESPONDER_BUILT;
    if !can {
        eprintln!("SKIPPED {test}: needs root and a build with clang");
    }
    can
}

fn world(everything_open: bool) -> World {
    World::new(WorldConfig { seed: 21, everything_open })
}

fn responders(world: World, service: Service) -> (XdpResponder, Responder) {
    let ranges = [PrefixSet::parse_items(["10.0.0.0/8"]).unwrap(), PrefixSet::parse_items(["fd00::/64"]).unwrap()];
    let kernel = XdpResponder::load(&world, &ranges, service).unwrap();
    (kernel, Responder::new(world, sim::GATEWAY_MAC).with_service(service))
}

/// A segment of a client of ours.
#[derive(Clone, Debug)]
struct Said<'a> {
    v6: bool,
    target: u128,
    port: u16,
    seq: u32,
    ack: u32,
    flags: u8,
    options: &'a [u8],
    data: &'a [u8],
}

impl Said<'_> {
    fn frame(&self) -> Vec<u8> {
        let envelope = Envelope {
            source_mac: sim::OUR_MAC,
            destination_mac: sim::GATEWAY_MAC,
            vlan: None,
            v6: self.v6,
            source: OURS[usize::from(self.v6)],
            destination: self.target,
            ttl: 64,
            id: 7,
        };
        let mut frame = vec![0; envelope.len()];
        frame.extend(OUR_PORT.to_be_bytes());
        frame.extend(self.port.to_be_bytes());
        frame.extend(self.seq.to_be_bytes());
        frame.extend(self.ack.to_be_bytes());
        frame.extend([((20 + self.options.len()) << 2) as u8, self.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        frame.extend(self.options);
        frame.extend(self.data);
        envelope.seal(&mut frame, protocol::TCP, 16);
        frame
    }
}

/// The one answer of the kernel, which user space gives too; `None` for silence.
fn answer(kernel: &mut XdpResponder, user: &mut Responder, frame: &[u8]) -> Option<Vec<u8>> {
    let mut answers = Vec::new();
    user.respond(frame, &mut |answer| answers.push(answer.to_vec()));
    match kernel.rehearse(frame).unwrap() {
        Rehearsed::Answered(answer) => {
            assert_eq!(answers, std::slice::from_ref(&answer));
            Some(answer)
        }
        Rehearsed::Silent => {
            assert_eq!(answers, Vec::<Vec<u8>>::new(), "the kernel said nothing");
            None
        }
        Rehearsed::Passed => panic!("left to user space, which says {answers:02x?}"),
    }
}

#[test]
fn what_a_service_says_follows_from_the_segment_and_the_world() {
    if !can("what_a_service_says_follows_from_the_segment_and_the_world") {
        return;
    }
    let world = world(true);
    let request = [b'?'; 77];
    for (service, fin, length) in [
        ("exchange", false, 100),
        ("exchange:16", false, 16),
        ("exchange:333:fin", true, 333),
        ("exchange:1428", false, 1428),
        ("gnutella", false, 266),
    ] {
        let service: Service = service.parse().unwrap();
        let (mut kernel, mut user) = responders(world, service);
        for (v6, target) in [(false, 0x0a01_0203), (true, (0xfd00_u128 << 112) + 0x0102)] {
            let isn = world.isn(target, 80, OURS[usize::from(v6)], OUR_PORT);
            for options in [&[][..], &TIMESTAMPS] {
                let base =
                    Said { v6, target, port: 80, seq: 1000, ack: isn.wrapping_add(1), flags: ACK, options, data: &[] };
                let mut ask =
                    |flags: u8, data: &[u8]| answer(&mut kernel, &mut user, &Said { flags, data, ..base }.frame());
                let check = |frame: Option<Vec<u8>>, flags: u8, ack: u32, data: &[u8]| {
                    let frame = frame.expect("an answer");
                    let packet = Packet::parse(&Ethernet::parse(&frame).unwrap()).unwrap();
                    assert!(packet.header_intact() && packet.payload_intact());
                    let tcp = Tcp::parse(packet.payload).unwrap();
                    assert_eq!((tcp.seq, tcp.ack, tcp.flags), (isn.wrapping_add(1), ack, flags));
                    assert_eq!(tcp.payload, data);
                    let expected = (!options.is_empty()).then_some((isn.rotate_left(16), 0x0001_0203));
                    assert_eq!(tcp.options().timestamps, expected);
                };
                let reply = service.reply().unwrap().said(world.response_draw(target, 80));
                assert_eq!(reply.len(), length);
                let last = if fin { FIN } else { 0 };
                check(ask(ACK, &request), ACK | PSH | last, 1077, &reply);
                check(ask(ACK | PSH, &request[..1]), ACK | PSH | last, 1001, &reply);
                check(ask(ACK | FIN, &request), ACK | PSH | FIN, 1078, &reply);
                check(ask(ACK | FIN, &[]), ACK | if fin { 0 } else { FIN }, 1001, &[]);
                assert_eq!(ask(ACK, &[]), None, "a bare ACK");
                assert_eq!(ask(RST, &[]), None);
                assert_eq!(ask(PSH, &request), None, "without ACK there is no connection");
            }
        }
    }
}

#[test]
fn who_acknowledges_what_was_never_said_is_reset() {
    if !can("who_acknowledges_what_was_never_said_is_reset") {
        return;
    }
    let world = world(true);
    let (mut kernel, mut user) = responders(world, "exchange".parse().unwrap());
    let isn = world.isn(0x0a00_0001, 80, OURS[0], OUR_PORT);
    let mut flags = |ack: u32| {
        let said = Said { v6: false, target: 0x0a00_0001, port: 80, seq: 5, ack, flags: ACK, options: &[], data: b"!" };
        let answer = answer(&mut kernel, &mut user, &said.frame()).expect("an answer");
        let packet = Packet::parse(&Ethernet::parse(&answer).unwrap()).unwrap();
        Tcp::parse(packet.payload).unwrap().flags
    };
    assert_eq!(flags(isn), RST);
    assert_eq!(flags(isn.wrapping_add(1)), ACK | PSH);
    assert_eq!(flags(isn.wrapping_add(1 + (1 << 20))), ACK | PSH);
    assert_eq!(flags(isn.wrapping_add(2 + (1 << 20))), RST);
}

#[test]
fn kernel_and_user_space_hold_the_same_dialogues() {
    if !can("kernel_and_user_space_hold_the_same_dialogues") {
        return;
    }
    let world = world(false);
    let mut state = 0x9e37_79b9_u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let malformed = [8, 10, 1, 0];
    let elsewhere = [8, 10, 7, 7, 7, 7, 0, 0, 0, 0, 1, 1];
    let sack = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let options: [&[u8]; 6] = [&[], &TIMESTAMPS, &TIMESTAMPS, &malformed, &elsewhere, &sack];
    let flags = [ACK, ACK | PSH, ACK | PSH, ACK | FIN, ACK | FIN | PSH, PSH, RST | ACK, SYN | ACK, 0, FIN];
    let data = [b'x'; 1428];
    let mut answered = [0; Class::ALL.len()];
    for service in ["exchange:100", "exchange:37:fin", "gnutella"] {
        let (mut kernel, mut user) = responders(world, service.parse().unwrap());
        for _ in 0..100_000 {
            let v6 = draw() & 3 == 0;
            let low = u128::from(draw() & 0xff_ffff);
            let target = if v6 { 0xfd00_u128 << 112 | low } else { 0x0a00_0000 | low };
            let port = [80, 443, 7777][(draw() % 3) as usize];
            let isn = world.isn(target, port, OURS[usize::from(v6)], OUR_PORT);
            let ack = match draw() & 7 {
                0 => draw() as u32,
                some => isn.wrapping_add(1 + 100 * (some as u32 & 1)),
            };
            let length = [0, 1, 77, 100, 1428, (draw() % 1429) as usize][(draw() % 6) as usize];
            let options = options[(draw() % 6) as usize];
            let said = Said {
                v6,
                target,
                port,
                seq: draw() as u32,
                ack,
                flags: flags[(draw() % 10) as usize],
                options,
                data: &data[..length.min(1440 - options.len())],
            };
            let class = world.truth(target, port).class;
            let mut frame = said.frame();
            match draw() & 15 {
                // An ICMP error finds no room in a short frame and is left to user space.
                _ if class == Class::Filtered && frame.len() < 100 => continue,
                0 => frame.resize(frame.len() + (draw() % 20) as usize, 0),
                1 => {
                    let at = (draw() % (frame.len() as u64 - 14)) as usize + 14;
                    // Not who it is from and to, nor what the IP header says of itself: others' business.
                    if at > 14 + 40 {
                        frame[at] ^= 0x40;
                    }
                }
                _ => {}
            }
            if answer(&mut kernel, &mut user, &frame).is_some() {
                answered[class as usize] += 1;
            }
        }
    }
    for class in [Class::Open, Class::Middlebox, Class::Duplicate, Class::Closed] {
        assert!(answered[class as usize] > 30, "{class:?}: {answered:?}");
    }
}

#[test]
fn on_hold_syns_are_answered_and_nothing_else_until_it_ends() {
    if !can("on_hold_syns_are_answered_and_nothing_else_until_it_ends") {
        return;
    }
    let world = world(true);
    let (mut kernel, user) = responders(world, "exchange".parse().unwrap());
    let hold = Arc::new(Hold::default());
    let mut user = user.with_hold(Arc::clone(&hold));
    for (v6, target) in [(false, 0x0a00_0001), (true, (0xfd00_u128 << 112) + 1)] {
        let isn = world.isn(target, 80, OURS[usize::from(v6)], OUR_PORT);
        let base = Said { v6, target, port: 80, seq: 5, ack: isn.wrapping_add(1), flags: ACK, options: &[], data: &[] };
        let request = Said { data: b"!", ..base.clone() }.frame();
        let before = (kernel.counters().unwrap().held, hold.swallowed());
        kernel.hold(true).unwrap();
        hold.set(true);
        assert!(answer(&mut kernel, &mut user, &Said { flags: SYN, ack: 0, ..base.clone() }.frame()).is_some());
        for flags in [ACK, FIN | ACK, RST] {
            assert_eq!(answer(&mut kernel, &mut user, &Said { flags, ..base.clone() }.frame()), None);
        }
        assert_eq!(answer(&mut kernel, &mut user, &request), None);
        let swallowed = (kernel.counters().unwrap().held - before.0, hold.swallowed() - before.1);
        assert_eq!(swallowed, (4, 4));
        kernel.hold(false).unwrap();
        hold.set(false);
        assert!(answer(&mut kernel, &mut user, &request).is_some(), "sent again, it is answered");
    }
    assert_eq!(kernel.counters().unwrap().served, 2);
}
