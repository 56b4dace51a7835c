//! The rate on the wall's clock. In a file of its own, so that no other test runs beside it.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use irl_measure::{Scan, ScanRate};
use support::{Handle, Scripted, config};

#[test]
fn the_rate_is_kept_by_real_sleeps_and_changes_in_flight() {
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
