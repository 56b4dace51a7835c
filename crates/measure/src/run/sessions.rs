//! When what happened in a run, over all its sessions, and what of it a checkpoint has to hold.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::Run;
use crate::checkpoint::{Commit, Marks, Session};
use crate::output::Committed;
use crate::status::Second;

/// One session of a run, for metadata.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionReport {
    /// When it began, UTC.
    pub start_time: String,
    /// The same, in seconds since the run began.
    pub start_s: f64,
    /// Until when it is known where it was.
    pub end_s: f64,
    /// The pass that it went on in.
    pub pass: u16,
    /// The position of that pass from which it went on.
    pub position: u64,
    /// Probes that the device took in it.
    pub sent: u64,
}

/// When things happened, UTC in ns; 0 for what has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The run began.
    pub start: i64,
    /// The first probe was handed to the device.
    pub first_frame: i64,
    /// The last one.
    pub last_frame: i64,
    /// The run ended.
    pub end: i64,
}

impl Run {
    /// Where the run was after each second, and at its end.
    pub fn seconds(&self) -> Vec<Second> {
        let mut seconds = self.shared.behind.seconds.clone();
        seconds.extend(self.seconds_of_session(0));
        seconds
    }

    /// The same of this session, but for so many that are known.
    pub(crate) fn seconds_of_session(&self, known: usize) -> Vec<Second> {
        let seconds = self.shared.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seconds = seconds.get(known..).unwrap_or_default().to_vec();
        for second in &mut seconds {
            // Workers take whole blocks, so that the last one may reach beyond the end.
            second.watermark = second.watermark.min(self.config.compiled.len());
            second.pass_watermark = second.pass_watermark.min(self.config.compiled.len());
        }
        seconds
    }

    /// How this session of the run began.
    pub(crate) fn session(&self) -> Session {
        Session {
            start_utc_ns: self.shared.started_utc_ns,
            start_s: self.shared.behind.offset_s,
            place: self.config.resume.as_ref().map(|saved| saved.place()).unwrap_or_default(),
            before: self.shared.behind.stats.clone(),
        }
    }

    /// The sessions of the run: one, unless it was gone on with.
    pub fn sessions(&self) -> Vec<SessionReport> {
        let mut sessions = self.shared.behind.sessions.clone();
        sessions.push(self.session());
        let seconds = self.seconds();
        let report = |(number, session): (usize, &Session)| {
            let next_s = sessions.get(number + 1).map_or(f64::INFINITY, |next| next.start_s);
            let last = seconds.iter().rfind(|second| session.start_s < second.elapsed_s && second.elapsed_s <= next_s);
            SessionReport {
                start_time: chrono::DateTime::from_timestamp_nanos(session.start_utc_ns)
                    .to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
                start_s: session.start_s,
                end_s: last.map_or(session.start_s, |last| last.elapsed_s),
                pass: session.place.pass,
                position: session.place.position,
                sent: last.map_or(0, |last| last.sent.saturating_sub(session.before.probes_sent)),
            }
        };
        sessions.iter().enumerate().map(report).collect()
    }

    /// What holds together with the rows that were handed over, and with the outputs that have them; `None` where nothing
    /// was asked for. After the `end` of a run that nobody cut short nothing more is waited for.
    pub(crate) fn commit(&self, outputs: Vec<Committed>, end: bool) -> Option<(Commit, Marks)> {
        let mut delivered = self.delivered.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let wait_ns = self.config.cooldown.as_nanos() as u64;
        let place = if end { delivered.all_done() } else { delivered.done(wait_ns) };
        let (now, mut stats) = (self.shared.stats(), self.shared.behind.stats.clone());
        stats.add(&delivered.stats());
        (stats.elapsed_s, stats.overruns) = (now.elapsed_s, now.overruns);
        let times = self.times();
        let commit = Commit {
            place,
            outputs,
            stats,
            passes: self.shared.passes.begun(self.shared.started_ns),
            send_s: self.send_s(),
            first_frame_utc_ns: times.first_frame,
        };
        Some((commit, delivered.take_marks()))
    }

    /// Seconds from the first probe to the last, in each session.
    pub(crate) fn send_s(&self) -> f64 {
        let ns = |at: &AtomicU64| at.load(Ordering::Acquire);
        let session = ns(&self.shared.last_frame_ns).saturating_sub(ns(&self.shared.first_frame_ns));
        self.shared.behind.send_s + session as f64 / 1e9
    }

    /// Start of the run, and first and last probe: UTC in ns; 0 for what has not happened.
    pub fn times(&self) -> Times {
        let utc = |ns: &AtomicU64| match ns.load(Ordering::Acquire) {
            0 => 0,
            ns => self.shared.started_utc_ns + ns.saturating_sub(self.shared.started_ns) as i64,
        };
        let behind = &self.shared.behind;
        Times {
            start: behind.sessions.first().map_or(self.shared.started_utc_ns, |first| first.start_utc_ns),
            first_frame: match behind.first_frame_utc_ns {
                0 => utc(&self.shared.first_frame_ns),
                earlier => earlier,
            },
            last_frame: utc(&self.shared.last_frame_ns),
            end: utc(&self.shared.ended_ns),
        }
    }
}
