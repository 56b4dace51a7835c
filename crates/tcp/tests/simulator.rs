//! Thousands of simulated networks: every stream comes through, or the dialogue ends with the right status.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use support::simulation::{Outcome, Simulation};

/// How many seeds, and which is the first: `IRL_SEEDS=100000 IRL_FIRST_SEED=7` for more.
fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn run(seed: u64) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| Simulation::draw(seed).run())).unwrap_or_else(|_| Err("a panic, see above".into()))
}

#[test]
fn every_stream_comes_through_or_ends_as_it_should() {
    let (first, count) = (asked("IRL_FIRST_SEED", 1), asked("IRL_SEEDS", 3000));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(4);
    let (mut all, mut failures) = (Outcome::default(), Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    (first + thread..first + count)
                        .step_by(threads as usize)
                        .map(|seed| (seed, run(seed)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for worker in workers {
            for (seed, outcome) in worker.join().expect("a worker catches panics") {
                match outcome {
                    Ok(outcome) => {
                        all.dialogues += outcome.dialogues;
                        all.finished += outcome.finished;
                        all.retransmits += outcome.retransmits;
                        all.bytes += outcome.bytes;
                        all.packets += outcome.packets;
                    }
                    Err(fault) => failures.push(format!("IRL_FIRST_SEED={seed} IRL_SEEDS=1: {fault}")),
                }
            }
        }
    });
    failures.sort();
    let shown: Vec<_> = failures.iter().take(8).cloned().collect();
    assert!(failures.is_empty(), "{} of {count} seeds failed\n{}", failures.len(), shown.join("\n"));
    println!(
        "{count} seeds: {} dialogues, {} of them whole both ways, {} bytes, {} packets, {} segments sent again",
        all.dialogues, all.finished, all.bytes, all.packets, all.retransmits
    );
}

#[test]
fn a_seed_is_all_there_is_to_a_run() {
    for seed in 1..40 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
