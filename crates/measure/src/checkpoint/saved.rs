//! A checkpoint that is read again.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::log::{Kind, Records, Unreadable};
use super::marks::Marks;
use super::{Commit, Place, Session};
use crate::error::MeasureError;
use crate::map::AnsweredMap;
use crate::output::Committed;
use crate::scan::ScanConfig;
use crate::stats::Stats;
use crate::status::Second;

/// What a checkpoint file says of a run up to its last commit.
#[derive(Debug)]
pub struct Saved {
    path: PathBuf,
    header: Value,
    sessions: Vec<Session>,
    /// Of all sessions, also those after the last commit: what was probed was probed.
    seconds: Vec<Second>,
    commit: Option<Commit>,
    /// Where the marks are that count.
    marks: Vec<u64>,
    /// Bytes that are whole records.
    whole: u64,
}

impl Saved {
    /// Reads a checkpoint file. What a crash left half at its end is passed over.
    ///
    /// # Errors
    /// [`MeasureError::Config`] when it is no checkpoint, one of another version, or of a run that is done;
    /// [`MeasureError::Input`].
    pub fn load(path: &Path) -> Result<Self, MeasureError> {
        let no = |what: &str| MeasureError::Config(format!("{} {what}", path.display()));
        let mut records = Records::open(path).map_err(|error| match error {
            Unreadable::Io(error) => MeasureError::input(path.display().to_string(), error),
            Unreadable::Other => no("is no checkpoint of irlstack"),
            Unreadable::Version(found) => no(&format!(
                "is a checkpoint of version {found}, and this program reads version 1: go on with the irlstack that wrote it"
            )),
        })?;
        let read = |error| MeasureError::input(path.display().to_string(), error);
        let Some((Kind::Header, header)) = records.next().map_err(read)? else {
            return Err(no("ends before it says what it is about: there is nothing to go on with"));
        };
        let mut saved = Self {
            path: path.to_owned(),
            header: parse(&header).ok_or_else(|| no("is damaged at its beginning"))?,
            sessions: Vec::new(),
            seconds: Vec::new(),
            commit: None,
            marks: Vec::new(),
            whole: records.position(),
        };
        // Marks count with the commit that follows them.
        let mut waiting = Vec::new();
        loop {
            let at = records.position();
            let Some((kind, content)) = records.next().map_err(read)? else { break };
            let damaged = || no("has a whole record that cannot be understood");
            match kind {
                Kind::Header => return Err(damaged()),
                Kind::Session => {
                    // What was not committed before it is of rows that are gone.
                    waiting.clear();
                    saved.sessions.push(parse(&content).ok_or_else(damaged)?);
                }
                Kind::Seconds => saved.seconds.extend(parse::<Vec<Second>>(&content).ok_or_else(damaged)?),
                Kind::Marks => waiting.push(at),
                Kind::Commit => {
                    saved.commit = Some(parse(&content).ok_or_else(damaged)?);
                    saved.marks.append(&mut waiting);
                }
                Kind::Finished => return Err(no("is of a run that is done: nothing is left to go on with")),
            }
            if kind != Kind::Marks {
                saved.whole = records.position();
            }
        }
        Ok(saved)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the run is, as it was said when it began.
    pub fn header(&self) -> &Value {
        &self.header
    }

    /// What is safe of the output of this number.
    pub fn output(&self, number: usize) -> Committed {
        self.commit.as_ref().and_then(|commit| commit.outputs.get(number)).cloned().unwrap_or_default()
    }

    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    /// The place in the plan from which it goes on.
    pub(crate) fn place(&self) -> Place {
        self.commit.as_ref().map(|commit| commit.place).unwrap_or_default()
    }

    pub(crate) fn commit(&self) -> Option<&Commit> {
        self.commit.as_ref()
    }

    pub(crate) fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    pub(crate) fn seconds(&self) -> &[Second] {
        &self.seconds
    }

    /// The counts that it goes on from.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.commit.as_ref().map(|commit| commit.stats.clone()).unwrap_or_default();
        // What left after the last commit has left, although nobody knows what came of it.
        let sent = self.seconds.iter().map(|second| second.sent).max().unwrap_or(0).max(stats.probes_sent);
        stats.probes_sent = sent;
        if self.place().pass == 0 {
            stats.targets = self.place().position;
        }
        stats.settle();
        stats
    }

    /// Refuses another run than the one that this is of.
    pub(crate) fn check(&self, config: &ScanConfig) -> Result<(), MeasureError> {
        let refuse = |what: String| Err(MeasureError::Config(format!("{}: {what}", self.path.display())));
        let (here, there) =
            (config.compiled.fingerprint(), self.header["plan_fingerprint"].as_str().unwrap_or_default());
        if here != there {
            return refuse(format!(
                "it is of the plan {there}, and this one is {here}: a run is gone on with by the plan that it began with"
            ));
        }
        if self.header["shard"].as_u64() != Some(u64::from(config.compiled.shard_number())) {
            return refuse("it is of another shard of the plan".to_owned());
        }
        if self.place().pass > config.reprobe + u16::from(config.recheck.is_some()) {
            return refuse(format!(
                "it is in pass {} of the plan, and --reprobe is {}",
                self.place().pass,
                config.reprobe
            ));
        }
        Ok(())
    }

    /// Marks in a map what was known of targets.
    ///
    /// # Errors
    /// [`MeasureError::Input`], and [`MeasureError::Config`] when the file has changed since it was loaded.
    pub(crate) fn restore(&self, map: &AnsweredMap, slots: u128) -> Result<(), MeasureError> {
        let read = |error| MeasureError::input(self.path.display().to_string(), error);
        let changed = || MeasureError::Config(format!("{} has changed meanwhile", self.path.display()));
        if self.marks.is_empty() {
            return Ok(());
        }
        let mut records = Records::open(&self.path).map_err(|_| changed())?;
        for at in &self.marks {
            records.seek(*at).map_err(read)?;
            let Some((Kind::Marks, content)) = records.next().map_err(read)? else { return Err(changed()) };
            let mut beyond = false;
            let marked = Marks::decode(&content, |slot, success| {
                // The map has a place for each slot of the plan and no other.
                match u128::from(slot) < slots {
                    true => drop(map.mark(slot, success)),
                    false => beyond = true,
                }
            });
            if marked.is_none() || beyond {
                return Err(changed());
            }
        }
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(content: &[u8]) -> Option<T> {
    serde_json::from_slice(content).ok()
}
