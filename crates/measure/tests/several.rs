//! One scan on several networks: each lets out what is its own, and together they find what one would.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use irl_lab::{Impairment, SimConfig, SimNetwork, World, WorldConfig};
use irl_link::filter::FilterCounters;
use irl_link::{
    DeviceCounters, EngineInfo, Gate, LinkEndpoint, LinkError, Network, NextHop, PolicySettings, Record, Targets,
    Worker, WorkerRequest,
};
use irl_measure::metadata::{self, About};
use irl_measure::scan::{EndedBy, Next};
use irl_measure::{Scan, ScanConfig, ScanRate};
use irl_targets::{Plan, PrefixSet};

const TARGETS: &str = "10.0.0.0/14";

fn network(source: &str) -> Arc<dyn Network> {
    Arc::new(SimNetwork::new(SimConfig {
        world: World::new(WorldConfig { seed: 3, everything_open: false }),
        impairment: Impairment::default(),
        sources: vec![source.parse().unwrap()],
    }))
}

/// A scan from these addresses, and a network for each.
fn scan(sources: &[&str], workers: u16) -> (ScanConfig, Vec<Arc<dyn Network>>) {
    let networks: Vec<_> = sources.iter().map(|source| network(source)).collect();
    let ours: Vec<IpAddr> = sources.iter().map(|source| source.parse().unwrap()).collect();
    let ports = "80".parse().unwrap();
    let plan = Plan::builder().target(TARGETS).ports(ports).seed(11).sources(ours.clone()).build().unwrap();
    let settings = networks.iter().map(|network| network.policy_settings()).reduce(PolicySettings::beside).unwrap();
    let items = [PrefixSet::parse_items([TARGETS]).unwrap()];
    let policy = Arc::new(settings.authorise(Targets::Items(&items)).unwrap());
    let compiled = plan.compile(0).unwrap();
    let mut config = ScanConfig::new(plan, compiled, policy, ours, ScanRate::PerSecond(2e6));
    config.cooldown = Duration::from_millis(100);
    config.workers = workers;
    (config, networks)
}

/// Who was found, from which of our addresses, and what ended the scan.
fn found_until_the_end(scan: &Scan) -> (HashSet<(u32, u32)>, Option<String>) {
    let mut rows = HashSet::new();
    loop {
        match scan.next_batch(Duration::from_secs(1)) {
            Ok(Next::Batch(batch)) => {
                let column = |name| batch.column_by_name(name).unwrap().as_primitive::<UInt32Type>().values();
                rows.extend(column("saddr").iter().copied().zip(column("daddr").iter().copied()));
            }
            Ok(Next::Nothing) => {}
            Ok(Next::End) => return (rows, None),
            Err(error) => return (rows, Some(error.to_string())),
        }
    }
}

/// The same for a scan that ends well.
fn found(scan: &Scan) -> HashSet<(u32, u32)> {
    let (rows, error) = found_until_the_end(scan);
    assert_eq!(error, None);
    rows
}

fn hosts(rows: &HashSet<(u32, u32)>) -> HashSet<u32> {
    rows.iter().map(|(host, _)| *host).collect()
}

#[test]
fn several_networks_find_what_one_finds_each_sends_its_share_and_the_sums_balance() {
    let (config, networks) = scan(&["198.18.0.10"], 1);
    let alone = found(&Scan::start_on(config, networks).unwrap());
    let sources = ["198.18.0.10", "198.18.2.10", "198.18.3.10"];
    for workers in [3, 5] {
        let (config, networks) = scan(&sources, workers);
        let scan = Scan::start_on(config, networks).unwrap();
        let rows = found(&scan);
        assert_eq!(hosts(&rows), hosts(&alone));
        let from = |ours: &str| {
            let ours: IpAddr = ours.parse().unwrap();
            rows.iter().filter(|(_, us)| IpAddr::from(us.to_be_bytes()) == ours).count()
        };
        assert!(sources.iter().all(|ours| from(ours) > rows.len() / 20), "each of our addresses was answered");
        let stats = scan.stats();
        assert_eq!(stats.imbalances(scan.device()), Vec::<String>::new());
        assert_eq!((stats.probes_sent, stats.probes_refused_by_policy), (1 << 18, 0));
        assert_eq!((stats.resets_refused_by_policy, stats.not_ours, stats.invalid), (0, 0, 0));
        let mut sum = 0;
        for ((attachment, share), ours) in scan.attachments().zip(sources) {
            assert_eq!(attachment.sources(), [ours.parse::<IpAddr>().unwrap()]);
            assert_eq!(share.imbalances(attachment.device()), Vec::<String>::new());
            assert_eq!(share.rows as usize, from(ours));
            sum += share.probes_sent;
        }
        assert_eq!(sum, stats.probes_sent);
        let document = metadata::document(&scan, &About::default());
        assert_eq!((&document["iface"], &document["engine"]), (&"sim,sim,sim".into(), &"sim".into()));
        let of_each = |name: &str| {
            document["interfaces"]
                .as_array()
                .unwrap()
                .iter()
                .map(|each| each["device"][name].as_u64().unwrap())
                .sum::<u64>()
        };
        for name in ["tx_packets", "rx_packets"] {
            assert_eq!(document["device"][name].as_u64().unwrap(), of_each(name), "{name}");
        }
        let delivered = |part: &serde_json::Value| part["filter"]["delivered"].as_u64().unwrap();
        assert_eq!(document["interfaces"].as_array().unwrap().iter().map(delivered).sum::<u64>(), delivered(&document));
    }
}

#[test]
fn a_network_without_a_worker_or_an_address_is_refused_and_so_is_an_address_without_a_network() {
    let refused = |config, networks| match Scan::start_on(config, networks) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was let"),
    };
    let sources = ["198.18.0.10", "198.18.2.10"];
    let (config, networks) = scan(&sources, 1);
    assert!(refused(config, networks).contains("--sender-threads 2"));
    let (mut config, networks) = scan(&sources, 2);
    config.sources.truncate(1);
    assert!(refused(config, networks).contains("none of the source addresses leaves by sim"));
    let (config, mut networks) = scan(&sources, 2);
    networks.truncate(1);
    assert!(refused(config, networks).contains("198.18.2.10 is no address of ours on sim"));
    let (config, _) = scan(&sources, 2);
    assert!(!refused(config, Vec::new()).is_empty());
}

/// A network whose interface goes after some ticks.
struct Going {
    network: Arc<dyn Network>,
    ticks_left: AtomicU32,
}

impl Network for Going {
    fn tick(&self, now_ns: u64, gate: &mut Gate) -> Result<(), LinkError> {
        match self.ticks_left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)) {
            Ok(_) => self.network.tick(now_ns, gate),
            Err(_) => Err(LinkError::InterfaceGone { name: "eth7".to_owned() }),
        }
    }

    fn workers(&self, request: &WorkerRequest) -> Result<Vec<Worker>, LinkError> {
        self.network.workers(request)
    }

    fn endpoint(&self, source: IpAddr) -> Result<LinkEndpoint, LinkError> {
        self.network.endpoint(source)
    }

    fn sources(&self) -> Vec<IpAddr> {
        self.network.sources()
    }

    fn policy_settings(&self) -> PolicySettings {
        self.network.policy_settings()
    }

    fn next_hop(&self) -> Arc<dyn NextHop> {
        self.network.next_hop()
    }

    fn on_neighbour(&self, record: Record<'_>, gate: &mut Gate) -> Result<(), LinkError> {
        self.network.on_neighbour(record, gate)
    }

    fn info(&self) -> EngineInfo {
        self.network.info()
    }

    fn filter_counters(&self) -> FilterCounters {
        self.network.filter_counters()
    }

    fn device_counters(&self) -> Option<DeviceCounters> {
        self.network.device_counters()
    }

    fn extra_counters(&self) -> BTreeMap<String, u64> {
        self.network.extra_counters()
    }

    fn release(&self, owners: &[u16]) {
        self.network.release(owners);
    }
}

#[test]
fn when_an_interface_goes_the_others_probe_what_is_left_and_the_run_says_so() {
    // Whichever of them goes: the first one's worker has no part in it that the others lack.
    for going in [0, 1] {
        let (mut config, mut networks) = scan(&["198.18.0.10", "198.18.2.10"], 2);
        config.rate = ScanRate::PerSecond(4e5);
        networks[going] = Arc::new(Going { network: Arc::clone(&networks[going]), ticks_left: AtomicU32::new(10) });
        let scan = Scan::start_on(config, networks).unwrap();
        let (rows, error) = found_until_the_end(&scan);
        let error = error.unwrap();
        assert!(error.contains("eth7 is gone") && error.contains("by the others"), "{error}");
        let stats = scan.stats();
        assert_eq!(stats.imbalances(scan.device()), Vec::<String>::new());
        assert_eq!((stats.targets, stats.probes_built, stats.unprobed), (1 << 18, 1 << 18, 0));
        let sent: Vec<u64> = scan.attachments().map(|(_, share)| share.probes_sent).collect();
        assert!(sent[going] > 0 && sent[1 - going] > 2 * sent[going], "{sent:?}");
        assert_eq!(rows.len() as u64, stats.found);
        assert!(scan.seconds().len() >= 2, "seconds are written down whoever goes");
    }
}

#[test]
fn when_all_interfaces_go_the_run_ends_and_tells_what_was_not_probed() {
    let (mut config, networks) = scan(&["198.18.0.10", "198.18.2.10"], 2);
    config.rate = ScanRate::PerSecond(1e5);
    let going = |network| Arc::new(Going { network, ticks_left: AtomicU32::new(10) }) as Arc<dyn Network>;
    let scan = Scan::start_on(config, networks.into_iter().map(going).collect()).unwrap();
    let (_, error) = found_until_the_end(&scan);
    assert!(error.unwrap().contains("eth7 is gone"));
    let stats = scan.stats();
    assert_eq!(scan.ended_by(), Some(EndedBy::Error));
    assert_eq!(stats.imbalances(scan.device()), Vec::<String>::new());
    assert_eq!(stats.targets, stats.probes_built + stats.unprobed);
    assert!(stats.targets < 1 << 18);
}

#[test]
fn no_later_pass_waits_for_an_interface_that_is_gone() {
    // Ticks come 10 ms apart, a pass takes some 650 ms: gone in the first pass, around the wait, and in the second.
    for ticks in [10, 70, 100] {
        let (mut config, mut networks) = scan(&["198.18.0.10", "198.18.2.10"], 2);
        config.rate = ScanRate::PerSecond(4e5);
        config.reprobe = 1;
        networks[1] = Arc::new(Going { network: Arc::clone(&networks[1]), ticks_left: AtomicU32::new(ticks) });
        let scan = Scan::start_on(config, networks).unwrap();
        let (rows, error) = found_until_the_end(&scan);
        assert!(error.is_some_and(|error| error.contains("eth7 is gone")), "{ticks}");
        let (stats, passes) = (scan.stats(), scan.passes());
        assert_eq!(stats.imbalances(scan.device()), Vec::<String>::new());
        assert_eq!(stats.unprobed, 0);
        let targets: Vec<u64> = passes.iter().map(|pass| pass.targets).collect();
        assert_eq!(targets, [1 << 18, (1 << 18) - passes[0].answered], "{ticks}: each silent one again, once");
        assert_eq!(rows.len() as u64, stats.found);
    }
}
