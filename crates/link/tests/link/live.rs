//! The engine `live` against the device's own counters and against what arrives.

use std::time::{Duration, Instant};

use irl_link::filter::{FilterConfig, KernelFilter};
use irl_link::packet::Tap;
use irl_link::{EngineChoice, Gate, GateCounters, LinkError, Network, Stack, StackConfig, Worker};

use crate::engine::syn;
use crate::wire::{Shell, Wire, config, request, worker};

const PATIENCE: Duration = Duration::from_secs(20);

fn quiet(wire: &Wire) {
    for space in [&wire.near, &wire.far] {
        space.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    }
}

fn stack(wire: &Wire, engine: EngineChoice) -> Stack {
    wire.open(StackConfig { engine, ..config(&["198.18.0.10"], true) }).unwrap()
}

/// A stack that sends by live frames, and an XDP program at the far end, which a veth pair needs to take them.
fn open(wire: &Wire) -> (Stack, KernelFilter) {
    quiet(wire);
    let far = wire.far.run(|| KernelFilter::attach("vb", &FilterConfig { addresses: Vec::new() })).unwrap();
    (stack(wire, EngineChoice::Live), far)
}

/// Offers at most 256 frames more, up to `frames` in all, and kicks.
fn step(gate: &mut Gate, to: [u8; 6], next: &mut u32, frames: u32) -> Result<(), LinkError> {
    let left = (frames - *next) as usize;
    gate.fill(left.min(256), 54, |slot| {
        *next += 1;
        syn(slot, to, *next)
    })
    .unwrap();
    gate.kick().map(drop)
}

/// Sends so many frames as fast as they go, and waits until all have been taken.
fn send(gate: &mut Gate, to: [u8; 6], frames: u32) {
    let mut next = 0;
    let end = Instant::now() + PATIENCE;
    while next < frames || gate.pending() > 0 {
        step(gate, to, &mut next, frames).unwrap();
        assert!(Instant::now() < end, "{} frames wait: {:?}", gate.pending(), gate.counters());
    }
}

fn counted(worker: &mut Worker) -> GateCounters {
    worker.gate.abandon();
    worker.gate.counters()
}

#[test]
fn what_the_sender_counts_is_what_left_and_arrived() {
    let Some(wire) = Wire::new() else { return };
    let (stack, _far) = open(&wire);
    assert_eq!(stack.info().engine, "live");
    let far = wire.far_interface();
    let before = far.counters().unwrap();
    let mut worker = worker(&stack);
    const FRAMES: u32 = 2_000_000;
    let start = Instant::now();
    send(&mut worker.gate, far.mac.0, FRAMES);
    let seconds = start.elapsed().as_secs_f64();
    let counters = counted(&mut worker);
    let arrived = far.counters().unwrap().rx_packets - before.rx_packets;
    assert_eq!(counters.probes.built, u64::from(FRAMES));
    assert_eq!(counters.probes.sent, u64::from(FRAMES), "what was committed was taken");
    assert_eq!(arrived, counters.sent(), "at the far end; {counters:?}");
    assert!(counters.lost < u64::from(FRAMES) / 100, "{counters:?}");
    // A packet socket does 0.7 million a second here; whoever is slower than that has not used the call.
    assert!(seconds < 10.0, "{FRAMES} frames took {seconds} s");
}

#[test]
fn frames_of_every_length_arrive_as_they_were_written() {
    let Some(wire) = Wire::new() else { return };
    let (stack, _far) = open(&wire);
    let far = wire.far_interface();
    let mut worker = worker(&stack);
    // Much at once, so that the call runs.
    send(&mut worker.gate, far.mac.0, 300_000);
    let mut tap = wire.far.run(|| Tap::open("vb")).unwrap();
    let length = |number: u32| 54 + (number as usize * 37) % (1514 - 54 + 1);
    const ROUND: u32 = 64;
    for round in 0..200 {
        let (first, end) = (round * ROUND, (round + 1) * ROUND);
        let mut next = first;
        while next < end {
            // Some rounds in tight slots, some in the longest.
            let longest = (next..end).map(length).max().unwrap();
            let filled = worker.gate.fill((end - next) as usize, longest, |slot| {
                let len = length(next);
                syn(slot, far.mac.0, next)?;
                slot[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
                slot[54..len].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at as u32 * 7 + next) as u8);
                next += 1;
                Some(len)
            });
            assert_eq!(filled.unwrap().refused, 0);
            worker.gate.kick().unwrap();
        }
        let mut expected = first;
        let patience = Instant::now() + PATIENCE;
        while expected < end {
            worker.gate.kick().unwrap();
            tap.receive(1024, &mut |frame| {
                let number = u32::from_be_bytes(frame[30..34].try_into().unwrap()) - 0x0a00_0000;
                // Of the flood before.
                if frame.len() == 54 && number != expected {
                    return;
                }
                assert_eq!((number, frame.len()), (expected, length(expected)));
                let right = frame[54..].iter().enumerate().all(|(at, byte)| *byte == (at as u32 * 7 + number) as u8);
                assert!(right, "frame {number}");
                expected += 1;
            })
            .unwrap();
            assert!(Instant::now() < patience, "{expected} of {end} arrived: {:?}", worker.gate.counters());
        }
    }
    assert_eq!(counted(&mut worker).lost, 0);
    let error = worker.gate.fill(1, 1515, |_| None).unwrap_err();
    assert!(error.to_string().contains("MTU"), "{error}");
}

#[test]
fn what_is_given_up_never_leaves_and_the_counts_agree() {
    let Some(wire) = Wire::new() else { return };
    let (stack, _far) = open(&wire);
    let far = wire.far_interface();
    for frames in [500, 30_000, 400_000] {
        let before = far.counters().unwrap();
        let mut worker = worker(&stack);
        let mut next = 0;
        while next < frames {
            step(&mut worker.gate, far.mac.0, &mut next, u32::MAX).unwrap();
        }
        // In mid-flight: the ring is not empty.
        let counters = counted(&mut worker);
        let arrived = far.counters().unwrap().rx_packets - before.rx_packets;
        assert_eq!(counters.probes.built, counters.probes.sent + counters.probes.refused_by_device);
        assert_eq!(arrived, counters.sent(), "{counters:?}");
        stack.release(&[worker.owner]);
        drop(worker);
        assert_eq!(far.counters().unwrap().rx_packets - before.rx_packets, arrived, "nothing left afterwards");
    }
}

#[test]
fn two_workers_share_an_interface_and_the_counts_add_up() {
    let Some(wire) = Wire::new() else { return };
    let (stack, _far) = open(&wire);
    let far = wire.far_interface();
    let before = far.counters().unwrap();
    let mut request = request(&stack, irl_wire::Protocol::Tcp);
    request.count = 2;
    let workers = stack.workers(&request).unwrap();
    let mut total = GateCounters::default();
    let gates: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                scope.spawn(move || {
                    send(&mut worker.gate, far.mac.0, 500_000);
                    worker.gate
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for mut gate in gates {
        gate.abandon();
        total.add(&gate.counters());
    }
    assert_eq!(total.probes.sent, 1_000_000);
    assert_eq!(far.counters().unwrap().rx_packets - before.rx_packets, total.sent(), "{total:?}");
}

#[test]
fn a_device_that_sends_nothing_this_way_is_noticed_before_anything_is_lost() {
    for engine in [EngineChoice::Live, EngineChoice::Auto] {
        let Some(wire) = Wire::new() else { return };
        quiet(&wire);
        // Without an XDP program or GRO at the far end, veth takes live frames and drops them without a word.
        wire.far.sh("ethtool -K vb gro off");
        let stack = stack(&wire, engine);
        let far = wire.far_interface();
        let before = far.counters().unwrap();
        let mut worker = worker(&stack);
        let mut next = 0;
        let mut outcome = Ok(());
        while outcome.is_ok() && (next < 300_000 || worker.gate.pending() > 0) {
            outcome = step(&mut worker.gate, far.mac.0, &mut next, 300_000);
        }
        match engine {
            EngineChoice::Live => {
                let error = outcome.unwrap_err();
                assert!(matches!(error, LinkError::Unsupported(_)) && error.to_string().contains("gro on"), "{error}");
            }
            _ => {
                outcome.unwrap();
                let counters = counted(&mut worker);
                assert_eq!(counters.sent(), 300_000, "by the packet socket; {counters:?}");
                let end = Instant::now() + PATIENCE;
                while far.counters().unwrap().rx_packets - before.rx_packets < 300_000 {
                    assert!(Instant::now() < end, "{} arrived", far.counters().unwrap().rx_packets - before.rx_packets);
                    std::thread::yield_now();
                }
            }
        }
    }
}

#[test]
fn an_interface_deleted_in_mid_flight_is_gone_and_the_counts_balance() {
    let Some(wire) = Wire::new() else { return };
    let (stack, _far) = open(&wire);
    let far = wire.far_interface();
    let mut worker = worker(&stack);
    send(&mut worker.gate, far.mac.0, 300_000);
    // It looks twice a second: some frames will go to a device that is not there.
    stack.tick(irl_link::clock::now_ns(), &mut worker.gate).unwrap();
    let end = Instant::now() + PATIENCE;
    let mut next = 0;
    let error = std::thread::scope(|scope| {
        // While frames flow: deleting takes so long that an engine with nothing to do would be asleep by then.
        scope.spawn(|| wire.far.sh("ip link del vb"));
        loop {
            let outcome = step(&mut worker.gate, far.mac.0, &mut next, u32::MAX);
            let outcome = outcome.and_then(|()| stack.tick(irl_link::clock::now_ns(), &mut worker.gate));
            if let Err(error) = outcome {
                break error;
            }
            assert!(Instant::now() < end, "nobody noticed");
        }
    });
    assert!(matches!(&error, LinkError::InterfaceGone { name } if name == "va"), "{error}");
    let counters = counted(&mut worker);
    let probes = counters.probes;
    assert_eq!(probes.built, probes.sent + probes.refused_by_device);
    assert!(counters.lost > 0, "what went to a device that was gone is no frame sent: {counters:?}");
}

#[test]
fn a_low_rate_and_a_missing_program_mean_the_engine_packet_with_the_reason() {
    let Some(wire) = Wire::new() else { return };
    let slow = wire
        .open(StackConfig { engine: EngineChoice::Auto, rate: Some(10_000.0), ..config(&["198.18.0.10"], true) })
        .unwrap()
        .info();
    assert_eq!(slow.engine, "packet");
    assert!(slow.why.contains("10000 frames a second"), "{}", slow.why);
    let fast = wire
        .open(StackConfig { engine: EngineChoice::Auto, rate: Some(0.0), ..config(&["198.18.0.10"], true) })
        .unwrap()
        .info();
    assert_eq!(fast.engine, "live");
    let wrong = StackConfig { batch: 257, ..config(&["198.18.0.10"], true) };
    assert!(wire.open(wrong).unwrap_err().to_string().contains("1 to 256"));
}
