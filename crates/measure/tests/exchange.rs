//! Whole exchanges over the simulated link: every row against the World's truth, whatever the link does to frames.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use irl_lab::{Class, Direction, Impairment, SimConfig, SimNetwork, World, WorldConfig};
use irl_link::{Network, Targets};
use irl_measure::exchange::request::Request;
use irl_measure::exchange::session::{Close, Delimiter, Dialogue, Until};
use irl_measure::exchange::{Exchange, ExchangeConfig, ExchangeRows};
use irl_measure::listing::{Input, ListConfig, Listing};
use irl_measure::scan::Next;
use irl_measure::{MeasureError, Run, ScanConfig, ScanRate, Stats};
use irl_targets::{Plan, PrefixSet};

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

#[derive(Clone)]
struct Case {
    targets: &'static str,
    ports: &'static str,
    source: &'static str,
    layout: &'static str,
    world: WorldConfig,
    impairment: Impairment,
    workers: u16,
    rate: f64,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            targets: "10.0.0.0/14",
            ports: "80",
            source: "198.18.0.10",
            layout: "linux",
            world: WorldConfig { seed: 3, everything_open: false },
            impairment: Impairment::default(),
            workers: 1,
            rate: 1e6,
        }
    }
}

/// What a row says.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    status: String,
    stage: String,
    closed_by: Option<String>,
    bytes: u64,
    response: Option<Vec<u8>>,
    connect_ns: Option<i64>,
    first_byte_ns: Option<i64>,
    close_ns: Option<i64>,
}

impl Case {
    fn all_open(targets: &'static str) -> Self {
        Self { targets, world: WorldConfig { seed: 3, everything_open: true }, ..Self::default() }
    }

    fn config(&self) -> (ExchangeConfig, Arc<SimNetwork>) {
        let source: IpAddr = self.source.parse().unwrap();
        let plan = Plan::builder()
            .target(self.targets)
            .ports(self.ports.parse().unwrap())
            .seed(11)
            .sources([source])
            .probe("tcp_synscan", [("layout".to_owned(), self.layout.to_owned())].into())
            .build()
            .unwrap();
        let network = Arc::new(SimNetwork::new(SimConfig {
            world: World::new(self.world),
            impairment: self.impairment,
            sources: vec![source],
        }));
        let items = [PrefixSet::parse_items([self.targets]).unwrap()];
        let policy = Arc::new(network.policy_settings().authorise(Targets::Items(&items)).unwrap());
        let compiled = plan.compile(0).unwrap();
        let mut scan = ScanConfig::new(plan, compiled, policy, vec![source], ScanRate::PerSecond(self.rate));
        scan.cooldown = Duration::from_millis(200);
        scan.workers = self.workers;
        (ExchangeConfig::new(scan, Request::Bytes(REQUEST.to_vec())), network)
    }

    fn start(&self, adapt: impl FnOnce(&mut ExchangeConfig)) -> Result<Run, MeasureError> {
        let (mut config, network) = self.config();
        adapt(&mut config);
        Exchange::start(config, network).map(Run::from)
    }

    /// Rows by target, each of which has one.
    fn run(&self, adapt: impl FnOnce(&mut ExchangeConfig)) -> (HashMap<(u128, u16), Said>, Stats) {
        let run = self.start(adapt).unwrap();
        let mut rows = HashMap::new();
        for (target, said) in drain(&run) {
            assert!(rows.insert(target, said).is_none(), "two rows for {target:x?}");
        }
        let stats = run.stats();
        assert_eq!(stats.imbalances(run.device()), Vec::<String>::new());
        assert_eq!(stats.overruns, 0);
        (rows, stats)
    }

    /// What a target's row says of status and response, where it has one.
    fn truth(&self, address: u128, port: u16) -> Option<(&'static str, Option<Vec<u8>>)> {
        let world = World::new(self.world);
        let truth = world.truth(address, port);
        match truth.class {
            class if class.accepts() => Some(("success", Some(world.response(truth, port)))),
            Class::Closed => Some(("connection-refused", None)),
            Class::Filtered => Some(("unknown-error", None)),
            _ => None,
        }
    }
}

fn drain(run: &Run) -> Vec<((u128, u16), Said)> {
    let mut rows = Vec::new();
    loop {
        match run.next_batch(Duration::from_secs(1)).unwrap() {
            Next::Batch(batch) => rows.extend((0..batch.num_rows()).map(|row| read(&batch, row))),
            Next::Nothing => {}
            Next::End => return rows,
        }
    }
}

fn read(batch: &RecordBatch, row: usize) -> ((u128, u16), Said) {
    let text = |name| {
        let column = batch[name].as_string::<i32>();
        (!column.is_null(row)).then(|| column.value(row).to_owned())
    };
    let ns = |name| {
        let column = batch[name].as_primitive::<Int64Type>();
        (!column.is_null(row)).then(|| column.value(row))
    };
    let saddr = match batch["saddr"].as_primitive_opt::<UInt32Type>() {
        Some(v4) => u128::from(v4.value(row)),
        None => u128::from_be_bytes(batch["saddr"].as_fixed_size_binary().value(row).try_into().unwrap()),
    };
    let response = batch["response"].as_binary::<i32>();
    let said = Said {
        status: text("status").unwrap(),
        stage: text("stage").unwrap(),
        closed_by: text("closed_by"),
        bytes: batch["bytes"].as_primitive::<UInt64Type>().value(row),
        response: (!response.is_null(row)).then(|| response.value(row).to_vec()),
        connect_ns: ns("connect_ns"),
        first_byte_ns: ns("first_byte_ns"),
        close_ns: ns("close_ns"),
    };
    ((saddr, batch["sport"].as_primitive::<UInt16Type>().value(row)), said)
}

#[test]
fn every_target_that_answers_is_a_row_that_says_what_the_truth_does() {
    for (workers, layout) in [(1, "linux"), (2, "smallest")] {
        let case = Case { workers, layout, ..Case::default() };
        let (rows, stats) = case.run(|config| config.scan.reprobe = 0);
        let mut expected = 0;
        for address in 0x0a00_0000..0x0a04_0000_u128 {
            let said = rows.get(&(address, 80)).map(|said| (said.status.as_str(), said.response.clone()));
            assert_eq!(said, case.truth(address, 80), "{address:x}");
            expected += u64::from(said.is_some());
        }
        assert_eq!((stats.rows, stats.targets, stats.probes_sent), (expected, 1 << 18, 1 << 18));
        let connected: Vec<&Said> = rows.values().filter(|said| said.status == "success").collect();
        assert!(connected.len() > 100);
        assert_eq!((stats.connections_opened, stats.exchanged), (connected.len() as u64, connected.len() as u64));
        assert_eq!(stats.connections_reset, stats.connections_opened, "closed by RST, as is the default");
        for said in connected {
            assert_eq!((said.stage.as_str(), said.closed_by.as_deref()), ("close", Some("peer")));
            assert_eq!(said.bytes, said.response.as_ref().unwrap().len() as u64);
            assert_eq!(said.connect_ns.is_some(), layout == "linux", "an RTT needs timestamps");
            assert!(said.first_byte_ns <= said.close_ns && said.connect_ns <= said.first_byte_ns);
        }
    }
}

#[test]
fn ipv6_is_exchanged_with_like_ipv4() {
    let case = Case { targets: "fd00::/114", source: "fd00:18::10", ..Case::all_open("fd00::/114") };
    let (rows, stats) = case.run(|_| {});
    assert_eq!((rows.len(), stats.exchanged), (1 << 14, 1 << 14));
    for ((address, port), said) in &rows {
        assert_eq!((Some(said.status.as_str()), said.response.clone()), split(case.truth(*address, *port)));
    }
}

fn split(truth: Option<(&'static str, Option<Vec<u8>>)>) -> (Option<&'static str>, Option<Vec<u8>>) {
    truth.map_or((None, None), |(status, response)| (Some(status), response))
}

#[test]
fn whatever_the_link_does_no_row_says_what_is_not_so_and_few_are_missed() {
    for (seed, loss, duplicate, reorder) in [(1, 0.05, 0.0, 0.0), (2, 0.0, 0.2, 0.3), (3, 0.02, 0.1, 0.2)] {
        let way = Direction { loss, duplicate, reorder, reorder_ns: 2_000_000, delay_ns: 1_000_000 };
        let case = Case {
            targets: "10.1.0.0/18",
            impairment: Impairment { seed, there: way, back: way },
            rate: 100_000.0,
            ..Case::default()
        };
        let (rows, stats) = case.run(|config| {
            config.scan.reprobe = 5;
            // Each retransmission waits twice as long as the one before it.
            config.timeout = Duration::from_secs(60);
            config.scan.cooldown = Duration::from_millis(1200);
        });
        let (mut expected, mut missed) = (0, 0);
        for address in 0x0a01_0000..0x0a01_4000_u128 {
            match (case.truth(address, 80), rows.get(&(address, 80))) {
                (truth, Some(said)) => {
                    assert_eq!(split(truth), (Some(said.status.as_str()), said.response.clone()), "{address:x}");
                    expected += 1;
                }
                (Some(_), None) => (expected, missed) = (expected + 1, missed + 1),
                (None, None) => {}
            }
        }
        // Six SYNs of 5 % loss each way: fewer than one in a million are missed.
        assert!(expected > 300 && missed == 0, "{missed} of {expected} missed: {stats:?}");
        assert!(loss == 0.0 || stats.retransmits > 0);
    }
}

#[test]
fn a_response_ends_where_it_is_told_to() {
    let case = Case::all_open("10.2.0.0/22");
    let world = World::new(case.world);
    for close in [Close::Reset, Close::Finish] {
        for until in [Until::Bytes(9), Until::Delimiter(Delimiter::new(b"\r\n\r\n").unwrap())] {
            let dialogue = Dialogue { until, close };
            let (rows, stats) = case.run(|config| config.dialogue = dialogue.clone());
            assert_eq!(rows.len(), 1 << 10);
            for ((address, port), said) in &rows {
                let whole = world.response(world.truth(*address, *port), *port);
                let end = match &dialogue.until {
                    Until::Bytes(bytes) => *bytes as usize,
                    _ => whole.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4,
                };
                assert_eq!((said.status.as_str(), said.response.as_deref()), ("success", Some(&whole[..end])));
                assert_eq!(said.closed_by.as_deref(), Some("us"));
            }
            let ended = (stats.connections_reset, stats.connections_finished);
            assert_eq!(ended, if close == Close::Reset { (1 << 10, 0) } else { (0, 1 << 10) });
        }
    }
}

#[test]
fn a_long_response_is_cut_and_its_row_says_so() {
    let case = Case::all_open("10.2.0.0/24");
    let run = case.start(|config| config.max_bytes = 10).unwrap();
    let (mut rows, mut cut) = (0, 0);
    loop {
        match run.next_batch(Duration::from_secs(1)).unwrap() {
            Next::Batch(batch) => {
                rows += batch.num_rows();
                cut += batch["truncated"].as_boolean().true_count();
                assert!(batch["response"].as_binary::<i32>().iter().all(|response| response.unwrap().len() == 10));
            }
            Next::Nothing => {}
            Next::End => break,
        }
    }
    assert_eq!((rows, cut), (256, 256));
}

#[test]
fn the_silent_are_rows_when_all_are_asked_for_and_only_successes_when_those_are() {
    let case = Case { targets: "10.1.0.0/19", workers: 2, ..Case::default() };
    let (rows, stats) = case.run(|config| {
        config.rows = ExchangeRows::All;
        config.scan.reprobe = 0;
    });
    assert_eq!(rows.len(), 1 << 13);
    let silent = rows.values().filter(|said| said.status == "connection-timeout").count() as u64;
    assert_eq!((stats.silent, stats.rows), (silent, 1 << 13));
    for ((address, port), said) in &rows {
        match case.truth(*address, *port) {
            Some((status, _)) => assert_eq!(said.status, status),
            None => assert_eq!((said.status.as_str(), said.stage.as_str()), ("connection-timeout", "connect")),
        }
    }
    let (successes, stats) = case.run(|config| config.rows = ExchangeRows::Success);
    assert!(successes.values().all(|said| said.status == "success"));
    assert_eq!((successes.len() as u64, stats.unselected), (stats.exchanged, stats.refused));
}

/// Every frame takes so long each way.
fn slow(milliseconds: u64) -> Impairment {
    let way = Direction { delay_ns: milliseconds * 1_000_000, ..Direction::default() };
    Impairment { seed: 1, there: way, back: way }
}

/// Reads a run to its end, and calls with its counters on the way.
fn watch(run: &Run, mut look: impl FnMut(&Stats)) -> usize {
    let mut rows = 0;
    loop {
        match run.next_batch(Duration::from_millis(1)).unwrap() {
            Next::Batch(batch) => rows += batch.num_rows(),
            Next::Nothing => {}
            Next::End => return rows,
        }
        look(&run.stats());
    }
}

#[test]
fn there_are_never_more_connections_than_allowed_and_none_is_lost_for_it() {
    for workers in [1, 2] {
        let case = Case { workers, impairment: slow(5), ..Case::all_open("10.2.0.0/21") };
        let run = case.start(|config| config.max_connections = 100).unwrap();
        let mut most = 0;
        let rows = watch(&run, |stats| {
            most = most.max(stats.connections_opened.saturating_sub(stats.connections_closed()));
        });
        let stats = run.stats();
        assert_eq!((rows, stats.exchanged), (1 << 11, 1 << 11), "{stats:?}");
        assert!((20..=100).contains(&most), "{most} at once");
        assert!(stats.connection_pauses > 0);
        assert_eq!(stats.imbalances(run.device()), Vec::<String>::new());
    }
}

#[test]
fn a_prefix_has_no_more_connections_than_allowed() {
    let case = Case { impairment: slow(5), workers: 2, ..Case::all_open("10.2.0.0/23") };
    let run = case.start(|config| config.max_per_prefix = Some(8)).unwrap();
    let mut most = 0;
    let rows = watch(&run, |stats| {
        most = most.max(stats.connections_opened.saturating_sub(stats.connections_closed()));
    });
    assert_eq!(rows, 1 << 9);
    assert!((4..=16).contains(&most), "{most} at once with two prefixes");
    assert_eq!(run.stats().imbalances(run.device()), Vec::<String>::new());
}

#[test]
fn syns_pause_where_the_memory_may_not_be_enough() {
    // Fewer than tell how long responses usually are.
    let case = Case { impairment: slow(2), ..Case::all_open("10.2.0.0/23") };
    let run = case.start(|config| {
        config.max_memory = 2 << 20;
        config.max_bytes = 16 << 10;
    });
    let run = run.unwrap();
    let mut most = 0;
    let rows = watch(&run, |stats| {
        most = most.max(stats.connections_opened.saturating_sub(stats.connections_closed()));
    });
    let stats = run.stats();
    assert_eq!(rows, 1 << 9, "{stats:?}");
    assert!(stats.memory_pauses > 0 && most <= 130, "{most} at once, in 2 MiB of 16 KiB each");
}

#[test]
fn where_few_answer_syns_do_not_wait_for_the_memory_of_those_that_will_not() {
    let run = Case::default().start(|config| {
        config.scan.reprobe = 0;
        config.max_memory = 8 << 20;
        config.max_bytes = 16 << 10;
    });
    let run = run.unwrap();
    let rows = watch(&run, |_| {});
    let stats = run.stats();
    assert!(rows > 1000 && stats.targets == 1 << 18, "{rows} rows: {stats:?}");
    // It is enough for 512 connections, and at so many SYNs a second it would take minutes.
    assert!(stats.memory_pauses > 0 && stats.elapsed_s < 30.0, "{stats:?}");
}

#[test]
fn rows_that_nobody_reads_pause_the_syns_and_none_is_lost() {
    let case = Case::all_open("10.0.0.0/15");
    let run = case.start(|config| {
        config.scan.queue = 1;
        config.scan.reprobe = 1;
        config.timeout = Duration::from_secs(20);
    });
    let run = run.unwrap();
    let paused = Instant::now();
    while run.stats().pauses == 0 {
        assert!(paused.elapsed() < Duration::from_secs(20), "{:?}", run.stats());
        std::thread::yield_now();
    }
    let rows = watch(&run, |_| {});
    let stats = run.stats();
    assert_eq!((rows, stats.exchanged), (1 << 17, 1 << 17), "{stats:?}");
    assert_eq!(stats.imbalances(run.device()), Vec::<String>::new());
}

#[test]
fn a_run_that_is_stopped_keeps_its_rows_and_resets_its_connections() {
    let case = Case { impairment: slow(1000), workers: 2, ..Case::all_open("10.0.0.0/14") };
    let run = case.start(|config| {
        config.max_bytes = 1000;
        config.scan.reprobe = 0;
        config.scan.cooldown = Duration::from_secs(20);
    });
    let run = run.unwrap();
    // More than resets wait at a time in either worker.
    while run.stats().connections_opened < 200_000 {
        assert!(!run.is_finished(), "{:?}", run.stats());
        std::thread::yield_now();
    }
    run.halt();
    let mut statuses = HashMap::new();
    for (_, said) in drain(&run) {
        *statuses.entry(said.status).or_insert(0) += 1;
    }
    let stats = run.stats();
    assert!(stats.connections_aborted > 0 && statuses["unknown-error"] == stats.connections_aborted, "{statuses:?}");
    assert_eq!(statuses.values().sum::<u64>(), stats.connections_opened);
    // An acknowledgement may have been due to a connection that was reset before it left.
    assert!(stats.segments_sent >= stats.connections_aborted);
    assert_eq!(stats.imbalances(run.device()), Vec::<String>::new());
}

#[test]
fn a_bound_on_rows_ends_the_run() {
    let case = Case { rate: 20_000.0, ..Case::all_open("10.0.0.0/14") };
    let (rows, stats) = case.run(|config| config.scan.max_results = Some(500));
    assert_eq!(rows.len(), 500);
    assert!(stats.targets < 1 << 18);
}

/// A list of an address each line, with its last byte as tag, a name for every second, and a request.
fn listed(config: &mut ExchangeConfig, addresses: impl Iterator<Item = u32>, request: Option<&str>) {
    let mut text = "tag,saddr,domain,say\n".to_owned();
    for address in addresses {
        let name = if address % 2 == 0 { format!("host-{address}.test") } else { String::new() };
        text += &format!("{},{},{name},say {address}\n", address & 255, std::net::Ipv4Addr::from_bits(address));
    }
    let plan = &config.scan.plan;
    let list = ListConfig {
        plan: config.scan.compiled.clone(),
        family: plan.family,
        ports: plan.ports.as_slice().to_vec(),
        our_ports: irl_wire::PortRange::DEFAULT.len(),
        attempts: 2,
        timeout: Duration::from_millis(300),
        max_memory: 64 << 20,
        request: request.map(str::to_owned),
    };
    let input = Input::Text("the list".to_owned(), Box::new(std::io::Cursor::new(text)));
    config.list = Some(Arc::new(Listing::open(input, &list).unwrap()));
    config.longest_request = 100;
}

#[test]
fn a_lists_targets_are_rows_with_what_it_says_further_of_them() {
    for workers in [1, 2] {
        let case = Case { targets: "10.1.0.0/16", workers, ..Case::default() };
        let addresses = 0x0a01_0000..0x0a01_2000_u32;
        let run = case.start(|config| {
            config.rows = ExchangeRows::All;
            config.request = Request::template(b"GET {host}").unwrap();
            listed(config, addresses.clone(), None);
        });
        let run = run.unwrap();
        let mut rows = HashMap::new();
        loop {
            match run.next_batch(Duration::from_secs(1)).unwrap() {
                Next::Batch(batch) => {
                    let tags = batch["tag"].as_string::<i32>();
                    for row in 0..batch.num_rows() {
                        let ((address, port), said) = read(&batch, row);
                        assert_eq!((tags.value(row), port), (&*(address & 255).to_string(), 80));
                        assert!(rows.insert(address, said).is_none());
                    }
                }
                Next::Nothing => {}
                Next::End => break,
            }
        }
        assert_eq!(rows.len(), addresses.len());
        for (address, said) in &rows {
            let expected = case.truth(*address, 80).unwrap_or(("connection-timeout", None));
            assert_eq!((said.status.as_str(), said.response.clone()), expected, "{address:x}");
        }
        let stats = run.stats();
        assert_eq!(stats.imbalances(run.device()), Vec::<String>::new());
        assert!(stats.silent > 0 && stats.exchanged > 0 && stats.refused > 0);
    }
}

#[test]
fn each_row_of_a_list_can_bring_its_request_and_a_target_be_there_again() {
    let case = Case::all_open("10.2.0.0/16");
    let run = case.start(|config| {
        config.request = Request::Column;
        listed(config, (0..3000).map(|number| 0x0a02_0000 + number % 1000), Some("say"));
    });
    let rows = drain(&run.unwrap());
    assert_eq!(rows.len(), 3000, "each row of the list is one of the results");
    assert!(rows.iter().all(|(_, said)| said.status == "success"));
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_sent() {
    type Adapt = fn(&mut ExchangeConfig);
    let cases: [(Adapt, &str); 6] = [
        (|config| config.max_memory = 1 << 20, "give --max-memory as much"),
        (|config| config.max_connections = 0, "--max-connections 0 leaves no exchange"),
        (|config| config.max_per_prefix = Some(0), "--max-per-prefix 0 leaves no exchange"),
        (|config| config.timeout = Duration::ZERO, "--timeout 0 leaves no exchange"),
        (|config| config.longest_request = u32::MAX, "too long: there may be 1 GiB of it"),
        (|config| config.scan.plan.probes = 2, "give --reprobe instead of --probes"),
    ];
    for (adapt, what) in cases {
        let error = Case::default().start(adapt).err().expect(what).to_string();
        assert!(error.contains(what), "{error}");
    }
}
