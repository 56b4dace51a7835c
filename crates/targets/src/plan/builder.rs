//! Building a plan: what is not said gets its default, and every input is checked where it is given.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use super::{FileRef, Order, Plan, ProbeSpec, SecretKey, SourcePorts, Versions, default_ttl};
use crate::error::{Origin, Result, TargetsError};
use crate::family::Family;
use crate::list::TargetList;
use crate::ports::PortSet;
use crate::prefix::{PrefixSet, SetParser};

/// Gathers what fixes a run; [`PlanBuilder::build`] checks it.
///
/// ```
/// use irl_targets::Plan;
/// let plan = Plan::builder().target("10.0.0.0/8").ports("80,443".parse().unwrap()).seed(1).build().unwrap();
/// assert_eq!(plan.target_set().unwrap().len(), 2 << 24);
/// ```
#[derive(Clone, Debug, Default)]
pub struct PlanBuilder {
    targets: Vec<String>,
    allowlist: Vec<PathBuf>,
    list: Option<(FileRef, Family)>,
    blocklist: Vec<PathBuf>,
    ports: Option<PortSet>,
    seed: Option<u64>,
    order: Order,
    max_targets: Option<u64>,
    probes: Option<u16>,
    shards: Option<u32>,
    sources: Vec<IpAddr>,
    source_ports: SourcePorts,
    ttl: Option<u8>,
    rate: Option<u64>,
    contact: Option<String>,
    secret: Option<SecretKey>,
    probe: ProbeSpec,
}

impl PlanBuilder {
    /// Adds a prefix, address or range. With no target, allowlist or list at all the plan is for all of IPv4.
    pub fn target(mut self, item: impl Into<String>) -> Self {
        self.targets.push(item.into());
        self
    }

    /// Adds prefixes, addresses and ranges.
    pub fn targets<T: Into<String>>(mut self, items: impl IntoIterator<Item = T>) -> Self {
        self.targets.extend(items.into_iter().map(Into::into));
        self
    }

    /// Adds a file of prefixes to probe.
    pub fn allowlist(mut self, path: impl Into<PathBuf>) -> Self {
        self.allowlist.push(path.into());
        self
    }

    /// Adds a file of prefixes never to probe; lines of the other family are ignored.
    pub fn blocklist(mut self, path: impl Into<PathBuf>) -> Self {
        self.blocklist.push(path.into());
        self
    }

    /// Takes the targets from a list instead of prefixes.
    pub fn list(mut self, list: &TargetList) -> Self {
        let path = match list.path().to_str() {
            Some("-") => PathBuf::from("-"),
            // A path that cannot be made absolute stays as it was given.
            _ => std::path::absolute(list.path()).unwrap_or_else(|_| list.path().to_owned()),
        };
        self.list = Some((FileRef { path, sha256: list.sha256().to_owned() }, list.family()));
        self
    }

    /// The target ports; without them the plan is for a probe that has none (port 0).
    pub fn ports(mut self, ports: PortSet) -> Self {
        self.ports = Some(ports);
        self
    }

    /// The seed of the order; random when not given.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How the order is made.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// At most so many targets, in all shards together.
    pub fn max_targets(mut self, count: u64) -> Self {
        self.max_targets = Some(count);
        self
    }

    /// Probes a target; 1 when not given.
    pub fn probes(mut self, probes: u16) -> Self {
        self.probes = Some(probes);
        self
    }

    /// Into how many shards the run is cut; 1 when not given.
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Addresses the probes come from.
    pub fn sources(mut self, sources: impl IntoIterator<Item = IpAddr>) -> Self {
        self.sources.extend(sources);
        self
    }

    /// Ports the probes come from.
    pub fn source_ports(mut self, ports: SourcePorts) -> Self {
        self.source_ports = ports;
        self
    }

    /// Time to live or hop limit; 255 when not given.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Probes a second; 0 = as fast as our own loss allows.
    pub fn rate(mut self, rate: u64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Whom to write to about this measurement.
    pub fn contact(mut self, contact: impl Into<String>) -> Self {
        self.contact = Some(contact.into());
        self
    }

    /// The cookie's key; random when not given.
    pub fn secret(mut self, secret: SecretKey) -> Self {
        self.secret = Some(secret);
        self
    }

    /// The probe by name, with its arguments; `tcp_synscan` when not given.
    pub fn probe(mut self, name: impl Into<String>, args: BTreeMap<String, String>) -> Self {
        self.probe = ProbeSpec { name: name.into(), args };
        self
    }

    /// Reads the files for their hashes, settles the family, and checks everything.
    ///
    /// # Errors
    /// What is wrong, as a full sentence; with file and line where there is one.
    pub fn build(mut self) -> Result<Plan> {
        if self.targets.is_empty() && self.allowlist.is_empty() && self.list.is_none() {
            self.targets.push("0.0.0.0/0".to_owned());
        }
        for item in &mut self.targets {
            *item = item.trim().to_owned();
        }
        let mut parser = SetParser::default();
        for item in &self.targets {
            parser.add(item, &Origin::default())?;
        }
        let mut family = parser.finish().map(|set| set.family());
        let mut allowlist = Vec::new();
        for path in &self.allowlist {
            let (file, bytes) = FileRef::of(path)?;
            let mut parser = SetParser::expecting(family);
            crate::prefix::for_each_line(path, &bytes, |text, origin| parser.add(text, origin))?;
            family = parser.finish().map(|set| set.family()).or(family);
            allowlist.push(file);
        }
        let mut blocklist = Vec::new();
        for path in &self.blocklist {
            let (file, bytes) = FileRef::of(path)?;
            PrefixSet::both_from_file_bytes(path, &bytes)?;
            blocklist.push(file);
        }
        let (list, list_family) = self.list.unzip();
        let family = family.or(list_family).ok_or_else(|| {
            TargetsError::value("allowlist", "[]", "its files have no entry; name at least one target")
        })?;
        let plan = Plan {
            family,
            targets: self.targets,
            ports: self.ports.unwrap_or_else(PortSet::none),
            seed: match self.seed {
                Some(seed) => seed,
                // 63 bits, so that TOML can hold it as a number.
                None => getrandom::u64().map_err(|error| TargetsError::Random(error.to_string()))? >> 1,
            },
            order: self.order,
            max_targets: self.max_targets,
            probes: self.probes.unwrap_or(1),
            shards: self.shards.unwrap_or(1),
            sources: self.sources,
            source_ports: self.source_ports,
            ttl: self.ttl.unwrap_or_else(default_ttl),
            rate: self.rate,
            contact: self.contact,
            secret: match self.secret {
                Some(secret) => secret,
                None => SecretKey::random()?,
            },
            versions: Versions::default(),
            probe: self.probe,
            list,
            allowlist,
            blocklist,
            directory: None,
        };
        plan.validate()?;
        Ok(plan)
    }
}
