//! Checkpoint files, for `irlstack.checkpoint`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use irl_measure::checkpoint::{Checkpoint, Saved};
use irl_targets::Plan;
use pyo3::prelude::*;
use serde_json::Value;

use crate::errors::{Error, Result};
use crate::numbers::seconds;
use crate::plan::PyPlan;
use crate::run::json;

/// The checkpoint file of one run: a new one, or one that is gone on with.
#[pyclass(frozen, module = "irlstack._core", name = "RawCheckpoint")]
pub(crate) struct PyCheckpoint {
    every: Duration,
    /// Until the run is recorded.
    created: Mutex<Option<Checkpoint>>,
    pub(crate) saved: Option<Arc<Saved>>,
    path: PathBuf,
}

impl PyCheckpoint {
    /// What the run's recorder writes to.
    pub(crate) fn take(&self) -> Result<Checkpoint> {
        if let Some(saved) = &self.saved {
            return Ok(Checkpoint::resume(saved, self.every)?);
        }
        let created = self.created.lock().unwrap_or_else(PoisonError::into_inner).take();
        created.ok_or_else(|| Error::config("A checkpoint is of one run."))
    }

    fn saved(&self) -> Result<&Saved> {
        self.saved.as_deref().ok_or_else(|| Error::config("This checkpoint was not read from a file."))
    }
}

#[pymethods]
impl PyCheckpoint {
    /// A new file for a run of this plan and shard, readable by its owner only: it holds the plan's key. `header` is a
    /// JSON object with what else the run is told.
    #[new]
    fn new(path: PathBuf, plan: &PyPlan, shard: u32, header: &str, every: f64) -> Result<Self> {
        if plan.is_kept() {
            return Err(Error::config(
                "Targets that were read from standard input cannot be read again: save them as a file and name that, \
                 or scan without a checkpoint.",
            ));
        }
        let mut header: Value =
            serde_json::from_str(header).map_err(|error| Error::config(format!("The header is no JSON: {error}.")))?;
        header["plan_fingerprint"] = plan.plan.fingerprint()?.into();
        header["shard"] = shard.into();
        header["plan"] = plan.plan.to_toml().into();
        let every = seconds("checkpoint_interval", every)?;
        let created = Mutex::new(Some(Checkpoint::create(&path, &header, every)?));
        Ok(Self { every, created, saved: None, path })
    }

    /// Reads one to go on with.
    #[staticmethod]
    fn load(path: PathBuf, every: f64) -> Result<Self> {
        let saved = Some(Arc::new(Saved::load(&path)?));
        Ok(Self { every: seconds("checkpoint_interval", every)?, created: Mutex::default(), saved, path })
    }

    /// What the run was told, as JSON.
    fn header(&self) -> Result<String> {
        json(self.saved()?.header())
    }

    /// Its plan, whose files are looked for beside the checkpoint too.
    fn plan(&self) -> Result<PyPlan> {
        let saved = self.saved()?;
        let text = saved.header()["plan"].as_str().unwrap_or_default();
        let plan = Plan::from_toml(text)?;
        Ok(PyPlan::from_plan(match saved.path().parent() {
            Some(folder) => plan.beside(folder),
            None => plan,
        }))
    }

    /// Takes a new file away again, because its run did not begin.
    fn discard(&self) {
        if self.created.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            // It says nothing yet.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
