//! What a run says of itself every second: ZMap's line for people, ZMap's columns for programs.

use serde::{Deserialize, Serialize};

use crate::stats::Stats;

/// The header of the status-updates file; ZMap's columns.
pub const CSV_HEADER: &str = "real-time,time-elapsed,time-remaining,percent-complete,hit-rate,active-send-threads,\
    sent-total,sent-last-one-sec,sent-avg-per-sec,recv-success-total,recv-success-last-one-sec,\
    recv-success-avg-per-sec,recv-total,recv-total-last-one-sec,recv-total-avg-per-sec,\
    pcap-drop-total,drop-last-one-sec,drop-avg-per-sec,sendto-fail-total,sendto-fail-last-one-sec,\
    sendto-fail-avg-per-sec";

/// One second of a run, for metadata and for `irlstack when`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Seconds since the run began.
    pub elapsed_s: f64,
    /// Positions of the shard taken so far: those below it were probed by now, but for the last few.
    pub watermark: u64,
    /// Which pass over the targets was walked, from 0.
    pub pass: u16,
    /// Positions of the shard taken in it: of those below it, in a later pass, the silent ones were probed again.
    pub pass_watermark: u64,
    /// Probes the device took so far.
    pub sent: u64,
    /// Records received so far.
    pub received: u64,
    /// Targets found so far.
    pub found: u64,
    /// Records lost so far.
    pub lost: u64,
    /// Targets taken, whose position is below the watermark, that wait for their turn and are not probed yet; at the end, that never
    /// were.
    #[serde(default)]
    pub waiting: u64,
    /// Probes a second that were asked for then; 0 while searching for the fastest.
    #[serde(default)]
    pub rate: f64,
}

impl Second {
    pub(crate) fn new(stats: &Stats, watermark: u64, pass_watermark: u64) -> Self {
        Self {
            elapsed_s: stats.elapsed_s,
            watermark,
            pass: stats.pass,
            pass_watermark,
            sent: stats.probes_sent,
            received: stats.received,
            found: stats.found,
            lost: stats.overruns,
            waiting: stats.waiting + stats.unprobed,
            rate: stats.rate,
        }
    }
}

/// Follows a run second by second.
#[derive(Clone, Debug, Default)]
pub struct Status {
    last: Stats,
}

impl Status {
    /// A status that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a look, about once a second; returns the line for people and the line for programs.
    pub fn look(&mut self, stats: &Stats, workers: u16) -> (String, String) {
        let last = std::mem::replace(&mut self.last, stats.clone());
        let step = (stats.elapsed_s - last.elapsed_s).max(1e-9);
        let per_second = |now: u64, before: u64| (now - before) as f64 / step;
        let average = |count: u64| count as f64 / stats.elapsed_s.max(1e-9);
        let done = if stats.sending { stats.probes_sent as f64 / stats.probes_planned.max(1) as f64 } else { 1.0 };
        let left_s = if stats.sending && stats.probes_sent > 0 {
            (stats.probes_planned - stats.probes_sent.min(stats.probes_planned)) as f64 / average(stats.probes_sent)
        } else {
            0.0
        };
        let sent = per_second(stats.probes_sent, last.probes_sent);
        let found = per_second(stats.found, last.found);
        let received = per_second(stats.received, last.received);
        let lost = per_second(stats.overruns, last.overruns);
        let failed = per_second(stats.probes_refused_by_device, last.probes_refused_by_device);
        let pass = match stats.passes {
            0 | 1 => String::new(),
            passes => format!("pass {}/{passes}; ", u32::from(stats.pass) + 1),
        };
        let state = if stats.sending {
            format!(
                "({} left); {pass}send: {} {}p/s ({}p/s avg)",
                clock(left_s),
                stats.probes_sent,
                si(sent),
                si(average(stats.probes_sent))
            )
        } else {
            format!("{pass}send: {} done ({}p/s avg)", stats.probes_sent, si(average(stats.probes_sent)))
        };
        let line = format!(
            "{} {:.0}% {state}; recv: {} {}p/s ({}p/s avg); drops: {}p/s ({}p/s avg); hitrate: {:.2}%",
            clock(stats.elapsed_s),
            (done * 100.0).floor(),
            stats.found,
            si(found),
            si(average(stats.found)),
            si(lost),
            si(average(stats.overruns)),
            stats.hit_rate(),
        );
        let row = format!(
            "{},{:.0},{:.0},{:.6},{:.6},{},{},{:.0},{:.0},{},{:.0},{:.0},{},{:.0},{:.0},{},{:.0},{:.0},{},{:.0},{:.0}",
            chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()).format("%Y-%m-%d %H:%M:%S"),
            stats.elapsed_s,
            left_s,
            done * 100.0,
            stats.hit_rate(),
            if stats.sending { workers } else { 0 },
            stats.probes_sent,
            sent,
            average(stats.probes_sent),
            stats.found,
            found,
            average(stats.found),
            stats.received,
            received,
            average(stats.received),
            stats.overruns,
            lost,
            average(stats.overruns),
            stats.probes_refused_by_device,
            failed,
            average(stats.probes_refused_by_device),
        );
        (line, row)
    }
}

/// `m:ss`, or `h:mm:ss`.
fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{rest:02}") } else { format!("{minutes}:{rest:02}") }
}

/// Three figures and a prefix, as in ZMap's line.
fn si(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2} G", v / 1e9),
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e3 => format!("{:.1} K", v / 1e3),
        v => format!("{v:.0} "),
    }
}

/// When a position of a shard was probed, in seconds since the run began, to the second: `None` when it was not.
pub fn when(seconds: &[Second], position: u64) -> Option<f64> {
    let at = seconds.partition_point(|second| second.watermark <= position);
    seconds.get(at).map(|second| second.elapsed_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_value_for_each_column() {
        let mut status = Status::new();
        let stats = Stats {
            probes_sent: 500,
            probes_planned: 1000,
            found: 5,
            elapsed_s: 1.0,
            sending: true,
            ..Stats::default()
        };
        let (line, row) = status.look(&stats, 1);
        assert_eq!(row.split(',').count(), CSV_HEADER.split(',').count());
        assert!(line.starts_with("0:01 50% (0:01 left); send: 500 500 p/s (500 p/s avg)"), "{line}");
        assert!(line.ends_with("hitrate: 1.00%"), "{line}");
        let (line, _) = status.look(&Stats { pass: 1, passes: 3, elapsed_s: 2.0, ..stats }, 1);
        assert!(line.starts_with("0:02 50% (0:02 left); pass 2/3; send: 500 0 p/s"), "{line}");
    }

    #[test]
    fn finds_the_second_of_a_position() {
        let stats = |elapsed_s| Stats { elapsed_s, ..Stats::default() };
        let second = |elapsed_s, watermark| Second::new(&stats(elapsed_s), watermark, watermark);
        let seconds = [second(1.0, 100), second(2.0, 200), second(3.0, 200)];
        assert_eq!(when(&seconds, 0), Some(1.0));
        assert_eq!(when(&seconds, 99), Some(1.0));
        assert_eq!(when(&seconds, 100), Some(2.0));
        assert_eq!(when(&seconds, 200), None);
    }
}
