//! Nanoseconds a probe of the whole loop of one worker: plan, policy, frame, counters, and with answers also their
//! judgement, dedup, rows and Arrow batches; and of writing a row. The least of several rounds, so that a noisy machine does not matter.
//!
//! ```text
//! cargo run --release -p irl-measure --example loop_cost
//! ```

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use irl_measure::output::{self, Format};
use irl_measure::scan::Next;
use irl_measure::{CaptureSample, Scan, ScanConfig, ScanRate};
use irl_targets::Family;
use support::{Handle, Scripted};

const ROUNDS: usize = 7;
const TARGETS: &str = "10.0.0.0/10";
const PROBES: f64 = 4_194_304.0;

fn main() {
    let null = || Scripted { null: true, ..Scripted::default() };
    least("probes into a null sender", null, |_| {});
    least("the same with a sample of frames", null, sampled);
    least("probes into a null sender, smallest SYN", null, |config| {
        config.plan.probe.args.insert("layout".to_owned(), "smallest".to_owned());
    });
    least("probes, frames looked at and not answered", Scripted::default, |_| {});
    least("probes, every target answers, no RST", Scripted::open, |config| config.reset = false);
    least("the same with a sample of frames", Scripted::open, |config| {
        config.reset = false;
        sampled(config);
    });
    least("the same with a checkpoint", Scripted::open, |config| (config.reset, config.checkpointed) = (false, true));
    least("probes, every target answers, with RSTs", Scripted::open, |_| {});
    walk();
    for suffix in ["parquet", "csv", "jsonl"] {
        write(suffix);
    }
}

/// Keeps the sample that is kept where no size is given.
fn sampled(config: &mut ScanConfig) {
    let path = std::env::temp_dir().join(format!("irl-measure-cost-{}.pcapng", std::process::id()));
    config.capture_sample = Some(CaptureSample { path, size: 1000, program: "loop_cost".to_owned() });
}

/// What a later pass pays for a target that has answered.
fn walk() {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut config = support::config(TARGETS, ScanRate::PerSecond(1e9));
        (config.cooldown, config.queue, config.reset, config.reprobe) = (Duration::ZERO, 64, false, 1);
        // Where nobody is silent there is no later pass.
        let answer = |frame: &[u8], out: &mut Vec<u8>| {
            if frame[30..34] != [10, 0, 0, 0] {
                support::syn_ack(frame, out);
            }
        };
        let network = Scripted { answer: Box::new(answer), ..Scripted::default() };
        let scan = Scan::start(config, Arc::new(Handle(Arc::new(network)))).expect("the scan starts");
        while !matches!(scan.next_batch(Duration::from_secs(1)).expect("the scan runs"), Next::End) {}
        let pass = scan.passes().pop().expect("there are two");
        assert_eq!(pass.sent, 1, "all others have answered");
        best = best.min(pass.end_s.expect("it is over") - pass.start_s);
    }
    println!("{:<48} {:7.1} ns a target", "a later pass where all but one have answered", best * 1e9 / PROBES);
}

/// What the reader pays for a row of the default columns.
fn write(suffix: &str) {
    let scan = Scan::start(
        support::config("10.0.0.0/12", ScanRate::PerSecond(1e9)),
        Arc::new(Handle(Arc::new(Scripted::open()))),
    )
    .expect("the scan starts");
    let mut batches = Vec::new();
    loop {
        match scan.next_batch(Duration::from_secs(1)).expect("the scan runs") {
            Next::Batch(batch) => batches.push(batch),
            Next::Nothing => {}
            Next::End => break,
        }
    }
    let mut best = f64::INFINITY;
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let path = std::env::temp_dir().join(format!("irl-measure-cost-{}.{suffix}", std::process::id()));
        let start = Instant::now();
        let format = Format::of(&path).expect("the suffix is known");
        let mut sink =
            output::open(&path, format, Family::V4, &scan.schema(), true).expect("the folder can be written");
        for batch in &batches {
            sink.write(batch).expect("there is room");
        }
        sink.finish("{}").expect("there is room");
        best = best.min(start.elapsed().as_nanos() as f64 / scan.stats().rows as f64);
        bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
        std::fs::remove_file(&path).expect("it was written");
    }
    let size = bytes as f64 / scan.stats().rows as f64;
    println!("{:<48} {best:7.1} ns a row, {size:.1} bytes", format!("rows to .{suffix}"));
}

fn least(name: &str, network: impl Fn() -> Scripted, adapt: impl Fn(&mut ScanConfig)) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut config = support::config(TARGETS, ScanRate::PerSecond(1e9));
        config.cooldown = Duration::ZERO;
        config.queue = 64;
        adapt(&mut config);
        let start = Instant::now();
        let scan = Scan::start(config, Arc::new(Handle(Arc::new(network())))).expect("the scan starts");
        while !matches!(scan.next_batch(Duration::from_secs(1)).expect("the scan runs"), Next::End) {}
        assert_eq!(scan.stats().probes_sent as f64, PROBES);
        best = best.min(start.elapsed().as_nanos() as f64 / PROBES);
    }
    println!("{name:<48} {best:7.1} ns a probe");
}
