//! Opening stacks: what is found, what is refused, what is left behind.

use std::net::UdpSocket;
use std::sync::Arc;

use irl_link::filter::{Accept, AddressKind, FilterConfig, KernelFilter, OwnAddress};
use irl_link::policy::{Arena, PolicySettings, Rate, Targets};
use irl_link::record::{Kind, flags};
use irl_link::{EngineChoice, LinkError, Network, Stack, StackConfig};
use irl_targets::PrefixSet;
use irl_wire::{PortRange, Protocol};

use crate::wire::{FAR, NEAR, Shell, Wire, config, ip, policy, request, serve};

#[test]
fn an_unknown_interface_is_told_which_there_are() {
    let Some(wire) = Wire::new() else { return };
    let config = StackConfig { interface: Some("eth7".to_owned()), ..StackConfig::default() };
    let error = wire.open(config).unwrap_err().to_string();
    assert!(error.contains("eth7") && error.contains("lo, va"), "{error}");
}

#[test]
fn interface_and_source_come_from_the_route() {
    let Some(wire) = Wire::with_filter() else { return };
    let error = wire.open(StackConfig::default()).unwrap_err().to_string();
    assert!(error.contains("no route"), "{error}");
    wire.near.sh(&format!("ip route add default via {FAR}"));
    let stack = wire.open(StackConfig::default()).unwrap();
    assert_eq!(stack.interface().name, "va");
    assert_eq!(stack.sources(), [ip(NEAR)]);
    assert_eq!(stack.shared_addresses(), [ip(NEAR)]);
    let info = stack.info();
    assert_eq!((info.engine.as_str(), info.driver.as_str(), info.kernel_rst), ("live", "veth", false));
    assert!(info.xdp_mode.starts_with("native"), "{}", info.xdp_mode);
    drop(stack);
    let towards = Some(ip("fd00:18::2"));
    let stack = wire.open(StackConfig { towards, ..StackConfig::default() }).unwrap();
    assert_eq!(stack.sources(), [ip(crate::wire::NEAR6)]);
}

#[test]
fn ports_of_the_hosts_own_connections_are_refused_on_its_address_only() {
    let Some(wire) = Wire::new() else { return };
    let overlapping = |stack: &Stack| {
        let mut request = request(stack, Protocol::Tcp);
        request.ports = PortRange { first: 50000, last: 65535 };
        stack.workers(&request).map(|_| ())
    };
    let error = overlapping(&wire.stack(&[NEAR], true)).unwrap_err().to_string();
    assert!(error.contains("sysctl -w net.ipv4.ip_local_port_range=\"32768 49999\""), "{error}");
    overlapping(&wire.stack(&["198.18.0.10"], true)).unwrap();
    wire.near.sh("sysctl -qw net.ipv4.ip_local_port_range=\"32768 49999\"");
    overlapping(&wire.stack(&[NEAR], true)).unwrap();
}

#[test]
fn an_occupied_interface_is_left_alone_and_named() {
    let Some(wire) = Wire::with_filter() else { return };
    // Attached past the stacks' own register, it is a stranger's.
    let addresses = vec![OwnAddress { address: ip("198.18.0.200"), kind: AddressKind::Spare }];
    let stranger = wire.near.run(|| KernelFilter::attach("va", &FilterConfig { addresses })).unwrap();
    let there = wire.near_interface().xdp_program().unwrap().unwrap();
    let engine = |engine| StackConfig { engine, ..config(&["198.18.0.10"], true) };
    match wire.open(engine(EngineChoice::Live)) {
        Err(LinkError::Occupied { interface, id, program }) => {
            assert_eq!((interface.as_str(), id, program), ("va", there.id, there.name));
        }
        other => panic!("{other:?}"),
    }
    let stack = wire.open(engine(EngineChoice::Auto)).unwrap();
    let info = stack.info();
    assert_eq!(info.engine, "packet");
    assert!(info.why.contains("not the filter, because the interface va already runs"), "{}", info.why);
    assert_eq!((info.xdp_mode.as_str(), info.kernel_rst), ("none", false));
    receive_a_datagram(&wire, &stack);
    drop(stranger);
}

#[test]
fn without_the_filter_a_host_address_draws_kernel_resets_and_says_so() {
    let Some(wire) = Wire::new() else { return };
    assert!(wire.stack(&[NEAR], false).info().kernel_rst);
    assert!(!wire.stack(&["198.18.0.10"], false).info().kernel_rst);
}

/// A datagram from the far end reaches the worker, with a checksum that counts as right.
fn receive_a_datagram(wire: &Wire, stack: &Stack) {
    let mut request = request(stack, Protocol::Udp);
    request.accept = Accept::Any;
    let mut worker = stack.workers(&request).unwrap().pop().unwrap();
    let socket = wire.far.run(|| Ok(UdpSocket::bind((FAR, 5353)).unwrap())).unwrap();
    let to = (stack.sources()[0], 61007);
    let (mut seen, mut flawed) = (0, 0);
    let mut sent = false;
    for _ in 0..20 {
        // The first waits for ARP.
        socket.send_to(b"hello", to).unwrap();
        let served = serve(
            stack,
            &mut worker,
            |record| {
                assert_eq!(record.kind, Kind::Udp);
                seen += 1;
                flawed += usize::from(record.flags & flags::BAD_CHECKSUM != 0);
            },
            || std::mem::replace(&mut sent, true),
        );
        served.unwrap();
        sent = seen > 0;
        if seen > 0 {
            break;
        }
    }
    assert!(seen > 0);
    assert_eq!(flawed, 0, "half a checksum of a local peer is no flaw");
    stack.release(&[worker.owner]);
}

#[test]
fn datagrams_arrive_with_and_without_the_filter() {
    let Some(wire) = Wire::new() else { return };
    receive_a_datagram(&wire, &wire.stack(&["198.18.0.10"], true));
    // The far host may leave its checksums unfinished: a packet socket is told so.
    wire.far.sh("ethtool -K vb tx on >/dev/null");
    receive_a_datagram(&wire, &wire.stack(&["198.18.0.10"], false));
}

#[test]
fn stacks_of_a_process_share_one_filter_and_the_last_takes_it_away() {
    let Some(wire) = Wire::with_filter() else { return };
    let first = wire.stack(&["198.18.0.10", "198.18.0.11"], true);
    let second = wire.stack(&["198.18.0.11"], true);
    let workers = first.workers(&{
        let mut request = request(&first, Protocol::Tcp);
        request.count = 2;
        request.ports = PortRange { first: 61000, last: 62999 };
        request
    });
    let owners: Vec<u16> = workers.unwrap().iter().map(|worker| worker.owner).collect();
    assert_eq!(owners, [0, 1]);
    let mut more = request(&second, Protocol::Tcp);
    assert!(second.workers(&more).is_err(), "ports that another measurement has");
    more.ports = PortRange { first: 63000, last: 63999 };
    assert_eq!(second.workers(&more).unwrap()[0].owner, 2);
    let error = wire.open(config(&["198.18.0.12"], true)).unwrap_err().to_string();
    assert!(error.contains("without the address 198.18.0.12"), "{error}");
    drop(first);
    assert!(wire.near_interface().xdp_program().unwrap().is_some());
    more.ports = PortRange { first: 61000, last: 62999 };
    assert_eq!(second.workers(&more).unwrap()[0].owner, 0, "the first one's owners are free again");
    drop(second);
    assert!(wire.near_interface().xdp_program().unwrap().is_none());
}

#[test]
fn workers_go_by_a_policy_for_this_network_only() {
    let Some(wire) = Wire::new() else { return };
    let stack = wire.stack(&["198.18.0.10"], true);
    let items = [PrefixSet::parse_items(["198.18.0.0/15"]).unwrap()];
    let attempt = |settings: PolicySettings| {
        let mut request = request(&stack, Protocol::Tcp);
        request.policy = Arc::new(settings.authorise(Targets::Items(&items)).unwrap());
        stack.workers(&request).map(|_| ()).map_err(|error| error.to_string())
    };
    let good = PolicySettings { rate: Rate::PerSecond(1.0), ..stack.policy_settings() };
    assert_eq!(good.arena, Arena::Network, "not a lab");
    assert!(attempt(good.clone()).is_ok());
    let foreign = PolicySettings { sources: vec![ip("198.18.0.66")], ..good.clone() };
    assert!(attempt(foreign).unwrap_err().contains("198.18.0.66"));
    let pretended = PolicySettings { arena: Arena::Lab { name: "demo".into() }, ..good.clone() };
    assert!(attempt(pretended).unwrap_err().contains("lab"));
    let forgetful = PolicySettings { own: Vec::new(), ..good };
    assert!(attempt(forgetful).unwrap_err().contains(NEAR));
    assert!(policy(&stack).allows(ip("198.18.0.2")));
}

#[test]
fn no_workers_or_more_than_ports_are_refused() {
    let Some(wire) = Wire::new() else { return };
    let stack = wire.stack(&["198.18.0.10"], true);
    let mut request = request(&stack, Protocol::Tcp);
    request.count = 0;
    assert!(stack.workers(&request).is_err());
    request.count = 3;
    request.ports = PortRange { first: 61000, last: 61001 };
    assert!(stack.workers(&request).is_err());
}

#[test]
fn an_interface_that_is_down_is_said_to_be() {
    let Some(wire) = Wire::new() else { return };
    wire.near.sh("ip link set va down");
    let error = wire.open(config(&["198.18.0.10"], true)).unwrap_err().to_string();
    assert!(error.contains("ip link set va up"), "{error}");
}
