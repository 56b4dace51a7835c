//! Counters of a run: written by each worker on its own, read by anybody at any time, and balanced (decision 9).

use std::sync::atomic::{AtomicU64, Ordering};

use irl_link::{ClassCounters, DeviceCounters, GateCounters};
use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// One worker's counters. Only that worker writes them.
        #[derive(Debug, Default)]
        pub(crate) struct WorkerCounters { $($(#[$doc])* pub(crate) $name: AtomicU64,)+ }

        impl WorkerCounters {
            fn add_to(&self, stats: &mut Stats) { $(stats.$name += self.$name.load(Ordering::Relaxed);)+ }
        }

        impl Stats {
            /// Adds another's counts, and no times.
            pub(crate) fn add(&mut self, other: &Self) { $(self.$name += other.$name;)+ }
        }

        /// A run's counters so far, over all workers.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)+
            /// Records that were lost because a worker did not drain its ring in time.
            pub overruns: u64,
            /// Seconds since the run began.
            pub elapsed_s: f64,
            /// Frames a second asked for; 0 while searching for the fastest.
            pub rate: f64,
            /// Probes this shard sends when nothing ends it early; with later passes an estimate, from how many have
            /// answered so far.
            pub probes_planned: u64,
            /// Whether probes are still being sent.
            pub sending: bool,
            /// Which pass over the targets this is, from 0.
            pub pass: u16,
            /// How many there are when nothing ends the run early.
            pub passes: u32,
        }
    };
}

counters! {
    /// Targets taken from the plan.
    targets,
    /// Targets taken again in later passes because they were silent, each in every pass anew.
    reprobed,
    /// Probes built.
    probes_built,
    /// Of them, refused by the policy.
    probes_refused_by_policy,
    /// Of them, given up because the device was gone or the run was stopped.
    probes_refused_by_device,
    /// Of them, taken by the device.
    probes_sent,
    /// Our RSTs, built.
    resets_built,
    /// Of them, refused by the policy.
    resets_refused_by_policy,
    /// Of them, given up.
    resets_refused_by_device,
    /// Of them, taken by the device.
    resets_sent,
    /// RSTs owed that could not be built: too many waited, the way was not known any more, or the answer had crossed.
    resets_skipped,
    /// Segments of our connections, built.
    segments_built,
    /// Of them, refused by the policy.
    segments_refused_by_policy,
    /// Of them, given up.
    segments_refused_by_device,
    /// Of them, taken by the device.
    segments_sent,
    /// Segments that were due and not built: the way was not known any more, or the run was stopped.
    segments_skipped,
    /// ARP and ND frames of ours, built.
    neighbour_built,
    /// Of them, held back by the bound on their rate.
    neighbour_refused_by_policy,
    /// Of them, given up.
    neighbour_refused_by_device,
    /// Of them, taken by the device.
    neighbour_sent,
    /// How often the device said that it is full; nothing is lost by it.
    device_full,
    /// Frames of any class, counted as sent, that the device refused too late to be offered again.
    device_lost,
    /// How often it said so `retries` times in a row without taking a frame.
    sendto_failures,
    /// On-link targets that nobody resolved, and that were not probed for it; each in every pass anew.
    unresolved,
    /// Targets taken whose last probe was not built: the run ended before.
    unprobed,
    /// How often a target had to wait because its prefix had had its share (`--prefix-budget`, `--max-per-prefix`).
    held,
    /// Targets taken that wait at present: for that, or for their neighbour's MAC.
    waiting,
    /// Found targets that were probed again at the end (`--recheck`).
    recheck_found_probed,
    /// Those of them that answered again.
    recheck_found_again,
    /// Targets that had not been found and were probed again then.
    recheck_others_probed,
    /// Those of them that were found.
    recheck_others_found,
    /// Records received.
    received,
    /// Records that became rows.
    rows,
    /// Answers that were not selected as rows, repeats aside.
    unselected,
    /// Further answers of a target that had answered, not selected as rows.
    repeats,
    /// Records that are no answer to this run.
    not_ours,
    /// Records whose checksum or content is wrong.
    invalid,
    /// ARP and ND records, handled.
    neighbours,
    /// Fragments, which no probe expects.
    fragments,
    /// First successes: distinct targets found.
    found,
    /// Answers that came in by another interface than the one their probe left by.
    crossed,
    /// All successes, repeats included.
    successes,
    /// Distinct targets that answered in any way.
    answered,
    /// Successes after the last probe.
    cooldown_successes,
    /// Of them, first ones.
    cooldown_found,
    /// How often full row queues paused the sender.
    pauses,
    /// Records that were segments of connections, or opened one, or belonged to none any more.
    segments_received,
    /// Records that were ICMP errors about connections.
    errors_received,
    /// Connections opened.
    connections_opened,
    /// Of them, reset by us.
    connections_reset,
    /// Of them, finished by both sides.
    connections_finished,
    /// Of them, reset by the peer.
    connections_reset_by_peer,
    /// Of them, given up because the peer fell silent.
    connections_timed_out,
    /// Of them, ended by an ICMP error.
    connections_unreachable,
    /// Of them, reset because the run was stopped.
    connections_aborted,
    /// Targets that refused a connection by a RST, or about whose SYN an ICMP error came.
    refused,
    /// Targets that were silent to the end, where they become rows.
    silent,
    /// Exchanges that ended as asked.
    exchanged,
    /// SYN-ACKs turned away for the time being because their prefix had as many connections as it may.
    turned_away,
    /// SYN-ACKs that found as many connections as there may be; the peer sends them again.
    table_full,
    /// Bytes that came in order.
    bytes_received,
    /// Segments of ours that were sent again.
    retransmits,
    /// Segments that came out of order.
    out_of_order,
    /// Of them, dropped for want of memory, to be sent again by the peer.
    out_of_order_dropped,
    /// Times that SYNs paused for the bound on memory.
    memory_pauses,
    /// Times that they paused for the bound on connections.
    connection_pauses,
}

impl WorkerCounters {
    /// Adds to a counter that only the calling worker writes.
    #[inline]
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        // One writer: a plain load and store is enough and costs no locked instruction.
        counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }

    /// Connections that are over.
    pub(crate) fn connections_closed(&self) -> u64 {
        [
            &self.connections_reset,
            &self.connections_finished,
            &self.connections_reset_by_peer,
            &self.connections_timed_out,
            &self.connections_unreachable,
            &self.connections_aborted,
        ]
        .map(|each| each.load(Ordering::Relaxed))
        .iter()
        .sum()
    }

    pub(crate) fn set_gate(&self, gate: &GateCounters) {
        let set = |built: &AtomicU64, policy: &AtomicU64, device: &AtomicU64, sent: &AtomicU64, of: &ClassCounters| {
            built.store(of.built, Ordering::Relaxed);
            policy.store(of.refused_by_policy(), Ordering::Relaxed);
            device.store(of.refused_by_device, Ordering::Relaxed);
            sent.store(of.sent, Ordering::Relaxed);
        };
        set(
            &self.probes_built,
            &self.probes_refused_by_policy,
            &self.probes_refused_by_device,
            &self.probes_sent,
            &gate.probes,
        );
        set(
            &self.resets_built,
            &self.resets_refused_by_policy,
            &self.resets_refused_by_device,
            &self.resets_sent,
            &gate.resets,
        );
        set(
            &self.segments_built,
            &self.segments_refused_by_policy,
            &self.segments_refused_by_device,
            &self.segments_sent,
            &gate.segments,
        );
        set(
            &self.neighbour_built,
            &self.neighbour_refused_by_policy,
            &self.neighbour_refused_by_device,
            &self.neighbour_sent,
            &gate.neighbour,
        );
        self.device_full.store(gate.device_full, Ordering::Relaxed);
        self.device_lost.store(gate.lost, Ordering::Relaxed);
    }
}

impl Stats {
    pub(crate) fn gather<'a>(workers: impl IntoIterator<Item = &'a WorkerCounters>) -> Self {
        let mut stats = Self::default();
        for worker in workers {
            worker.add_to(&mut stats);
        }
        stats
    }

    /// Lets go of what was under way: frames that were built and had not left, targets taken and not probed.
    pub(crate) fn settle(&mut self) {
        self.probes_built = self.probes_sent + self.probes_refused_by_policy + self.probes_refused_by_device;
        self.resets_built = self.resets_sent + self.resets_refused_by_policy + self.resets_refused_by_device;
        self.segments_built = self.segments_sent + self.segments_refused_by_policy + self.segments_refused_by_device;
        self.neighbour_built =
            self.neighbour_sent + self.neighbour_refused_by_policy + self.neighbour_refused_by_device;
        self.unprobed = 0;
    }

    /// Found targets over probes sent, in percent; 0 before the first probe.
    pub fn hit_rate(&self) -> f64 {
        if self.probes_sent == 0 { 0.0 } else { self.found as f64 * 100.0 / self.probes_sent as f64 }
    }

    /// Frames of every class that left.
    pub fn frames_sent(&self) -> u64 {
        (self.probes_sent + self.resets_sent + self.segments_sent + self.neighbour_sent)
            .saturating_sub(self.device_lost)
    }

    /// Connections that are over.
    pub fn connections_closed(&self) -> u64 {
        self.connections_reset
            + self.connections_finished
            + self.connections_reset_by_peer
            + self.connections_timed_out
            + self.connections_unreachable
            + self.connections_aborted
    }

    /// Checks the equations of conservation, for a run that has ended: what was built went somewhere, and what came
    /// was counted once. Returns the ones that do not hold, in words; empty when all do.
    ///
    /// With the device's counters before and after on an otherwise silent interface, what we say we sent must also be
    /// what the device says.
    pub fn imbalances(&self, device: Option<(DeviceCounters, DeviceCounters)>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut equal = |what: &str, left: u64, right: u64| {
            if left != right {
                wrong.push(format!("{what}: {left} is not {right}"));
            }
        };
        for (class, built, policy, refused, sent) in [
            (
                "probes",
                self.probes_built,
                self.probes_refused_by_policy,
                self.probes_refused_by_device,
                self.probes_sent,
            ),
            (
                "resets",
                self.resets_built,
                self.resets_refused_by_policy,
                self.resets_refused_by_device,
                self.resets_sent,
            ),
            (
                "segments",
                self.segments_built,
                self.segments_refused_by_policy,
                self.segments_refused_by_device,
                self.segments_sent,
            ),
            (
                "neighbour frames",
                self.neighbour_built,
                self.neighbour_refused_by_policy,
                self.neighbour_refused_by_device,
                self.neighbour_sent,
            ),
        ] {
            equal(
                &format!("{class} built = sent + refused by policy + refused by device"),
                built,
                sent + policy + refused,
            );
        }
        // A connection is one row, however many segments it takes.
        equal(
            "received + connections + silent = rows + repeats + not selected + not ours + invalid + neighbours + fragments + \
             segments + errors",
            self.received + self.connections_opened + self.silent,
            self.rows
                + self.repeats
                + self.unselected
                + self.not_ours
                + self.invalid
                + self.neighbours
                + self.fragments
                + self.segments_received
                + self.errors_received,
        );
        equal(
            "connections opened = reset + finished + reset by peer + timed out + unreachable + aborted",
            self.connections_opened,
            self.connections_closed(),
        );
        if let Some((before, after)) = device {
            equal("frames sent = the device's count", self.frames_sent(), after.tx_packets - before.tx_packets);
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balanced() -> Stats {
        Stats {
            probes_built: 10,
            probes_sent: 7,
            probes_refused_by_policy: 2,
            probes_refused_by_device: 1,
            resets_built: 3,
            resets_sent: 3,
            segments_built: 4,
            segments_sent: 4,
            connections_opened: 2,
            connections_reset: 1,
            connections_finished: 1,
            segments_received: 6,
            silent: 1,
            received: 12,
            rows: 3,
            repeats: 2,
            unselected: 1,
            not_ours: 1,
            invalid: 1,
            neighbours: 1,
            ..Stats::default()
        }
    }

    #[test]
    fn a_run_that_balances_has_no_imbalance() {
        let device = |tx_packets| DeviceCounters { tx_packets, ..DeviceCounters::default() };
        assert_eq!(balanced().imbalances(None), Vec::<String>::new());
        assert_eq!(balanced().imbalances(Some((device(100), device(114)))), Vec::<String>::new());
        let wrong = balanced().imbalances(Some((device(100), device(115))));
        assert_eq!(wrong, ["frames sent = the device's count: 14 is not 15"]);
    }

    #[test]
    fn each_equation_that_fails_is_named() {
        type Change = fn(&mut Stats);
        let changes: [(Change, &str); 6] = [
            (|stats| stats.probes_sent -= 1, "probes built"),
            (|stats| stats.resets_built += 1, "resets built"),
            (|stats| stats.segments_sent -= 1, "segments built"),
            (|stats| stats.neighbour_sent += 1, "neighbour frames built"),
            (|stats| stats.connections_reset += 1, "connections opened"),
            (|stats| stats.rows += 1, "received"),
        ];
        for (change, name) in changes {
            let mut stats = balanced();
            change(&mut stats);
            let wrong = stats.imbalances(None);
            assert!(wrong.len() == 1 && wrong[0].starts_with(name), "{wrong:?}");
        }
    }
}
