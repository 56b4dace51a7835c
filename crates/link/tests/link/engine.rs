//! The engine `packet` against the device's own counters.

use std::time::Duration;

use irl_link::packet::PacketSender;
use irl_link::{Gate, LinkError, Network, Sender};
use irl_wire::Protocol;

use crate::wire::{Shell, Wire, policy, request, worker};

/// A SYN of ours to 10.x.y.z.
pub(crate) fn syn(slot: &mut [u8], to_mac: [u8; 6], number: u32) -> Option<usize> {
    slot[..6].copy_from_slice(&to_mac);
    slot[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 8, 0]);
    slot[14..30].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 10]);
    slot[30..34].copy_from_slice(&(0x0a00_0000 + number).to_be_bytes());
    slot[34..54].fill(0);
    Some(54)
}

#[test]
fn what_the_sender_counts_is_what_left_and_arrived() {
    let Some(wire) = Wire::new() else { return };
    count_on_both_ends(&wire);
}

#[test]
fn a_full_device_refuses_frames_and_none_is_lost() {
    let Some(wire) = Wire::new() else { return };
    // The far end receives in a thread of the kernel's own, which falls behind: its ring of 256 frames fills up.
    wire.far.sh("unshare -m sh -c 'mount -t sysfs sysfs /sys && echo 1 >/sys/class/net/vb/threaded'");
    assert!(count_on_both_ends(&wire).device_full > 0, "the ring was never full");
}

/// Sends 300,000 frames and compares our counters with those of both devices.
fn count_on_both_ends(wire: &Wire) -> irl_link::GateCounters {
    for space in [&wire.near, &wire.far] {
        space.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    }
    let stack = wire.stack(&["198.18.0.10"], true);
    let far = wire.far_interface();
    let mut worker = worker(&stack);
    let (before, far_before) = (stack.device_counters().unwrap(), far.counters().unwrap());
    const FRAMES: u64 = 300_000;
    let mut next = 0;
    while next < FRAMES as u32 || worker.gate.pending() > 0 {
        let left = FRAMES as usize - next as usize;
        let filled = worker.gate.fill(left.min(256), 64, |slot| {
            next += 1;
            syn(slot, far.mac.0, next)
        });
        assert_eq!(filled.unwrap().refused, 0);
        // A full ring of veth's says so: the frame stays and goes out later.
        worker.gate.kick().unwrap();
    }
    // A veth end counts a frame as sent once the other end has taken it from its ring.
    std::thread::sleep(Duration::from_millis(300));
    let after = stack.device_counters().unwrap();
    let counters = worker.gate.counters();
    assert_eq!(counters.probes.sent, FRAMES);
    assert_eq!(after.tx_packets - before.tx_packets, counters.sent(), "what the device counts");
    assert_eq!(after.tx_dropped - before.tx_dropped, counters.device_full, "each refusal is one of the device's drops");
    let far_after = far.counters().unwrap();
    let arrived = far_after.rx_packets - far_before.rx_packets;
    let dropped = far_after.rx_dropped - far_before.rx_dropped;
    assert_eq!(arrived, FRAMES, "at the far end, which dropped {dropped}");
    counters
}

#[test]
fn a_frame_longer_than_the_mtu_is_refused_before_it_is_built() {
    let Some(wire) = Wire::new() else { return };
    let interface = wire.near_interface();
    let mut sender = wire.near.run(|| PacketSender::open(&interface, 64)).unwrap();
    assert_eq!(sender.max_frame(), 1514);
    let error = sender.reserve(1, 1515).unwrap_err();
    assert!(error.to_string().contains("MTU"), "{error}");
    // Longer than first said, and allowed.
    assert_eq!(sender.reserve(5, 1514).unwrap().free(), 5);
}

#[test]
fn an_interface_deleted_while_sending_and_receiving_is_gone() {
    for filter in [true, false] {
        let Some(wire) = Wire::new() else { return };
        let stack = wire.stack(&["198.18.0.10"], filter);
        let far = wire.far_interface();
        let mut worker = worker(&stack);
        wire.far.sh("ip link del vb");
        let mut next = 0;
        let mut send = || -> Result<(), LinkError> {
            worker.gate.fill(10, 64, |slot| {
                next += 1;
                syn(slot, far.mac.0, next)
            })?;
            worker.gate.kick().map(|_| ())
        };
        let error = (0..100).find_map(|_| send().err()).expect("a deleted interface takes no frames");
        assert!(matches!(&error, LinkError::InterfaceGone { name } if name == "va"), "{error}");
        worker.gate.abandon();
        let probes = worker.gate.counters().probes;
        assert_eq!(probes.built, probes.sent + probes.refused_by_device, "and the counters balance");
        assert!(stack.device_counters().is_none());
        if !filter {
            let error = (0..100).find_map(|_| worker.receiver.wait(Duration::from_millis(5)).err());
            assert!(matches!(error, Some(LinkError::InterfaceGone { .. })), "{error:?}");
        }
        let tick = stack.tick(irl_link::clock::now_ns(), &mut worker.gate);
        assert!(matches!(tick, Err(LinkError::InterfaceGone { .. })), "also when nothing is sent");
        let request = request(&stack, Protocol::Tcp);
        assert!(matches!(stack.workers(&request), Err(LinkError::InterfaceGone { .. })));
    }
}

#[test]
fn an_interface_taken_down_is_gone_too() {
    let Some(wire) = Wire::new() else { return };
    let stack = wire.stack(&["198.18.0.10"], true);
    let worker = worker(&stack);
    let mut gate =
        Gate::new(Box::new(wire.near.run(|| PacketSender::open(stack.interface(), 64)).unwrap()), policy(&stack));
    drop(worker);
    wire.near.sh("ip link set va down");
    gate.fill(1, 64, |slot| syn(slot, [2, 0, 0, 0, 0, 9], 1)).unwrap();
    assert!(matches!(gate.kick(), Err(LinkError::InterfaceGone { .. })));
}
