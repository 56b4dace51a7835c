//! Checkpoints: what they hold together, wherever a run is cut short, and what going on from them sends.

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use irl_link::record::{Kind, flags};
use irl_link::{Arena, PolicySettings, Targets};
use irl_measure::checkpoint::{Checkpoint, Saved};
use irl_measure::metadata::About;
use irl_measure::output::{self, Format};
use irl_measure::record::{Outcome, Watch, record};
use irl_measure::{RowSelection, Scan, ScanConfig, ScanRate};
use irl_targets::{Family, PrefixSet, SecretKey};
use serde_json::json;
use support::{Handle, Scripted, is_syn, record as answer, tcp_body};

const HOSTS: u64 = 1 << 16;

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("irl-checkpoint-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn checkpoint(&self) -> PathBuf {
        self.0.join("out.checkpoint")
    }

    fn rows(&self) -> Vec<String> {
        let mut rows: Vec<_> = fs::read_to_string(self.0.join("out.csv")).unwrap().lines().map(str::to_owned).collect();
        rows.sort_unstable();
        rows
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ends of addresses: 0 to 3 answer with a RST, 4 to 7 at the second probe, 8 to 11 never, others at once.
fn network(sent: &Arc<Mutex<HashMap<u32, u32>>>) -> Scripted {
    let sent = Arc::clone(sent);
    let respond = move |frame: &[u8], out: &mut Vec<u8>| {
        if is_syn(frame) {
            let target = u32::from_be_bytes(frame[30..34].try_into().unwrap());
            let mut sent = sent.lock().unwrap();
            let before = sent.entry(target).or_insert(0);
            *before += 1;
            match target & 0xff {
                0..=3 => answer(out, Kind::Tcp4, flags::COOKIE, &tcp_body(frame, 0x14)),
                4..=7 if *before < 2 => {}
                8..=11 => {}
                _ => answer(out, Kind::Tcp4, flags::COOKIE, &tcp_body(frame, 0x12)),
            }
        }
    };
    Scripted { answer: Box::new(respond), ..Scripted::default() }
}

/// Interrupts a run after a time, and copies the folder as a crash would leave it at another.
struct Disturb<'a> {
    until: Instant,
    copy: Option<(Instant, &'a Path, &'a Path)>,
}

impl Watch for Disturb<'_> {
    fn go_on(&mut self) -> bool {
        if let Some((_, from, to)) = self.copy.take_if(|(at, ..)| Instant::now() >= *at) {
            for name in ["out.csv", "out.checkpoint"] {
                fs::copy(from.join(name), to.join(name)).unwrap();
            }
        }
        Instant::now() < self.until
    }

    fn second(&mut self, _: &str, _: &str) {}
}

fn config(workers: u16, rate: f64) -> ScanConfig {
    let mut config = support::config("10.0.0.0/16", ScanRate::PerSecond(rate));
    config.plan.secret = SecretKey::from_bytes([7; 16]);
    config.compiled = config.plan.compile(0).unwrap();
    config.workers = workers;
    config.reprobe = 1;
    config.rows = RowSelection::All;
    config.columns = vec![irl_measure::schema::Column::Saddr, irl_measure::schema::Column::Repeat];
    config.checkpointed = true;
    config
}

/// Runs, or goes on with, the scan of a folder.
fn run(folder: &Folder, config: ScanConfig, scripted: Scripted, watch: &mut Disturb<'_>) -> Outcome {
    let path = folder.0.join("out.csv");
    let schema = irl_measure::schema::scan(Family::V4, &config.columns);
    let every = Duration::from_millis(100);
    let (checkpoint, sink) = match &config.resume {
        None => {
            let header = json!({"plan_fingerprint": config.compiled.fingerprint(), "shard": 0});
            let checkpoint = Checkpoint::create(&folder.checkpoint(), &header, every).unwrap();
            (checkpoint, output::open(&path, Format::Csv, Family::V4, &schema, true).unwrap())
        }
        Some(saved) => {
            let checkpoint = Checkpoint::resume(saved, every).unwrap();
            let safe = saved.output(0);
            (checkpoint, output::reopen(&path, Format::Csv, Family::V4, &schema, true, &safe).unwrap())
        }
    };
    let scan = Scan::start(config, Arc::new(Handle(Arc::new(scripted)))).unwrap();
    record(&scan, vec![sink], &About::default(), watch, Some(checkpoint))
}

fn resumed(folder: &Folder, workers: u16) -> ScanConfig {
    let saved = Saved::load(&folder.checkpoint()).unwrap();
    ScanConfig { resume: Some(Arc::new(saved)), ..config(workers, 400_000.0) }
}

fn for_ever() -> Disturb<'static> {
    Disturb { until: Instant::now() + Duration::from_secs(3600), copy: None }
}

#[test]
fn wherever_it_is_cut_short_each_target_becomes_one_row_and_what_was_done_is_not_probed_again() {
    for (workers, cut_ms) in [(1, 150), (2, 350), (2, 500), (1, 590)] {
        let (first, second) = (Folder::new(&format!("a{cut_ms}")), Folder::new(&format!("b{cut_ms}")));
        let sent = Arc::default();
        let now = Instant::now();
        // Undisturbed it takes 0.78 s.
        let mut disturb = Disturb {
            until: now + Duration::from_millis(cut_ms + 150),
            copy: Some((now + Duration::from_millis(cut_ms), &first.0, &second.0)),
        };
        let outcome = run(&first, config(workers, 100_000.0), network(&sent), &mut disturb);
        assert!(outcome.interrupted && outcome.resumable);
        // A crash, in whose copy nothing is known of the orderly end; and the orderly end itself.
        for folder in [&second, &first] {
            let again = Arc::new(Mutex::new(sent.lock().unwrap().clone()));
            let before: u64 = again.lock().unwrap().values().map(|count| u64::from(*count)).sum();
            let outcome = run(folder, resumed(folder, 3 - workers), network(&again), &mut for_ever());
            assert!(outcome.error.is_none() && !outcome.resumable, "{:?}", outcome.error);
            assert!(!folder.checkpoint().exists(), "nothing is left to go on with");
            let rows = folder.rows();
            // Those that answered only the second probe were perhaps probed twice in the first pass already.
            assert_eq!(
                rows.iter().filter(|row| row.ends_with(",0")).count() as u64,
                HOSTS * 244 / 256 + HOSTS * 4 / 256 + HOSTS * 4 / 256
            );
            let mut once = rows.clone();
            once.dedup();
            let firsts = |rows: &[String]| rows.iter().filter(|row| row.ends_with(",0")).count();
            assert_eq!(firsts(&once), firsts(&rows), "{workers} workers, cut after {cut_ms} ms");
            let document = outcome.metadata;
            assert_eq!(document["imbalances"], json!([]));
            assert_eq!(document["found"], HOSTS * 248 / 256);
            assert_eq!(document["sessions"].as_array().unwrap().len(), 2);
            let all: u64 = again.lock().unwrap().values().map(|count| u64::from(*count)).sum();
            let needed = HOSTS + HOSTS * 8 / 256;
            // 100 ms between commits, as much until workers say where they are, 50 ms for answers, and a busy machine.
            assert!(all < needed + 60_000, "{all} probes, {before} of them before, for {needed}");
        }
    }
}

/// Whoever answers is found, and `sent` counts the probes of each.
fn open(sent: &Arc<Mutex<HashMap<u32, u32>>>) -> Scripted {
    let sent = Arc::clone(sent);
    let respond = move |frame: &[u8], out: &mut Vec<u8>| {
        if is_syn(frame) {
            let target = u32::from_be_bytes(frame[30..34].try_into().unwrap());
            *sent.lock().unwrap().entry(target).or_insert(0) += 1;
            answer(out, Kind::Tcp4, flags::COOKIE, &tcp_body(frame, 0x12));
        }
    };
    Scripted { answer: Box::new(respond), ..Scripted::default() }
}

#[test]
fn targets_that_wait_for_their_turn_are_not_done() {
    // All 256 are of one network, which gets 400 probes a second: they are taken at once, and most wait.
    let budgeted = |mut config: ScanConfig, budget: f64| {
        let targets = "10.0.0.0/24";
        config.reprobe = 0;
        config.plan.targets = vec![targets.to_owned()];
        config.compiled = config.plan.compile(0).unwrap();
        let settings = PolicySettings {
            sources: config.sources.clone(),
            arena: Arena::Simulated,
            prefix_budget: Some(budget),
            ..PolicySettings::default()
        };
        let items = [PrefixSet::parse_items([targets]).unwrap()];
        config.policy = Arc::new(settings.authorise(Targets::Items(&items)).unwrap());
        config
    };
    let folder = Folder::new("held");
    let sent = Arc::default();
    let mut disturb = Disturb { until: Instant::now() + Duration::from_millis(400), copy: None };
    let outcome = run(&folder, budgeted(config(1, 100_000.0), 400.0), open(&sent), &mut disturb);
    let first = sent.lock().unwrap().len();
    assert!(outcome.resumable && (20..256).contains(&first), "{first}");
    let outcome = run(&folder, budgeted(resumed(&folder, 1), 1e6), open(&sent), &mut for_ever());
    assert_eq!((outcome.metadata["found"].as_u64(), sent.lock().unwrap().len()), (Some(256), 256));
    assert_eq!(folder.rows().iter().filter(|row| row.ends_with(",0")).count(), 256, "repeats aside");
}

#[test]
fn a_recheck_that_was_cut_short_goes_on_where_it_was() {
    const SHARE: f64 = 0.05;
    const AGAIN: u64 = 3277;
    let rechecked = |mut config: ScanConfig| {
        config.reprobe = 0;
        (config.recheck, config.recheck_rate) = (Some(SHARE), 5000.0);
        config
    };
    let probes = |sent: &Arc<Mutex<HashMap<u32, u32>>>| {
        sent.lock().unwrap().values().map(|count| u64::from(*count)).sum::<u64>()
    };
    let (first, second) = (Folder::new("recheck-a"), Folder::new("recheck-b"));
    let sent = Arc::default();
    let now = Instant::now();
    // All are probed once after 0.33 s; the sample takes 0.66 s more.
    let mut disturb = Disturb {
        until: now + Duration::from_millis(800),
        copy: Some((now + Duration::from_millis(750), &first.0, &second.0)),
    };
    let outcome = run(&first, rechecked(config(2, 200_000.0)), network(&sent), &mut disturb);
    let before = probes(&sent);
    assert!(
        outcome.resumable && HOSTS < before && before < HOSTS + AGAIN,
        "{before} probes: it was cut short elsewhere"
    );
    for (folder, twice) in [(&second, 5000 / 2), (&first, 5000 / 4)] {
        let again = Arc::new(Mutex::new(sent.lock().unwrap().clone()));
        let outcome = run(folder, rechecked(resumed(folder, 1)), network(&again), &mut for_ever());
        assert!(outcome.error.is_none() && !outcome.resumable, "{:?}", outcome.error);
        assert!(outcome.metadata["sessions"][1]["position"].as_u64() > Some(0), "it began anew");
        let all = probes(&again);
        assert!((HOSTS + AGAIN..HOSTS + AGAIN + twice).contains(&all), "{all} probes");
        let said = &outcome.metadata["recheck"];
        let of = |name: &str| said[name].as_u64().unwrap();
        assert!(of("found_probed") + of("others_probed") >= AGAIN, "{said}");
        // They answer whenever they are asked; what was under way at a commit counts as lost.
        assert!(of("found_again") <= of("found_probed") && of("found_again") * 20 >= of("found_probed") * 19, "{said}");
        // Those that answer their second probe.
        let found = HOSTS * 244 / 256 + of("others_found");
        assert!((AGAIN / 128..AGAIN / 32).contains(&of("others_found")), "{said}");
        assert_eq!(outcome.metadata["found"], found);
        let mut rows = folder.rows();
        rows.retain(|row| row.ends_with(",0"));
        assert_eq!(rows.len() as u64, found + HOSTS * 4 / 256, "each once, and those that answered with a RST");
        rows.dedup();
        assert_eq!(rows.len() as u64, found + HOSTS * 4 / 256);
        assert_eq!(outcome.metadata["imbalances"], json!([]));
    }
}

#[test]
fn another_plan_and_another_shard_are_refused() {
    let folder = Folder::new("refused");
    let mut disturb = Disturb { until: Instant::now() + Duration::from_millis(200), copy: None };
    run(&folder, config(1, 100_000.0), network(&Arc::default()), &mut disturb);
    let refused = |path: &Path, change: &dyn Fn(&mut ScanConfig)| {
        let mut config = config(1, 1000.0);
        config.resume = Some(Arc::new(Saved::load(path).unwrap()));
        change(&mut config);
        let network = Scripted { answer: Box::new(|_, _| panic!("nothing is sent")), ..Scripted::default() };
        Scan::start(config, Arc::new(Handle(Arc::new(network)))).err().unwrap().to_string()
    };
    let other = refused(&folder.checkpoint(), &|config| {
        config.plan.seed = 6;
        config.compiled = config.plan.compile(0).unwrap();
    });
    assert!(other.contains("by the plan that it began with"), "{other}");
    let path = folder.0.join("shard.checkpoint");
    let header = json!({"plan_fingerprint": config(1, 1.0).compiled.fingerprint(), "shard": 1});
    drop(Checkpoint::create(&path, &header, Duration::from_secs(1)).unwrap());
    let other = refused(&path, &|_| {});
    assert!(other.contains("another shard"), "{other}");
}
