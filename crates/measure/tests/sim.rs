//! Whole scans over the simulated link, compared with the World's truth.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{UInt8Type, UInt16Type, UInt32Type};
use irl_lab::{Class, Direction, Impairment, SimConfig, SimNetwork, World, WorldConfig, world};
use irl_link::{Network, PolicySettings, Targets};
use irl_measure::scan::Next;
use irl_measure::schema::Column;
use irl_measure::{RowSelection, Scan, ScanConfig, ScanRate, Stats};
use irl_targets::{Plan, PortSet, PrefixSet};

const SOURCE: &str = "198.18.0.10";

struct Case {
    targets: &'static str,
    ports: &'static str,
    probe: &'static str,
    source: &'static str,
    world: WorldConfig,
    impairment: Impairment,
    workers: u16,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            targets: "10.0.0.0/14",
            ports: "80",
            probe: "tcp_synscan",
            source: SOURCE,
            world: WorldConfig { seed: 3, everything_open: false },
            impairment: Impairment::default(),
            workers: 1,
        }
    }
}

/// Address, port and class name of a row.
type Answer = (u32, u16, String);

impl Case {
    fn config(&self) -> (ScanConfig, Arc<SimNetwork>) {
        let source: IpAddr = self.source.parse().unwrap();
        let plan = Plan::builder()
            .target(self.targets)
            .ports(if self.ports.is_empty() { PortSet::none() } else { self.ports.parse().unwrap() })
            .seed(11)
            .sources([source])
            .probe(self.probe, Default::default())
            .build()
            .unwrap();
        let network = Arc::new(SimNetwork::new(SimConfig {
            world: World::new(self.world),
            impairment: self.impairment,
            sources: vec![source],
        }));
        let items = [PrefixSet::parse_items([self.targets]).unwrap()];
        let settings = PolicySettings { ..network.policy_settings() };
        let policy = Arc::new(settings.authorise(Targets::Items(&items)).unwrap());
        let compiled = plan.compile(0).unwrap();
        let mut config = ScanConfig::new(plan, compiled, policy, vec![source], ScanRate::PerSecond(2e6));
        config.cooldown = Duration::from_millis(100);
        config.workers = self.workers;
        (config, network)
    }

    fn run(&self, adapt: impl FnOnce(&mut ScanConfig)) -> (Vec<Answer>, Stats) {
        let (mut config, network) = self.config();
        config.rows = RowSelection::All;
        adapt(&mut config);
        let scan = Scan::start(config, network).unwrap();
        let answers = drain(&scan);
        let stats = scan.stats();
        assert_eq!(stats.imbalances(scan.device()), Vec::<String>::new());
        assert_eq!(stats.overruns, 0);
        (answers, stats)
    }
}

fn drain(scan: &Scan) -> Vec<Answer> {
    let mut answers = Vec::new();
    loop {
        match scan.next_batch(Duration::from_secs(1)).unwrap() {
            Next::Batch(batch) => {
                let column = |name| batch.column_by_name(name).unwrap();
                let addresses = column("saddr").as_primitive::<UInt32Type>();
                let ports = column("sport").as_primitive::<UInt16Type>();
                let classes = column("classification").as_string::<i32>();
                answers.extend(
                    (0..batch.num_rows())
                        .map(|row| (addresses.value(row), ports.value(row), classes.value(row).to_owned())),
                );
            }
            Next::Nothing => {}
            Next::End => return answers,
        }
    }
}

/// What a SYN scan of a /14 must see: each answering target with its class.
fn truth(world: WorldConfig, port: u16) -> HashSet<Answer> {
    let world = World::new(world);
    let addresses = 0x0a00_0000..0x0a04_0000_u32;
    addresses
        .filter_map(|address| {
            let class = match world.truth(u128::from(address), port).class {
                class if class.accepts() => "synack",
                Class::Closed => "rst",
                Class::Filtered => "icmp",
                _ => return None,
            };
            Some((address, port, class.to_owned()))
        })
        .collect()
}

#[test]
fn a_scan_misses_nothing_and_invents_nothing() {
    for workers in [1, 2] {
        let case = Case { workers, ..Case::default() };
        let (answers, stats) = case.run(|_| {});
        let expected = truth(case.world, 80);
        let seen: HashSet<Answer> = answers.iter().cloned().collect();
        assert_eq!(seen, expected);
        assert!(
            expected.iter().any(|(_, _, class)| class == "rst") && expected.iter().any(|(_, _, class)| class == "icmp")
        );
        let found = expected.iter().filter(|(_, _, class)| class == "synack").count() as u64;
        assert_eq!((stats.found, stats.probes_sent, stats.targets), (found, 1 << 18, 1 << 18));
        // Each duplicate is seen twice, and each SYN-ACK is reset once.
        assert!(answers.len() > seen.len());
        assert_eq!(stats.resets_sent, stats.successes);
        assert!(stats.received > 0 && stats.successes > stats.found);
    }
}

#[test]
fn default_rows_are_successes_and_each_target_once() {
    let case = Case::default();
    let (answers, stats) = case.run(|config| config.rows = RowSelection::Success);
    let expected: HashSet<Answer> =
        truth(case.world, 80).into_iter().filter(|(_, _, class)| class == "synack").collect();
    assert_eq!(answers.len(), expected.len());
    assert_eq!(answers.into_iter().collect::<HashSet<_>>(), expected);
    assert!(stats.repeats > 0 && stats.unselected > 0);
}

#[test]
fn echoes_and_udp_agree_with_the_truth() {
    let world = World::new(Case::default().world);
    let alive = |bit, port| {
        let addresses = 0x0a00_0000..0x0a04_0000_u32;
        addresses.filter(|address| world.truth(u128::from(*address), port).flags & bit == bit).count() as u64
    };
    let (_, stats) = Case { probe: "icmp_echoscan", ports: "", ..Case::default() }.run(|_| {});
    assert_eq!(stats.found, alive(world::flags::ECHO, 0));
    let (answers, stats) = Case { probe: "udp", ports: "53", ..Case::default() }.run(|_| {});
    assert_eq!(stats.found, alive(world::flags::ALIVE | world::flags::UDP_ECHO, 53));
    let refused = answers.iter().filter(|(_, _, class)| class == "icmp").count() as u64;
    assert_eq!(refused, alive(world::flags::ALIVE, 53) - stats.found);
}

#[test]
fn ipv6_is_scanned_like_ipv4() {
    let case = Case {
        targets: "fd00::/108",
        source: "fd00:18::10",
        world: WorldConfig { seed: 1, everything_open: true },
        ..Case::default()
    };
    let (config, network) = case.config();
    let scan = Scan::start(config, network).unwrap();
    let mut rows = 0;
    let mut with_rtt = 0;
    loop {
        match scan.next_batch(Duration::from_secs(1)).unwrap() {
            Next::Batch(batch) => {
                rows += batch.num_rows();
                with_rtt += batch.num_rows() - batch.column_by_name("rtt").unwrap().null_count();
            }
            Next::Nothing => {}
            Next::End => break,
        }
    }
    assert_eq!((rows, with_rtt), (1 << 20, 1 << 20));
}

#[test]
fn misses_are_what_loss_predicts() {
    let loss = 0.02;
    let direction = Direction { loss, ..Direction::default() };
    let impairment = Impairment { seed: 9, there: direction, back: direction };
    let case = Case { impairment, world: WorldConfig { seed: 3, everything_open: true }, ..Case::default() };
    let (_, stats) = case.run(|config| config.reset = false);
    let expected = (1_u64 << 18) as f64 * (1.0 - loss) * (1.0 - loss);
    // Six standard deviations of a binomial: 2^18 draws of probability 0.9604 have one of 99.8.
    let bound = 6.0 * ((1_u64 << 18) as f64 * 0.9604 * 0.0396).sqrt();
    assert!((stats.found as f64 - expected).abs() < bound, "{} found, {expected} expected within {bound}", stats.found);
}

#[test]
fn later_passes_find_of_the_silent_what_loss_predicts() {
    let loss = 0.2;
    let direction = Direction { loss, ..Direction::default() };
    for workers in [1, 2] {
        let case = Case {
            impairment: Impairment { seed: 9, there: direction, back: direction },
            world: WorldConfig { seed: 3, everything_open: true },
            workers,
            ..Case::default()
        };
        let (mut config, network) = case.config();
        (config.reprobe, config.reset) = (2, false);
        let scan = Scan::start(config, Arc::clone(&network) as Arc<dyn Network>).unwrap();
        let rows = drain(&scan);
        let passes = scan.passes();
        assert_eq!(passes.len(), 3);
        let mut silent = 1 << 18;
        for pass in passes {
            assert_eq!((pass.targets, pass.sent), (silent, silent));
            let share = (1.0 - loss) * (1.0 - loss);
            let (expected, deviation) = (silent as f64 * share, (silent as f64 * share * (1.0 - share)).sqrt());
            assert!((pass.found as f64 - expected).abs() < 5.0 * deviation, "{pass:?}: {expected} expected");
            silent -= pass.found;
        }
        let stats = scan.stats();
        assert_eq!((stats.found, rows.len() as u64), ((1 << 18) - silent, (1 << 18) - silent));
        assert_eq!(rows.into_iter().collect::<HashSet<_>>().len() as u64, stats.found);
        assert_eq!(network.device_counters().unwrap().tx_packets, stats.probes_sent);
        assert_eq!(stats.imbalances(scan.device()), Vec::<String>::new());
    }
}

#[test]
fn the_silent_are_those_of_whom_the_truth_says_so() {
    let case = Case::default();
    let (answers, stats) = case.run(|config| config.reprobe = 1);
    let answering = truth(case.world, 80).len() as u64;
    assert_eq!(answers.into_iter().collect::<HashSet<_>>(), truth(case.world, 80));
    assert_eq!((stats.answered, stats.reprobed), (answering, (1 << 18) - answering));
}

#[test]
fn reordering_and_repetition_change_nothing_that_is_found() {
    let direction = Direction { delay_ns: 1_000_000, reorder: 0.2, reorder_ns: 3_000_000, duplicate: 0.05, loss: 0.0 };
    let case = Case { impairment: Impairment { seed: 2, there: direction, back: direction }, ..Case::default() };
    let (answers, stats) = case.run(|config| config.cooldown = Duration::from_millis(300));
    assert_eq!(answers.into_iter().collect::<HashSet<_>>(), truth(case.world, 80));
    assert!(stats.repeats == 0 && stats.rows > stats.answered, "with all rows selected, repeats are rows");
}

#[test]
fn rows_that_nobody_reads_pause_the_sender_and_dropping_stops_it() {
    let case = Case { world: WorldConfig { seed: 1, everything_open: true }, targets: "10.0.0.0/8", ..Case::default() };
    let (mut config, network) = case.config();
    config.queue = 1;
    let scan = Scan::start(config, Arc::clone(&network) as Arc<dyn Network>).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while scan.stats().pauses == 0 {
        assert!(Instant::now() < deadline, "the sender never paused");
        std::thread::yield_now();
    }
    // What was under way settles; then nothing moves any more.
    let mut before = scan.stats().probes_sent;
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let now = scan.stats().probes_sent;
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "the sender is not paused");
        before = now;
    }
    assert!(before < 1 << 24);
    let start = Instant::now();
    drop(scan);
    assert!(start.elapsed() < Duration::from_millis(100), "stopping took {:?}", start.elapsed());
    let sent = network.device_counters().unwrap().tx_packets;
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(network.device_counters().unwrap().tx_packets, sent, "frames left after the end");
}

#[test]
fn bounds_end_a_scan() {
    let case = Case { world: WorldConfig { seed: 1, everything_open: true }, targets: "10.0.0.0/8", ..Case::default() };
    let (_, stats) = case.run(|config| config.max_results = Some(1000));
    assert!((1000..200_000).contains(&stats.found), "{}", stats.found);
    let (_, stats) = case.run(|config| {
        config.max_runtime = Some(Duration::from_millis(200));
        config.rate = ScanRate::PerSecond(10_000.0);
    });
    assert!((1_900..2_100).contains(&stats.probes_sent), "{}", stats.probes_sent);
}

#[test]
fn the_search_for_the_fastest_rate_loses_nothing_whether_all_answer_or_few() {
    for everything_open in [true, false] {
        for workers in [1, 2] {
            let world = WorldConfig { seed: 3, everything_open };
            let case = Case { targets: "10.0.0.0/11", world, workers, ..Case::default() };
            let (mut config, network) = case.config();
            config.rate = ScanRate::Search;
            config.rows = RowSelection::All;
            let scan = Scan::start(config, network).unwrap();
            drain(&scan);
            let stats = scan.stats();
            println!(
                "open: {everything_open}, workers: {workers}: {:.0} probes/s, {} of {} lost",
                stats.probes_sent as f64 / stats.elapsed_s,
                stats.overruns,
                stats.received
            );
            assert_eq!(stats.imbalances(scan.device()), Vec::<String>::new());
            assert_eq!(stats.probes_sent, 1 << 21);
            assert!(stats.overruns as f64 <= 1e-5 * stats.received as f64, "{} of {}", stats.overruns, stats.received);
        }
    }
}

#[test]
fn what_was_received_is_what_the_filter_says_it_handed_over() {
    for (probe, ports) in [("tcp_synscan", "80"), ("icmp_echoscan", ""), ("udp", "53")] {
        for workers in [1, 2] {
            let case = Case { probe, ports, workers, ..Case::default() };
            let (mut config, network) = case.config();
            config.rows = RowSelection::All;
            let scan = Scan::start(config, network).unwrap();
            drain(&scan);
            let (stats, filter) = (scan.stats(), scan.filter_counters());
            let of = |name| filter.iter().find(|(each, _)| *each == name).unwrap().1;
            assert!(of("delivered") > 0, "{probe}");
            assert_eq!(stats.received, of("delivered") + of("neighbour") + of("fragment"), "{probe}");
            assert_eq!(stats.overruns, of("ring_full"), "{probe}");
            // Every answer the World gave met one of the filter's ends.
            let (before, after) = scan.device().unwrap();
            let ends: u64 = filter.iter().map(|(_, frames)| frames).sum();
            assert_eq!(after.rx_packets - before.rx_packets, ends, "{probe}: {filter:?}");
        }
    }
}

#[test]
fn several_probes_are_told_apart() {
    let case =
        Case { world: WorldConfig { seed: 1, everything_open: true }, targets: "10.0.0.0/20", ..Case::default() };
    let (mut config, network) = case.config();
    config.plan.probes = 3;
    config.compiled = config.plan.compile(0).unwrap();
    config.rows = RowSelection::All;
    config.columns = vec![Column::Saddr, Column::Sport, Column::Classification, Column::ProbeNum, Column::IcmpType];
    let scan = Scan::start(config, network).unwrap();
    let mut counts = [0; 3];
    loop {
        match scan.next_batch(Duration::from_secs(1)).unwrap() {
            Next::Batch(batch) => {
                for number in batch.column_by_name("probe_num").unwrap().as_primitive::<UInt16Type>().values() {
                    counts[usize::from(*number)] += 1;
                }
                assert_eq!(
                    batch.column_by_name("icmp_type").unwrap().as_primitive::<UInt8Type>().null_count(),
                    batch.num_rows()
                );
            }
            Next::Nothing => {}
            Next::End => break,
        }
    }
    assert_eq!(counts, [4096; 3]);
    assert_eq!(scan.stats().found, 4096);
}

#[test]
fn payloads_of_udp_answers_are_a_column_when_asked_for() {
    for (targets, source, columns) in [
        ("10.0.0.0/14", SOURCE, vec![Column::Saddr, Column::Classification, Column::Data]),
        ("fd00::/110", "fd00:18::10", vec![Column::Classification, Column::Data]),
    ] {
        let case = Case { targets, source, probe: "udp", ports: "53", ..Case::default() };
        let (mut config, network) = case.config();
        config.plan.probe.args.insert("text".to_owned(), "ping".to_owned());
        config.rows = RowSelection::All;
        config.columns = columns;
        let scan = Scan::start(config, network).unwrap();
        let (mut echoes, mut errors) = (0, 0);
        loop {
            match scan.next_batch(Duration::from_secs(1)).unwrap() {
                Next::Batch(batch) => {
                    let classes = batch.column_by_name("classification").unwrap().as_string::<i32>();
                    let data = batch.column_by_name("data").unwrap().as_binary::<i32>();
                    for row in 0..batch.num_rows() {
                        if classes.value(row) == "udp" {
                            assert_eq!(data.value(row), b"ping");
                            echoes += 1;
                        } else {
                            assert!(data.is_null(row));
                            errors += 1;
                        }
                    }
                }
                Next::Nothing => {}
                Next::End => break,
            }
        }
        assert!(echoes > 100 && errors > 100, "{echoes} echoes, {errors} errors");
        assert_eq!(scan.stats().imbalances(scan.device()), Vec::<String>::new());
    }
}
