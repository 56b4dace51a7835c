//! The rate on the wall's clock, and what keeping it costs. In a file of its own, so that no other test runs beside it.

mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use irl_measure::{Scan, ScanRate};
use support::{Handle, Scripted, config};

/// One test of this file at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn the_rate_is_kept_by_real_sleeps_and_changes_in_flight() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let network = Arc::new(Scripted::default());
    let scan = Scan::start(config("10.0.0.0/8", ScanRate::PerSecond(50_000.0)), Arc::new(Handle(Arc::clone(&network))))
        .unwrap();
    let measure = |rate: f64| {
        let (before, start) = (network.sent(), Instant::now());
        std::thread::sleep(Duration::from_secs(2));
        let seen = (network.sent() - before) as f64 / start.elapsed().as_secs_f64();
        assert!((seen / rate - 1.0).abs() < 0.01, "{seen} instead of {rate}");
    };
    std::thread::sleep(Duration::from_millis(100));
    measure(50_000.0);
    scan.set_rate(5_000.0).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    measure(5_000.0);
    for wrong in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(scan.set_rate(wrong).is_err());
    }
    let start = Instant::now();
    scan.stop();
    assert!(start.elapsed() < Duration::from_millis(100));
    let sent = network.sent();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(network.sent(), sent, "frames left after the end");
}

/// Nanoseconds that the worker's thread has spent on a core.
fn worker_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    // Other threads of the test may end while they are looked at.
    let is_worker =
        |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == "irl-worker-0");
    let worker = tasks.into_iter().find(is_worker).expect("a scan is running");
    let line = std::fs::read_to_string(worker.join("schedstat")).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn waiting_for_the_next_frame_leaves_the_core_to_others() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // What is wanted of an idle machine is a third of a core and a twelfth; a busy one is slower.
    for (rate, most) in [(50_000.0, 0.5), (1_000.0, 0.16)] {
        let network = Scripted { null: true, ..Scripted::default() };
        let scan =
            Scan::start(config("10.0.0.0/8", ScanRate::PerSecond(rate)), Arc::new(Handle(Arc::new(network)))).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let (sent, busy, start) = (scan.stats().probes_sent, worker_ns(), Instant::now());
        std::thread::sleep(Duration::from_secs(3));
        let took = start.elapsed().as_secs_f64();
        let seen = (scan.stats().probes_sent - sent) as f64 / took;
        let core = (worker_ns() - busy) as f64 / took / 1e9;
        println!("{rate} a second: {seen:.1} sent, {:.1} % of a core", core * 100.0);
        assert!((seen / rate - 1.0).abs() < 0.01, "{seen} instead of {rate}");
        assert!(core < most, "{core} of a core at {rate} a second");
        scan.stop();
    }
}
