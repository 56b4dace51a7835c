//! Plans: everything that fixes a run on any machine, as a value, a TOML file and a fingerprint.

mod builder;
mod compiled;
mod files;
mod fingerprint;
mod resolve;
mod secret;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use builder::PlanBuilder;
pub use compiled::CompiledPlan;
pub use files::FileRef;
pub use secret::SecretKey;
pub use text::SourcePorts;

use crate::error::{Result, TargetsError};
use crate::family::{Family, address_bits};
use crate::hex;
use crate::permutation;
use crate::ports::PortSet;
use crate::prefix::PrefixSet;
use crate::registry;
use crate::target_set::Target;

/// The version of the TOML form.
pub const PLAN_VERSION: u32 = 1;
/// The version of the cookie a plan is made for; `irl-wire` computes it and tests that the numbers agree.
pub const COOKIE_VERSION: u32 = 1;

/// Everything that fixes a run on any machine.
///
/// The fields are those of the TOML form, in its order. [`Plan::builder`] fills in what is not said and checks it;
/// after changing a field by hand call [`Plan::validate`] (compiling and saving do).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The address family of all targets and sources.
    pub family: Family,
    /// Prefixes, addresses and ranges to probe, as given; with the files of `allowlist` they make up the targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Ports of every address; [`PortSet::none`] for probes without.
    #[serde(with = "text::display")]
    pub ports: PortSet,
    /// Fixes the order; public.
    #[serde(with = "text::number")]
    pub seed: u64,
    /// How the order is made from the seed.
    #[serde(default)]
    pub order: Order,
    /// At most so many targets in all shards together: the first of the order.
    #[serde(default, with = "text::optional_number", skip_serializing_if = "Option::is_none")]
    pub max_targets: Option<u64>,
    /// Probes a target, one after the other.
    #[serde(default = "one_probe")]
    pub probes: u16,
    /// Shard i of n has the positions congruent to i modulo n.
    #[serde(default = "one_shard")]
    pub shards: u32,
    /// Addresses the probes come from; none = the machine's own, chosen by its route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<IpAddr>,
    /// Ports the probes come from.
    #[serde(default, with = "text::display")]
    pub source_ports: SourcePorts,
    /// Time to live, or hop limit.
    #[serde(default = "default_ttl")]
    pub ttl: u8,
    /// Probes a second; 0 = as fast as our own loss allows; `None` = the default. May differ from run to run.
    #[serde(default, with = "text::optional_number", skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Whom to write to about this measurement. May differ from run to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// The cookie's key. Whoever has it can forge answers, so plan files are readable by their owner only.
    pub secret: SecretKey,
    /// Versions of what gives the plan its meaning.
    pub versions: Versions,
    /// What is sent.
    pub probe: ProbeSpec,
    /// A target list; then there are no `targets` and no `allowlist`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<FileRef>,
    /// Files of prefixes to probe (ZMap's allowlist format).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowlist: Vec<FileRef>,
    /// Files of prefixes never to probe (ZMap's blocklist format).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocklist: Vec<FileRef>,
    /// Where the plan was loaded from: its files are looked for there too.
    #[serde(skip)]
    pub(crate) directory: Option<PathBuf>,
}

/// How the order of the targets is made from the seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Order {
    /// A keyed permutation; any prefix of the order is an equal-probability sample.
    #[default]
    Random,
    /// A golden-angle order: no network is probed twice within a third of its share of the run ([`Spread`]); a list
    /// is sorted by address for it.
    ///
    /// [`Spread`]: crate::Spread
    Spread,
}

/// A probe by name and arguments; `measure` resolves it to frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeSpec {
    /// For example `tcp_synscan`.
    pub name: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
}

/// Versions of what gives a plan its meaning; a program of other versions refuses the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// The TOML form.
    pub plan: u32,
    /// The order of the targets.
    pub permutation: u32,
    /// The cookie.
    pub cookie: u32,
    /// The snapshot date of IANA's registries.
    pub registry: String,
}

impl FromStr for Order {
    type Err = TargetsError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "random" => Ok(Self::Random),
            "spread" => Ok(Self::Spread),
            _ => Err(TargetsError::value("order", format!("{text:?}"), "an order is random or spread")),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random",
            Self::Spread => "spread",
        })
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self {
            plan: PLAN_VERSION,
            permutation: permutation::VERSION,
            cookie: COOKIE_VERSION,
            registry: registry::SNAPSHOT_DATE.to_owned(),
        }
    }
}

impl Default for ProbeSpec {
    fn default() -> Self {
        Self { name: "tcp_synscan".to_owned(), args: BTreeMap::new() }
    }
}

fn one_probe() -> u16 {
    1
}

fn one_shard() -> u32 {
    1
}

fn default_ttl() -> u8 {
    255
}

impl Plan {
    /// Starts a plan.
    pub fn builder() -> PlanBuilder {
        PlanBuilder::default()
    }

    /// Checks every field that can be checked without reading the files.
    ///
    /// # Errors
    /// What is wrong, as a full sentence.
    pub fn validate(&self) -> Result<()> {
        self.check_versions()?;
        if self.list.is_some() && !(self.targets.is_empty() && self.allowlist.is_empty()) {
            let list = self.list.as_ref().map_or(Path::new(""), |list| &list.path);
            let reason = "a plan has a target list, or prefixes, but not both";
            return Err(TargetsError::value("list", list.display(), reason));
        }
        if !self.targets.is_empty() {
            let set = PrefixSet::parse_items(self.targets.iter().map(String::as_str))?;
            if set.family() != self.family {
                return Err(TargetsError::value("family", self.family, "the targets are of the other family"));
            }
        }
        if let Some(source) = self.sources.iter().find(|&&source| Family::of(source) != self.family) {
            let reason = format!("the targets are {}, so the source addresses must be too", self.family);
            return Err(TargetsError::value("sources", source, reason));
        }
        if let Some(source) =
            self.sources.iter().find(|&&source| registry::never(self.family).contains(address_bits(source)))
        {
            return Err(TargetsError::value("sources", source, "it is not an address that frames can come from"));
        }
        for (name, zero) in [("probes", self.probes == 0), ("shards", self.shards == 0), ("ttl", self.ttl == 0)] {
            if zero {
                return Err(TargetsError::value(name, 0, "it is at least 1"));
            }
        }
        if self.max_targets == Some(0) {
            return Err(TargetsError::value("max_targets", 0, "it is at least 1; leave it out for all targets"));
        }
        if self.probe.name.is_empty() {
            return Err(TargetsError::value("probe.name", "\"\"", "name a probe, for example tcp_synscan"));
        }
        Ok(())
    }

    fn check_versions(&self) -> Result<()> {
        let here = Versions::default();
        let numbers = [
            ("plan", self.versions.plan, here.plan),
            ("permutation", self.versions.permutation, here.permutation),
            ("cookie", self.versions.cookie, here.cookie),
        ];
        for (what, found, expected) in numbers {
            if found != expected {
                return Err(TargetsError::Version { what, found: found.to_string(), expected: expected.to_string() });
            }
        }
        if self.versions.registry != here.registry {
            let found = self.versions.registry.clone();
            return Err(TargetsError::Version { what: "registry", found, expected: here.registry });
        }
        Ok(())
    }

    /// Reads the TOML form.
    ///
    /// # Errors
    /// [`TargetsError::Toml`] with line and column, [`TargetsError::Version`], or what [`Plan::validate`] says.
    pub fn from_toml(text: &str) -> Result<Self> {
        let plan: Self =
            toml::from_str(text).map_err(|error| TargetsError::Toml(error.to_string().trim().to_owned()))?;
        plan.validate()?;
        Ok(plan)
    }

    /// Writes the TOML form: always the same text for the same plan. It holds the secret key.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every field of a plan has a TOML form, which a test writes")
    }

    /// Reads a plan file. Files that the plan names are looked for at their path and beside the plan file.
    ///
    /// # Errors
    /// [`TargetsError::Io`] and those of [`Plan::from_toml`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(TargetsError::read(path))?;
        let plan = Self::from_toml(&text)?;
        Ok(match path.parent() {
            Some(directory) => plan.beside(directory),
            None => plan,
        })
    }

    /// The same plan, whose files are looked for in this folder too.
    pub fn beside(self, directory: &Path) -> Self {
        Self { directory: Some(directory.to_path_buf()), ..self }
    }

    /// SHA-256, in hexadecimal, of what was named as targets: the texts as they were given, each with a line feed after it.
    pub fn targets_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for each in &self.targets {
            hash.update(each.as_bytes());
            hash.update(b"\n");
        }
        hex::encode(&hash.finalize())
    }

    /// Writes a plan file, readable by its owner only, replacing an older one as a whole.
    ///
    /// # Errors
    /// [`TargetsError::Io`], or what [`Plan::validate`] says.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.validate()?;
        files::write_private(path.as_ref(), self.to_toml().as_bytes())
    }
}

/// Reads `ADDRESS:PORT` (or an address alone: port 0), as `irlstack when` takes it.
///
/// # Errors
/// [`TargetsError::ListLine`].
pub fn parse_target(text: &str) -> Result<(Family, Target)> {
    let (address, port) = crate::list::parse_target(text.trim()).map_err(|reason| TargetsError::ListLine {
        origin: crate::error::Origin::default(),
        text: text.to_owned(),
        reason,
    })?;
    Ok((Family::of(address), Target { address: address_bits(address), port: port.unwrap_or(0) }))
}
