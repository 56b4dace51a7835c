//! Whatever comes in (`IRL_CASES=300000` tries more of it): nothing panics, nothing leaks, nothing is acknowledged that did not come, no window shrinks, and
//! nothing goes out that was not asked for.

mod support;

use proptest::prelude::*;
use support::wild::Scene;

proptest! {
    #![proptest_config(ProptestConfig { cases: support::asked("IRL_CASES", 3000) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rule: RFC 9293 3.10.7, RFC 5961 5.2, RFC 9293 SHLD-14
    #[test]
    fn no_sequence_of_segments_breaks_a_table(seed: u64, steps in prop::collection::vec(any::<[u32; 6]>(), 1..80)) {
        let mut scene = Scene::new(seed);
        for step in steps {
            scene.step(step);
        }
        let outcome = scene.end();
        prop_assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::asked("IRL_CASES", 1000) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rule: RFC 2018 4, RFC 2883 4, RFC 9293 3.10.7.4
    #[test]
    fn pieces_in_any_order_become_the_stream(pieces in prop::collection::vec(any::<(u16, u16)>(), 0..60)) {
        let outcome = support::pieces::take_in(&pieces);
        prop_assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    }
}

/// The first property would hold of a table that does nothing, too.
#[test]
fn scenes_come_to_something() {
    let mut random = support::random::Random(1);
    let mut sum = irl_tcp::Counters::default();
    for seed in 0..300 {
        let mut scene = Scene::new(seed);
        for _ in 0..80 {
            scene.step(std::array::from_fn(|_| random.next() as u32));
        }
        let counters = scene.machine.clients.counters();
        sum.opened += counters.opened;
        sum.finished += counters.finished;
        sum.reset_by_peer += counters.reset_by_peer;
        sum.timed_out += counters.timed_out;
        sum.unreachable += counters.unreachable;
        sum.bytes_received += counters.bytes_received;
        sum.out_of_order += counters.out_of_order;
        sum.out_of_order_dropped += counters.out_of_order_dropped;
        sum.retransmits += counters.retransmits;
        sum.window_probes += counters.window_probes;
        sum.challenged += counters.challenged;
        sum.old_timestamps += counters.old_timestamps;
        assert!(scene.end().is_ok(), "seed {seed}");
    }
    let parts = [
        sum.opened,
        sum.finished,
        sum.reset_by_peer,
        sum.timed_out,
        sum.unreachable,
        sum.bytes_received,
        sum.out_of_order,
        sum.out_of_order_dropped,
        sum.retransmits,
        sum.window_probes,
        sum.challenged,
        sum.old_timestamps,
    ];
    assert!(parts.iter().all(|part| *part > 10), "{sum:?}");
}
