//! Later passes: only the silent are probed again, together, after a wait, and what comes late still counts.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use irl_link::Hop;
use irl_link::record::{Kind, flags};
use irl_measure::passes::Pass;
use irl_measure::scan::EndedBy;
use irl_measure::{Dedup, RowSelection, Scan, ScanConfig, ScanRate};
use support::{Handle, Scripted, drain, is_syn, record, syn_ack, tcp_body};

const FAST: ScanRate = ScanRate::PerSecond(1e6);

fn config(targets: &str, reprobe: u16) -> ScanConfig {
    ScanConfig { reprobe, ..support::config(targets, FAST) }
}

fn start(config: ScanConfig, network: Scripted) -> (Scan, Arc<Scripted>) {
    let network = Arc::new(network);
    (Scan::start(config, Arc::new(Handle(Arc::clone(&network)))).unwrap(), network)
}

fn counts(passes: &[Pass]) -> Vec<(u64, u64, u64)> {
    passes.iter().map(|pass| (pass.targets, pass.sent, pass.found)).collect()
}

fn target(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[30..34].try_into().unwrap())
}

/// Calls `answer` with each SYN and how many its target had before.
fn counting(answer: impl Fn(&[u8], u32, &mut Vec<u8>) + Send + Sync + 'static) -> Scripted {
    let seen = Mutex::new(HashMap::new());
    let answer = move |frame: &[u8], out: &mut Vec<u8>| {
        if is_syn(frame) {
            let mut seen = seen.lock().unwrap();
            let before = seen.entry(target(frame)).or_insert(0);
            answer(frame, *before, out);
            *before += 1;
        }
    };
    Scripted { answer: Box::new(answer), ..Scripted::default() }
}

#[test]
fn whoever_has_answered_in_any_way_is_not_probed_again() {
    for workers in [1, 2] {
        // Ends of addresses: 0 answers with a RST, 1 and 2 and 3 at the second and third and fourth probe, others at once.
        let network = counting(|frame, before, out| match target(frame) & 0xff {
            0 => record(out, Kind::Tcp4, flags::COOKIE, &tcp_body(frame, 0x14)),
            end @ 1..=3 if before < end => {}
            _ => syn_ack(frame, out),
        });
        let mut config = config("10.0.0.0/16", 2);
        config.workers = workers;
        let (scan, network) = start(config, network);
        let mut rows = drain(&scan);
        let passes = scan.passes();
        assert_eq!(counts(&passes), [(65_536, 65_536, 252 * 256), (768, 768, 256), (512, 512, 256)]);
        assert_eq!(passes.iter().map(|pass| pass.answered).collect::<Vec<_>>(), [253 * 256, 256, 256]);
        assert!(passes.windows(2).all(|pair| pair[0].end_s.unwrap() + 0.05 <= pair[1].start_s), "{passes:?}");
        assert!(passes[2].end_s.is_some());
        let stats = scan.stats();
        assert_eq!((stats.targets, stats.reprobed, stats.probes_sent), (65_536, 1280, 66_816));
        assert_eq!(stats.probes_planned, 66_816);
        assert_eq!(network.sent(), stats.probes_sent + stats.resets_sent);
        // Those that end in 1 and 2 answered that many probes too late; those in 3 never.
        let number_of = |address: u32| if address % 256 < 3 { (address % 256) as u16 } else { 0 };
        assert!(rows.iter().all(|(address, number)| *number == number_of(*address)));
        rows.sort_unstable();
        rows.dedup_by_key(|row| row.0);
        assert_eq!(rows.len() as u64, stats.rows);
        assert_eq!(stats.rows, 254 * 256);
    }
}

#[test]
fn where_all_have_answered_there_is_no_later_pass() {
    let (scan, network) = start(config("10.0.0.0/14", 3), Scripted::open());
    drain(&scan);
    assert_eq!(counts(&scan.passes()), [(1 << 18, 1 << 18, 1 << 18)]);
    assert_eq!(network.sent(), scan.stats().frames_sent());
    assert_eq!(scan.ended_by(), Some(EndedBy::Targets));
}

#[test]
fn no_target_is_probed_again_before_the_last_was_probed_and_answers_had_their_time() {
    let probed = Arc::new(Mutex::new((0_u32, Instant::now())));
    let log = Arc::clone(&probed);
    let network = counting(move |_, before, _| {
        let mut log = log.lock().unwrap();
        match before {
            0 => *log = (log.0 + 1, Instant::now()),
            _ => assert!(log.0 == 1 << 14 && log.1.elapsed() > Duration::from_millis(49), "{log:?}"),
        }
    });
    let turn = AtomicU64::new(0);
    // A device that takes little now and then keeps one worker behind the other.
    let take = move |frames: usize| Ok(frames.min([0, 1, 300][turn.fetch_add(1, Ordering::SeqCst) as usize % 3]));
    let mut config = config("10.0.0.0/18", 1);
    config.workers = 2;
    let (scan, _) = start(config, Scripted { take: Box::new(take), ..network });
    drain(&scan);
    assert_eq!(counts(&scan.passes()), [(1 << 14, 1 << 14, 0), (1 << 14, 1 << 14, 0)]);
}

#[test]
fn an_answer_to_the_first_pass_that_comes_in_the_second_counts_once() {
    let held: Mutex<HashMap<u32, Vec<u8>>> = Mutex::default();
    let network = counting(move |frame, before, out| {
        let mut answer = Vec::new();
        syn_ack(frame, &mut answer);
        match before {
            0 => drop(held.lock().unwrap().insert(target(frame), answer)),
            // What was under way comes, and the answer to this one too.
            _ => {
                out.extend_from_slice(&held.lock().unwrap()[&target(frame)]);
                out.extend_from_slice(&answer);
            }
        }
    });
    let (scan, _) = start(config("10.0.0.0/20", 1), network);
    let rows = drain(&scan);
    let stats = scan.stats();
    assert_eq!((rows.len(), stats.found, stats.repeats), (4096, 4096, 4096));
    assert!(rows.iter().all(|(_, number)| *number == 0), "the first pass's probe was answered");
    assert_eq!(counts(&scan.passes()), [(4096, 4096, 0), (4096, 4096, 4096)]);
}

#[test]
fn every_probe_of_every_pass_has_its_number() {
    let mut config = ScanConfig { rows: RowSelection::All, ..config("10.0.0.0/20", 2) };
    config.plan.probes = 2;
    config.compiled = config.plan.compile(0).unwrap();
    let network = counting(|frame, before, out| {
        if before >= 4 {
            syn_ack(frame, out)
        }
    });
    let (scan, _) = start(config, network);
    let mut numbers = [0; 6];
    for (_, number) in drain(&scan) {
        numbers[usize::from(number)] += 1;
    }
    assert_eq!(numbers, [0, 0, 0, 0, 4096, 4096]);
    assert_eq!(counts(&scan.passes()), [(4096, 8192, 0), (4096, 8192, 0), (4096, 8192, 4096)]);
}

#[test]
fn a_shard_probes_its_own_again() {
    let mut config = config("10.0.0.0/20", 1);
    config.plan.shards = 3;
    config.compiled = config.plan.compile(2).unwrap();
    let plan = config.compiled.clone();
    let network = counting(move |frame, _, _| {
        let target = irl_targets::Target { address: u128::from(target(frame)), port: 80 };
        assert_eq!(plan.shard_and_position_of(target).unwrap().0, 2);
    });
    let (scan, _) = start(config, network);
    drain(&scan);
    assert_eq!(counts(&scan.passes()), [(1365, 1365, 0), (1365, 1365, 0)]);
}

#[test]
fn next_hops_are_asked_for_again() {
    let looks = AtomicU64::new(0);
    let way = move |target: u128| match target & 0xff {
        1 => Hop::Unreachable,
        // Found after every target was looked at once.
        2 if looks.fetch_add(1, Ordering::SeqCst) < 16 => Hop::Unreachable,
        _ => Hop::Known(support::GATEWAY),
    };
    let (scan, _) = start(config("10.0.0.0/20", 1), Scripted { way: Some(Box::new(way)), ..Scripted::open() });
    drain(&scan);
    assert_eq!(counts(&scan.passes()), [(4096, 4064, 4064), (32, 16, 16)]);
    assert_eq!(scan.stats().unresolved, 32 + 16);
}

#[test]
fn bounds_and_stops_end_a_run_between_passes_and_in_the_second() {
    let long = Duration::from_secs(30);
    for workers in [1, 2] {
        let waiting = || {
            let mut config = config("10.0.0.0/20", 1);
            (config.workers, config.cooldown) = (workers, long);
            config
        };
        let await_the_wait = |scan: &Scan| {
            while scan.passes()[0].end_s.is_none() {
                std::thread::yield_now();
            }
        };
        // Nobody answers, so that there is somebody to wait for.
        let (scan, network) = start(waiting(), Scripted::default());
        await_the_wait(&scan);
        let begin = Instant::now();
        scan.stop();
        assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
        assert_eq!((drain(&scan).len(), scan.ended_by()), (0, Some(EndedBy::Stopped)));
        assert_eq!(network.sent(), scan.stats().frames_sent());

        let mut config = waiting();
        config.max_runtime = Some(Duration::from_millis(300));
        let (scan, _) = start(config, Scripted::default());
        while scan.stats().sending {
            assert!(scan.stats().elapsed_s < 10.0);
            std::thread::yield_now();
        }
        assert!(scan.stats().elapsed_s < 0.9, "it ended in the wait, which would have lasted for a second");
        assert_eq!((scan.ended_by(), scan.passes().len()), (Some(EndedBy::MaxRuntime), 1));
        scan.stop();

        let mut config = ScanConfig { cooldown: Duration::from_millis(50), ..waiting() };
        config.max_results = Some(100);
        let (scan, _) = start(
            config,
            counting(|frame, before, out| {
                if before > 0 {
                    syn_ack(frame, out)
                }
            }),
        );
        assert_eq!((drain(&scan).len(), scan.ended_by()), (100, Some(EndedBy::MaxResults)));
        assert_eq!(scan.passes().len(), 2);
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_sent() {
    type Change = fn(&mut ScanConfig);
    let wrong: [(Change, &str); 4] = [
        (|config| config.dedup = Dedup::Window, "take another --dedup-method than window"),
        (|config| config.max_memory = 4096, "takes 16384 bytes: give --max-memory as much"),
        (|config| (config.max_memory, config.dedup) = (4096, Dedup::Full), "takes 16384 bytes: give --max-memory"),
        (|config| (config.reprobe, config.plan.probes) = (999, 66), "--reprobe 999 with --probes 66 comes to 66000"),
    ];
    for (change, words) in wrong {
        let mut config = config("10.0.0.0/16", 1);
        change(&mut config);
        let network = Arc::new(Scripted::open());
        let error = Scan::start(config.clone(), Arc::new(Handle(Arc::clone(&network)))).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(network.sent(), 0);
        config.reprobe = 0;
        config.dedup = Dedup::Best;
        assert!(Scan::start(config, Arc::new(Handle(network))).is_ok(), "a single pass needs none of it");
    }
}
