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
        assert!(connected.len() > 1000);
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
