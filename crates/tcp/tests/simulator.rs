//! Thousands of simulated networks: every stream comes through, or the dialogue ends with the right status.
//!
//! `IRL_SEEDS=100000 IRL_FIRST_SEED=7` tries more, or others; `IRL_TRACE=1` shows each packet.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use irl_tcp::Why;
use support::simulation::{Outcome, Simulation};

fn run(draw: fn(u64) -> Simulation, seed: u64) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| draw(seed).run())).unwrap_or_else(|_| Err("a panic, see above".into()))
}

/// Runs so many seeds on all cores, and panics with those that failed.
fn run_all(draw: fn(u64) -> Simulation, count: u64) -> Outcome {
    let (first, count) = (support::asked("IRL_FIRST_SEED", 1), support::asked("IRL_SEEDS", count));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(4);
    let (mut all, mut failures) = (Outcome::default(), Vec::new());
    std::thread::scope(|scope| {
        let seeds = move |thread| (first + thread..first + count).step_by(threads as usize);
        let work = move |thread| seeds(thread).map(|seed| (seed, run(draw, seed))).collect::<Vec<_>>();
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        for worker in workers {
            for (seed, outcome) in worker.join().expect("a worker catches panics") {
                match outcome {
                    Ok(outcome) => all.add(&outcome),
                    Err(fault) => failures.push(format!("IRL_FIRST_SEED={seed} IRL_SEEDS=1: {fault}")),
                }
            }
        }
    });
    failures.sort();
    let shown: Vec<_> = failures.iter().take(8).cloned().collect();
    assert!(failures.is_empty(), "{} of {count} seeds failed\n{}", failures.len(), shown.join("\n"));
    println!("{count} seeds: {all:?}");
    all
}

/// Rule: RFC 9293 3.10.7.4, RFC 9293 MUST-2, RFC 9293 MUST-3, RFC 5681 3.2, RFC 6675 5, RFC 6298 5, RFC 2018 4
#[test]
fn every_stream_comes_through_or_ends_as_it_should() {
    let all = run_all(Simulation::draw, 3000);
    assert!(all.tail_probes > all.dialogues as u64 / 100 || all.dialogues < 1000, "{all:?}");
}

/// A SYN comes again behind our data and finds another socket of the peer's, which resets a dialogue that went well until
/// then. All else of these runs has to be right.
#[test]
fn a_second_socket_of_the_peer_s_may_reset_what_the_first_began() {
    for seed in [43_971, 50_353] {
        let outcome = run(Simulation::draw, seed).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        assert!(outcome.ends.contains(&Some(Why::ResetByPeer)) && outcome.finished > 0, "seed {seed}: {outcome:?}");
    }
}

/// Segments are changed on their way, with right checksums. Rule: RFC 5961 5.2, RFC 9293 3.10.7.4
#[test]
fn whoever_changes_segments_on_their_way_leaves_nothing_behind() {
    run_all(Simulation::draw_hostile, 2000);
}

#[test]
fn a_seed_is_all_there_is_to_a_run() {
    for seed in 1..40 {
        assert_eq!(run(Simulation::draw, seed), run(Simulation::draw, seed), "seed {seed}");
    }
}
