//! From a plan and what the person in charge said to the policy that link enforces.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use irl_link::{DenyFile, OptOutFile, Policy, PolicyRefusal, PolicySettings, Rate, Targets};
use irl_targets::{CompiledPlan, Family, Plan, PrefixSet};
use pyo3::prelude::*;

use crate::errors::{Error, Result};

/// The fields of `irlstack.Policy`.
#[derive(FromPyObject)]
pub(crate) struct PolicyLike {
    contact: Option<String>,
    authorized: Option<String>,
    blocklist_file: Option<PathBuf>,
    rate: Option<f64>,
    prefix_budget: Option<f64>,
    opted_out: Option<OptOutLike>,
}

/// The fields of `irlstack.optout.OptOut`.
#[derive(FromPyObject)]
pub(crate) struct OptOutLike {
    path: PathBuf,
    sha256: String,
    /// The file's text, less what has expired.
    text: Vec<u8>,
    lines_held: u64,
    lines_expired: u64,
}

impl OptOutLike {
    /// Whom it denies.
    pub(crate) fn sets(&self) -> Result<[PrefixSet; 2]> {
        Ok(PrefixSet::both_from_file_bytes(&self.path, &self.text)?.into())
    }

    /// What metadata tell of it, which was read just now.
    pub(crate) fn file(&self) -> OptOutFile {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        OptOutFile {
            name: self.path.display().to_string(),
            sha256: self.sha256.clone(),
            lines: self.lines_held,
            expired: self.lines_expired,
            read_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

impl PolicyLike {
    pub(crate) fn rate(&self) -> Rate {
        match self.rate {
            None => Rate::Default,
            Some(0.0) => Rate::Unlimited,
            Some(rate) => Rate::PerSecond(rate),
        }
    }

    /// Adds what was said to what the network knows.
    fn fill(&self, settings: &mut PolicySettings) -> Result<()> {
        settings.rate = self.rate();
        settings.contact.clone_from(&self.contact);
        settings.authorized.clone_from(&self.authorized);
        if let Some(path) = &self.blocklist_file {
            let (v4, v6) = PrefixSet::both_from_file(path)?;
            settings.deny_file = Some(DenyFile { name: path.display().to_string() });
            settings.deny.extend([v4, v6]);
        }
        settings.prefix_budget = self.prefix_budget;
        if let Some(optout) = &self.opted_out {
            settings.deny.extend(optout.sets()?);
            settings.optout = Some(optout.file());
        }
        Ok(())
    }

    /// The policy of frames that somebody else builds.
    pub(crate) fn for_frames(&self, mut settings: PolicySettings) -> Result<Policy> {
        self.fill(&mut settings)?;
        Ok(settings.authorise(Targets::Frames)?)
    }

    /// The settings of a plan's run: the plan's own contact, rate and blocklists come first.
    pub(crate) fn for_plan(&self, plan: &Plan, mut settings: PolicySettings) -> Result<PolicySettings> {
        self.fill(&mut settings)?;
        match plan.rate {
            Some(0) => settings.rate = Rate::Unlimited,
            Some(rate) => settings.rate = Rate::PerSecond(rate as f64),
            None => {}
        }
        if plan.contact.is_some() {
            settings.contact.clone_from(&plan.contact);
        }
        if let Some(file) = plan.blocklist.first() {
            settings.deny_file = Some(DenyFile { name: file.path.display().to_string() });
            settings.deny.push(plan.denied()?);
        }
        Ok(settings)
    }
}

/// Compiles the policy of a run.
pub(crate) fn authorise(settings: &PolicySettings, plan: &Plan, compiled: &CompiledPlan) -> Result<Arc<Policy>> {
    let policy = match compiled.targets().addresses() {
        Some(_) => settings.authorise(Targets::Items(&items(plan)?))?,
        None => settings.authorise(Targets::Addresses(&listed(plan, compiled)))?,
    };
    Ok(Arc::new(policy))
}

/// Refuses targets that lack a permission before anything is opened: whoever lacks a permission and a privilege hears
/// of the permission, and no frame looks for conflicting addresses first. `opens`: whether an interface of this machine
/// would be opened.
pub(crate) fn refuse_early(said: &PolicyLike, plan: &Plan, compiled: &CompiledPlan, opens: bool) -> Result<()> {
    let source = match plan.family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    let settings = said.for_plan(plan, PolicySettings { sources: vec![source], ..PolicySettings::default() })?;
    match authorise(&settings, plan, compiled) {
        Err(Error::Refused(refusal @ PolicyRefusal::Global { .. })) => Err(refusal.into()),
        Err(Error::Refused(refusal @ PolicyRefusal::Special { .. })) if opens && !in_a_lab() => Err(refusal.into()),
        // The rest depends on where the frames would go.
        Ok(_) | Err(Error::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the calling thread is in a namespace of a lab.
fn in_a_lab() -> bool {
    #[cfg(target_os = "linux")]
    return irl_link::netdev::Namespace::current()
        .is_ok_and(|here| irl_link::policy::lab_of_namespace(here.inode()).is_some());
    #[cfg(not(target_os = "linux"))]
    return false;
}

/// The prefixes and ranges of a plan as they were named, a set each.
fn items(plan: &Plan) -> Result<Vec<PrefixSet>> {
    let mut items = Vec::new();
    for text in &plan.targets {
        items.push(PrefixSet::parse_items([text.as_str()])?);
    }
    for file in &plan.allowlist {
        let text = fs::read_to_string(&file.path).map_err(|error| Error::Python(error.into()))?;
        for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
            if !line.is_empty() {
                items.push(PrefixSet::parse_items([line])?);
            }
        }
    }
    Ok(items)
}

/// The addresses of a list.
fn listed(plan: &Plan, compiled: &CompiledPlan) -> PrefixSet {
    let targets = compiled.targets();
    // A list holds fewer than 2^32 entries, so the indices fit.
    let ranges = (0..targets.len()).map(|index| targets.get(index).address).map(|address| (address, address));
    PrefixSet::from_ranges(plan.family, ranges.collect())
}
