//! What a scan and an exchange are told alike: how a plan is carried out on opened networks.

use std::path::PathBuf;
use std::sync::Arc;

use irl_link::{Network, PolicySettings, Rate};
use irl_measure::{CaptureSample, ScanConfig, ScanRate};
use pyo3::prelude::*;

use crate::errors::{Error, Result};
use crate::keywords::Keywords;
use crate::numbers::{bounded, seconds};
use crate::plan::PyPlan;
use crate::policy::{self, PolicyLike};

/// Who writes captures.
pub(crate) const PROGRAM: &str = concat!("irlstack ", env!("CARGO_PKG_VERSION"));

/// What is so unless it is told.
pub(crate) struct Defaults {
    pub(crate) reprobe: i128,
    pub(crate) max_memory: u64,
}

/// The configuration of a run of this plan on these networks within the policy, by the keywords that `irlstack.request`
/// documents as `RunKeywords`.
///
/// # Errors
/// A keyword that is of a wrong type or out of its bounds, targets that the policy refuses, a shard that is none.
pub(crate) fn config(
    py: Python<'_>,
    networks: &[Arc<dyn Network>],
    plan: &PyPlan,
    policy: &PolicyLike,
    told: &Keywords<'_>,
    defaults: Defaults,
) -> Result<ScanConfig> {
    let workers = told.optional("sender_threads")?.unwrap_or(networks.len() as u16);
    if workers == 0 {
        return Err(Error::config("A run needs at least one sender thread (--sender-threads 1)."));
    }
    let compiled = plan.compiled(py, told.or("shard", 0)?)?;
    let known = networks.iter().map(|network| network.policy_settings()).reduce(PolicySettings::beside);
    let settings = policy.for_plan(&plan.plan, known.unwrap_or_default())?;
    let judged = policy::authorise(&settings, &plan.plan, &compiled)?;
    let deny_counts = plan.plan.denied_by_file()?.iter().map(irl_targets::PrefixSet::count).collect();
    let sources = match plan.plan.sources.as_slice() {
        [] => {
            let family = plan.plan.family;
            let all = networks.iter().flat_map(|network| network.sources());
            all.filter(|source| irl_targets::Family::of(*source) == family).collect()
        }
        given => given.to_vec(),
    };
    let rate = match settings.rate {
        Rate::Unlimited => ScanRate::Search,
        bounded => ScanRate::PerSecond(bounded.per_second().unwrap_or_default()),
    };
    let size = told.or("capture_sample_size", 1000)?;
    let sample = |path: PathBuf| CaptureSample { path, size, program: PROGRAM.to_owned() };
    Ok(ScanConfig {
        workers,
        deny_counts,
        cores: told.or("cores", Vec::new())?,
        reprobe: bounded("reprobe", Some(told.or("reprobe", defaults.reprobe)?))?.unwrap_or_default(),
        cooldown: seconds("cooldown_time", told.or("cooldown_time", 8.0)?)?,
        max_runtime: told.optional("max_runtime")?.map(|value| seconds("max_runtime", value)).transpose()?,
        max_results: told.optional("max_results")?,
        min_hitrate: told.or("min_hitrate", 0.0)?,
        retries: told.or("retries", 10)?,
        max_sendto_failures: told.optional("max_sendto_failures")?,
        max_memory: told.or("max_memory", defaults.max_memory)?,
        queue: told.or("queue", 32)?,
        capture_sample: told.optional("capture_sample")?.map(sample),
        ..ScanConfig::new(plan.plan.clone(), compiled, judged, sources, rate)
    })
}
