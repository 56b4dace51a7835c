//! ARP and neighbour discovery against a Linux host at the far end.

use std::net::UdpSocket;

use irl_link::{Hop, LinkError, Network};
use irl_targets::address_bits;

use crate::wire::{FAR, FAR6, Shell, Wire, config, ip, serve, worker};

#[test]
fn a_spare_address_is_answered_for_and_the_hosts_is_left_to_the_host() {
    let Some(wire) = Wire::new() else { return };
    for filter in [true, false] {
        for (spare, own) in [("198.18.0.10", crate::wire::NEAR), ("fd00:18::10", crate::wire::NEAR6)] {
            let stack = wire.stack(&[spare], filter);
            let far = wire.far_interface();
            let mut worker = worker(&stack);
            wire.far.sh("ip neigh flush dev vb");
            let unspecified = if ip(spare).is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = wire.far.run(|| Ok(UdpSocket::bind(unspecified).unwrap())).unwrap();
            socket.send_to(b"x", (ip(spare), 9)).unwrap();
            socket.send_to(b"x", (ip(own), 9)).unwrap();
            let known = || far.kernel_neighbour(ip(spare)).is_some() && far.kernel_neighbour(ip(own)).is_some();
            assert!(serve(&stack, &mut worker, |_| {}, known).unwrap(), "{spare} with filter {filter}");
            assert_eq!(far.kernel_neighbour(ip(spare)), Some(stack.interface().mac));
            let counters = worker.gate.counters();
            assert_eq!(
                counters.neighbour.sent,
                stack.extra_counters()["neighbours_answered"],
                "the host's was not ours"
            );
            stack.release(&[worker.owner]);
        }
    }
}

#[test]
fn a_spare_address_that_somebody_has_is_refused_by_name() {
    let Some(wire) = Wire::new() else { return };
    let mac = wire.far_interface().mac;
    for address in [FAR, FAR6] {
        match wire.open(config(&["198.18.0.10", address], true)) {
            Err(LinkError::AddressConflict { address: conflict, mac: whose }) => {
                assert_eq!((conflict, whose), (ip(address), mac));
            }
            other => panic!("{address}: {other:?}"),
        }
        let mut careless = config(&[address], true);
        careless.dad = irl_link::Dad::Off;
        assert!(wire.open(careless).is_ok());
    }
    assert!(wire.near_interface().xdp_program().unwrap().is_none(), "nothing stays attached");
}

#[test]
fn somebody_who_takes_our_address_later_ends_the_run() {
    let Some(wire) = Wire::new() else { return };
    let stack = wire.stack(&["198.18.0.10"], true);
    let mut worker = worker(&stack);
    wire.far.sh("ip addr add 198.18.0.10/24 dev vb");
    // The far host asks from its new address.
    let socket = wire.far.run(|| Ok(UdpSocket::bind("198.18.0.10:0").unwrap())).unwrap();
    wire.far.sh("ip neigh flush dev vb");
    socket.send_to(b"x", ("198.18.0.77", 9)).unwrap();
    let error = serve(&stack, &mut worker, |_| {}, || false).unwrap_err();
    assert!(matches!(error, LinkError::AddressConflict { .. }), "{error}");
}

#[test]
fn gateways_and_on_link_targets_are_resolved() {
    let Some(wire) = Wire::new() else { return };
    wire.near.sh(&format!("ip route add default via {FAR} && ip -6 route add default via {FAR6}"));
    let far = wire.far_interface();
    for filter in [true, false] {
        for (source, off_link, on_link) in [
            ("198.18.0.10", "10.1.2.3", FAR),
            ("fd00:18::10", "fd00:99::1", FAR6),
            (crate::wire::NEAR, "10.1.2.3", FAR),
        ] {
            wire.near.sh("ip neigh flush dev va");
            let stack = wire.stack(&[source], filter);
            let mut worker = worker(&stack);
            let hops = stack.next_hop();
            assert_eq!(hops.constant(), None);
            for target in [off_link, on_link] {
                let target = address_bits(ip(target));
                let known = || hops.lookup(target) == Hop::Known(far.mac);
                assert!(serve(&stack, &mut worker, |_| {}, known).unwrap(), "{source} to {target:x}, filter {filter}");
            }
            assert_eq!(stack.extra_counters()["neighbours_asked"], 1, "the gateway is the on-link target");
        }
    }
}

#[test]
fn an_absent_target_is_unreachable_after_three_questions() {
    let Some(wire) = Wire::new() else { return };
    let stack = wire.stack(&["198.18.0.10"], true);
    let mut worker = worker(&stack);
    let hops = stack.next_hop();
    let absent = address_bits(ip("198.18.0.99"));
    assert_eq!(hops.lookup(absent), Hop::Pending);
    assert!(serve(&stack, &mut worker, |_| {}, || hops.lookup(absent) == Hop::Unreachable).unwrap());
    assert_eq!(worker.gate.counters().neighbour.sent, 3);
    assert_eq!(hops.lookup(address_bits(ip("10.0.0.1"))), Hop::Unreachable, "no route");
}

#[test]
fn a_mac_given_for_the_gateway_serves_everything_and_asks_nobody() {
    let Some(wire) = Wire::new() else { return };
    let mac = irl_wire::Mac([2, 0, 0, 0, 0, 0x55]);
    let mut config = config(&["198.18.0.10"], true);
    config.gateway_mac = Some(mac);
    let stack = wire.open(config).unwrap();
    assert_eq!(stack.next_hop().constant(), Some(mac));
    assert_eq!(stack.next_hop().lookup(address_bits(ip("10.0.0.1"))), Hop::Known(mac));
}
