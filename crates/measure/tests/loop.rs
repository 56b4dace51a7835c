//! The loop on networks that misbehave: full and stuck devices, next hops that come late or never, hostile records,
//! readers that sleep.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use irl_link::record::{Kind, flags};
use irl_link::{Hop, LinkError};
use irl_measure::scan::{EndedBy, Next};
use irl_measure::{MeasureError, RowSelection, Scan, ScanConfig, ScanRate, Stats};
use irl_targets::PortSet;
use irl_wire::Mac;
use support::{Handle, Scripted, config, is_syn, record, syn_ack, tcp_body};

const FAST: ScanRate = ScanRate::PerSecond(1e6);

/// Starts a scan and reads it to its end: rows, counters, and the network.
fn run(network: Scripted, config: ScanConfig) -> (u64, Stats, Arc<Scripted>) {
    let network = Arc::new(network);
    let scan = Scan::start(config, Arc::new(Handle(Arc::clone(&network)))).unwrap();
    let rows = drain(&scan).unwrap();
    let stats = scan.stats();
    assert_eq!(stats.imbalances(scan.device()), Vec::<String>::new());
    assert_eq!(network.released.load(Ordering::SeqCst), u64::from(scan.config().workers));
    (rows, stats, network)
}

fn drain(scan: &Scan) -> Result<u64, MeasureError> {
    let mut rows = 0;
    loop {
        match scan.next_batch(Duration::from_secs(1))? {
            Next::Batch(batch) => rows += batch.num_rows() as u64,
            Next::Nothing => {}
            Next::End => return Ok(rows),
        }
    }
}

#[test]
fn a_device_that_takes_little_at_a_time_loses_nothing() {
    for workers in [1, 2] {
        let turn = AtomicU64::new(0);
        let take = move |frames: usize| {
            let most = [0, 1, 7, 100][turn.fetch_add(1, Ordering::SeqCst) as usize % 4];
            Ok(frames.min(most))
        };
        let mut config = config("10.0.0.0/18", FAST);
        config.workers = workers;
        let (rows, stats, _) = run(Scripted { take: Box::new(take), ..Scripted::open() }, config);
        assert_eq!((rows, stats.probes_sent, stats.resets_sent), (1 << 14, 1 << 14, 1 << 14));
        assert!(stats.device_full > 0 && stats.probes_refused_by_device == 0);
    }
}

#[test]
fn a_device_that_takes_nothing_ends_the_run_when_failures_are_bounded() {
    let mut config = config("10.0.0.0/18", FAST);
    config.max_sendto_failures = Some(3);
    let network = Scripted { take: Box::new(|_| Ok(0)), ..Scripted::default() };
    let scan = Scan::start(config, Arc::new(Handle(Arc::new(network)))).unwrap();
    assert_eq!(drain(&scan).unwrap(), 0);
    assert_eq!(scan.ended_by(), Some(EndedBy::MaxSendtoFailures));
    let stats = scan.stats();
    assert_eq!(stats.imbalances(scan.device()), Vec::<String>::new());
    assert!(stats.sendto_failures > 3 && stats.probes_refused_by_device == stats.probes_built);
}

#[test]
fn a_device_that_goes_away_ends_the_run_with_its_rows_kept() {
    let taken = AtomicU64::new(0);
    let take = move |frames: usize| match taken.fetch_add(frames as u64, Ordering::SeqCst) {
        ..5_000 => Ok(frames),
        _ => Err(LinkError::InterfaceGone { name: "va".to_owned() }),
    };
    let mut config = config("10.0.0.0/8", FAST);
    config.workers = 2;
    let network = Scripted { take: Box::new(take), ..Scripted::open() };
    let scan = Scan::start(config, Arc::new(Handle(Arc::new(network)))).unwrap();
    let mut rows = 0;
    let error = loop {
        match scan.next_batch(Duration::from_secs(1)) {
            Ok(Next::Batch(batch)) => rows += batch.num_rows(),
            Ok(Next::Nothing) => {}
            Ok(Next::End) => panic!("the error was lost"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, MeasureError::Link(LinkError::InterfaceGone { .. })), "{error}");
    assert!(rows > 1_000, "{rows}");
    assert_eq!(scan.ended_by(), Some(EndedBy::Error));
    assert_eq!(scan.stats().imbalances(scan.device()), Vec::<String>::new());
    assert!(scan.stats().probes_refused_by_device > 0);
}

#[test]
fn next_hops_that_come_late_are_waited_for_and_those_that_never_come_are_counted() {
    // Addresses ending in .1 are unreachable, those ending in .2 and .3 are found at the third look.
    let looks = Mutex::new(HashMap::new());
    let way = move |target: u128| match target & 0xff {
        1 => Hop::Unreachable,
        2 | 3 => {
            let mut looks = looks.lock().unwrap();
            let count = looks.entry(target).or_insert(0);
            *count += 1;
            if *count < 3 { Hop::Pending } else { Hop::Known(Mac([2, 0, 0, 0, 0, 9])) }
        }
        _ => Hop::Known(support::GATEWAY),
    };
    let mut config = config("10.0.0.0/16", FAST);
    config.plan.probes = 2;
    config.compiled = config.plan.compile(0).unwrap();
    let (rows, stats, _) = run(Scripted { way: Some(Box::new(way)), ..Scripted::open() }, config);
    assert_eq!((rows, stats.unresolved), (65_536 - 256, 256));
    assert_eq!(stats.probes_sent, 2 * (65_536 - 256));
    assert_eq!(stats.resets_built + stats.resets_skipped, stats.successes);
}

#[test]
fn waiting_for_next_hops_leaves_the_core_idle_and_ends() {
    let start = Instant::now();
    let network = Scripted { way: Some(Box::new(|_| Hop::Pending)), ..Scripted::default() };
    let (_, stats, network) = run(network, config("10.0.0.0/28", FAST));
    assert_eq!((stats.unresolved, stats.probes_built, network.sent()), (16, 0, 0));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn hostile_records_are_counted_once_each_and_become_no_rows() {
    let answer = |frame: &[u8], out: &mut Vec<u8>| {
        if !is_syn(frame) {
            return;
        }
        let good = tcp_body(frame, 0x12);
        // No cookie; a bad checksum; a fragment; a kind that no TCP probe expects.
        record(out, Kind::Tcp4, 0, &good);
        record(out, Kind::Tcp4, flags::COOKIE | flags::BAD_CHECKSUM, &good);
        record(out, Kind::Tcp4, flags::FRAGMENT, &good);
        record(out, Kind::Tcp6, flags::COOKIE, &[0xff; 64]);
        record(out, Kind::Icmp, flags::COOKIE, &[0xff; 80]);
        record(out, Kind::Udp, flags::COOKIE, &[0; 48]);
        record(out, Kind::Frame, flags::COOKIE, &[]);
        // Flags that mean nothing; a port that no probe left from; an address that is not ours.
        record(out, Kind::Tcp4, flags::COOKIE, &tcp_body(frame, 0x00));
        let mut other_port = good;
        other_port[10..12].copy_from_slice(&80_u16.to_be_bytes());
        record(out, Kind::Tcp4, flags::COOKIE, &other_port);
        let mut other_address = good;
        other_address[4] ^= 1;
        record(out, Kind::Tcp4, flags::COOKIE, &other_address);
        // A replay from a run with other targets.
        let mut other_target = good;
        other_target[0] = 11;
        record(out, Kind::Tcp4, flags::COOKIE, &other_target);
        // ARP and neighbour discovery.
        record(out, Kind::Frame, flags::NEIGHBOUR, &[0; 42]);
    };
    let mut config = config("10.0.0.0/20", FAST);
    config.rows = RowSelection::All;
    let (rows, stats, _) = run(Scripted { answer: Box::new(answer), ..Scripted::default() }, config);
    let probes = 1 << 12;
    assert_eq!((rows, stats.rows, stats.received), (0, 0, 12 * probes));
    assert_eq!((stats.fragments, stats.neighbours), (probes, probes));
    assert_eq!(stats.not_ours + stats.invalid, 10 * probes);
    assert_eq!((stats.answered, stats.resets_built), (0, 0));
}

#[test]
fn records_of_random_bytes_never_crash_the_loop() {
    static STATE: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);
    let answer = |frame: &[u8], out: &mut Vec<u8>| {
        let next = || {
            // xorshift64
            let mut x = STATE.load(Ordering::Relaxed);
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            STATE.store(x, Ordering::Relaxed);
            x
        };
        for _ in 0..4 {
            let kind = [Kind::Tcp4, Kind::Tcp6, Kind::Icmp, Kind::Udp, Kind::Frame][next() as usize % 5];
            let length = kind.body_len().unwrap_or(next() as usize % 200);
            let mut body: Vec<u8> = (0..length).map(|_| next() as u8).collect();
            if kind == Kind::Tcp4 && next() % 2 == 0 {
                // Close to a right one: one byte is wrong.
                body = tcp_body(frame, 0x12).to_vec();
                body[next() as usize % 40] ^= next() as u8;
            }
            record(out, kind, flags::COOKIE | (next() as u16 & 0x7000), &body);
        }
    };
    for probe in ["tcp_synscan", "icmp_echoscan", "udp"] {
        let mut config = config("10.0.0.0/16", FAST);
        config.plan.probe.name = probe.to_owned();
        config.rows = RowSelection::All;
        let (_, stats, _) = run(Scripted { answer: Box::new(answer), ..Scripted::default() }, config);
        assert_eq!(stats.received, 4 * (stats.probes_sent + stats.resets_sent));
    }
}

#[test]
fn a_success_after_an_error_is_found_and_a_second_one_is_a_repeat() {
    let answer = |frame: &[u8], out: &mut Vec<u8>| {
        if is_syn(frame) {
            record(out, Kind::Tcp4, flags::COOKIE, &tcp_body(frame, 0x14));
            record(out, Kind::Tcp4, flags::COOKIE, &tcp_body(frame, 0x14));
            syn_ack(frame, out);
            syn_ack(frame, out);
        }
    };
    let (rows, stats, _) =
        run(Scripted { answer: Box::new(answer), ..Scripted::default() }, config("10.0.0.0/20", FAST));
    assert_eq!((rows, stats.found, stats.answered, stats.successes), (4096, 4096, 4096, 8192));
    assert_eq!((stats.unselected, stats.repeats), (4096, 8192));
}

#[test]
fn max_results_are_as_many_rows_as_asked_for() {
    for workers in [1, 2] {
        let mut config = config("10.0.0.0/8", FAST);
        config.workers = workers;
        config.max_results = Some(1000);
        let (rows, stats, _) = run(Scripted::open(), config);
        assert_eq!(rows, 1000);
        assert!(stats.probes_sent < 100_000, "{}", stats.probes_sent);
    }
}

#[test]
fn a_hit_rate_that_stays_too_low_ends_the_run() {
    let mut config = config("10.0.0.0/8", ScanRate::PerSecond(10_000.0));
    config.min_hitrate = 1.0;
    let start = Instant::now();
    let scan = Scan::start(config, Arc::new(Handle(Arc::new(Scripted::default())))).unwrap();
    drain(&scan).unwrap();
    assert_eq!(scan.ended_by(), Some(EndedBy::MinHitrate));
    assert!((5..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[test]
fn a_reader_that_sleeps_pauses_the_sender_and_loses_nothing() {
    let network = Arc::new(Scripted { ring: 16 << 20, ..Scripted::open() });
    let mut config = config("10.0.0.0/12", ScanRate::PerSecond(2e6));
    config.queue = 1;
    let scan = Scan::start(config, Arc::new(Handle(Arc::clone(&network)))).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let sent = network.sent();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(network.sent(), sent, "the sender is not paused");
    assert_eq!(drain(&scan).unwrap(), 1 << 20);
    let stats = scan.stats();
    assert!(stats.pauses > 0 && stats.overruns == 0);
    assert_eq!(stats.imbalances(scan.device()), Vec::<String>::new());
}

#[test]
fn searching_for_the_fastest_rate_loses_nothing() {
    let network = Scripted { ring: 4 << 20, ..Scripted::open() };
    let (rows, stats, _) = run(network, config("10.0.0.0/10", ScanRate::Search));
    assert_eq!((rows, stats.overruns), (1 << 22, 0));
    assert!(stats.elapsed_s < 20.0, "{}", stats.elapsed_s);
}

#[test]
fn a_worker_that_panics_ends_the_run_with_an_error() {
    let first = AtomicBool::new(true);
    let answer = move |frame: &[u8], out: &mut Vec<u8>| {
        syn_ack(frame, out);
        assert!(first.swap(false, Ordering::SeqCst), "the network's bug");
    };
    let network = Scripted { answer: Box::new(answer), ..Scripted::default() };
    let scan = Scan::start(config("10.0.0.0/16", FAST), Arc::new(Handle(Arc::new(network)))).unwrap();
    let error = drain(&scan).unwrap_err();
    assert!(error.to_string().contains("the network's bug"), "{error}");
    scan.stop();
}

#[test]
fn workers_that_panic_keep_nobody_waiting() {
    // One of the two; and then the other too.
    for both in [false, true] {
        let calls = AtomicU64::new(0);
        let take = move |frames: usize| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            assert!(call != 20 && !(both && call > 20), "the device's bug");
            Ok(frames.min(10))
        };
        let mut config = config("10.0.0.0/8", FAST);
        config.workers = 2;
        let scan =
            Scan::start(config, Arc::new(Handle(Arc::new(Scripted { take: Box::new(take), ..Scripted::open() }))))
                .unwrap();
        let start = Instant::now();
        let error = drain(&scan).unwrap_err();
        assert!(matches!(error, MeasureError::Worker(_)), "{error}");
        assert!(scan.is_finished() && !scan.stats().sending);
        assert_eq!(scan.ended_by(), Some(EndedBy::Error));
        scan.stop();
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn the_first_frame_is_kept_as_it_was_sent() {
    let (mut config, network) = (config("10.0.0.0/30", FAST), Arc::new(Scripted::default()));
    config.cooldown = Duration::ZERO;
    let scan = Scan::start(config, Arc::new(Handle(network))).unwrap();
    drain(&scan).unwrap();
    let frame = scan.first_frame().unwrap();
    assert!(is_syn(&frame) && frame.len() == 74);
    assert_eq!(scan.ended_by(), Some(EndedBy::Targets));
}

#[test]
fn errors_about_echoes_have_zmaps_words_and_name_the_target() {
    let kinds = [3, 11, 4, 5, 12];
    let answer = move |frame: &[u8], out: &mut Vec<u8>| {
        let mut body = [0; 80];
        let mapped = |body: &mut [u8], address: &[u8]| {
            body[10..12].fill(0xff);
            body[12..16].copy_from_slice(address);
        };
        mapped(&mut body[..16], &[192, 0, 2, 1]);
        mapped(&mut body[16..32], &frame[26..30]);
        mapped(&mut body[48..64], &frame[30..34]);
        body[32] = kinds[usize::from(frame[33]) % kinds.len()];
        body[35] = 1;
        body[38..42].copy_from_slice(&frame[38..42]);
        record(out, Kind::Icmp, flags::COOKIE, &body);
    };
    let mut config = config("10.0.0.0/24", FAST);
    config.plan.probe.name = "icmp_echoscan".to_owned();
    config.plan.ports = PortSet::none();
    config.compiled = config.plan.compile(0).unwrap();
    config.rows = RowSelection::All;
    let network = Scripted { answer: Box::new(answer), ..Scripted::default() };
    let scan = Scan::start(config, Arc::new(Handle(Arc::new(network)))).unwrap();
    let mut seen = 0;
    loop {
        match scan.next_batch(Duration::from_secs(1)).unwrap() {
            Next::Batch(batch) => {
                let addresses = batch.column_by_name("saddr").unwrap().as_primitive::<UInt32Type>();
                let classes = batch.column_by_name("classification").unwrap().as_string::<i32>();
                for row in 0..batch.num_rows() {
                    let words = ["unreach", "timxceed", "sourcequench", "redirect", "other"];
                    assert_eq!(classes.value(row), words[addresses.value(row) as usize % 256 % words.len()]);
                    seen += 1;
                }
            }
            Next::Nothing => {}
            Next::End => break,
        }
    }
    assert_eq!((seen, scan.stats().answered, scan.stats().found), (256, 256, 0));
}
