//! `irlstack.Plan`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use irl_measure::further::{Further, Layout};
use irl_targets::{CompiledPlan, Family, Plan, PortSet, PrefixSet, SecretKey, TargetList, Transport};
use irl_wire::Mac;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::addresses::Addresses;
use crate::errors::{Error, Result};
use crate::numbers::bounded;
use crate::parse::Program;
use crate::ports::{PortsLike, check_ports, has_ports};
use crate::prefix::{family_name, texts};
use crate::probe::{self, ProbeLike};
use crate::reading::ListLike;
use crate::targets::PyTargets;

/// Everything that fixes a run on any machine: targets, order, probe, sources, key. A value, and a TOML file.
///
/// >>> import irlstack as irl
/// >>> plan = irl.Plan("10.0.0.0/8", ports="80,443", seed=1, shards=2)
/// >>> plan.total
/// 33554432
/// >>> batch = next(iter(plan.targets(count=3, shard=1)))
/// >>> batch.column_names
/// ['position', 'address', 'port']
///
/// Without targets, `allowlist_file` and `list_of_ips_file` the plan is for all of IPv4. Special-purpose space (IANA's registries) is cut
/// out of a wider prefix and kept where a prefix lies inside it.
///
/// Args:
///     targets: prefixes, addresses, ranges; text or `ipaddress` objects, all of one family.
///     ports: "80,443,8000-8010", a number, or a list of numbers; None for probes without ports.
///     top_ports: instead of ports, so many of the most common ones, TCP's or UDP's as the probe is; the plan has them
///         as `ports`.
///     list_of_ips_file: a file of addresses or address:port lines instead of prefixes, or such lines as bytes, or an
///         open binary file, which is read once.
///     allowlist_file, blocklist_file: files of prefixes to probe, and never to probe.
///     seed: fixes the order; random when None.
///     order: "random", in which the first targets are a random sample, or "spread", in which no network is probed twice
///         within a third of its share of the run (`docs/permutation.md`).
///     secret: 16 bytes, the key of the cookie; random when None.
///     probe_module: the name of a probe, with `probe_args`; or a `Probe`.
///     source_ip: the address the probes come from, or a list of them; source_port: "61000-65535", the default.
///     probe_ttl: time to live or hop limit.
///     probes: probes a target.
///     rate: probes a second, 0 = as fast as our own loss allows; max_targets: over all shards.
///     shards: shard i of n has the positions congruent to i modulo n.
///     contact: whom to write to about the measurement.
///
/// Raises:
///     ConfigError: whatever is wrong with one of them.
///     OSError: a file cannot be read.
#[pyclass(frozen, eq, module = "irlstack", name = "Plan")]
pub(crate) struct PyPlan {
    pub(crate) plan: Plan,
    /// Whether the targets are from a list that cannot be read again (standard input).
    streamed: bool,
    made: Arc<Made>,
    /// What makes the fields of an own probe. Not part of the plan: no text of its own says what it does.
    pub(crate) parse: Option<Py<PyAny>>,
}

/// What was read for a plan, which plans at another rate share.
#[derive(Default)]
struct Made {
    /// The list as it was read for its hash, until it is compiled.
    list: Mutex<Option<TargetList>>,
    compiled: OnceLock<CompiledPlan>,
}

impl PartialEq for PyPlan {
    fn eq(&self, other: &Self) -> bool {
        // By its text: where a plan was loaded from is no part of it.
        self.plan.to_toml() == other.plan.to_toml()
    }
}

fn secret_key(bytes: Vec<u8>) -> Result<SecretKey> {
    let length = bytes.len();
    let bytes = bytes.try_into().map_err(|_| Error::config(format!("A secret has 16 bytes, not {length}.")))?;
    Ok(SecretKey::from_bytes(bytes))
}

impl PyPlan {
    pub(crate) fn from_plan(plan: Plan) -> Self {
        Self { plan, streamed: false, made: Arc::default(), parse: None }
    }

    /// What makes the probe's fields, which the layout has room for.
    pub(crate) fn further(&self, py: Python<'_>, layout: Layout) -> Result<Further> {
        let call = self.parse.as_ref().map_or_else(|| py.None(), |parse| parse.clone_ref(py));
        let fields = probe::of(&self.plan)?.fields().to_vec();
        Ok(Further::new(layout, self.plan.family, Box::new(Program { call, fields })))
    }

    /// Refuses a program for a probe that has no fields.
    fn checked(self) -> Result<Self> {
        if self.parse.is_some() && probe::of(&self.plan)?.fields().is_empty() {
            return Err(Error::config("This plan's probe declares no fields that a parse could make."));
        }
        Ok(self)
    }

    /// Whether its targets were read from where they cannot be read again.
    pub(crate) fn is_kept(&self) -> bool {
        self.streamed
    }

    /// The plan with its files read, which happens once.
    pub(crate) fn compiled(&self, py: Python<'_>, shard: u32) -> Result<CompiledPlan> {
        let Made { list, compiled } = &*self.made;
        if let Some(compiled) = compiled.get() {
            return Ok(compiled.shard(shard)?);
        }
        let made = py.detach(|| {
            // Held on to, so that two threads do not compile one list; nothing below leaves it half changed.
            let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
            if compiled.get().is_some() {
                return Ok(None);
            }
            match list.take() {
                Some(list) => self.plan.compile_with(list, 0),
                None => self.plan.compile(0),
            }
            .map(Some)
        })?;
        let compiled = match (compiled.get(), made) {
            (Some(compiled), _) => compiled,
            (None, Some(made)) => compiled.get_or_init(|| made),
            (None, None) => return Err(Error::config("The plan was not compiled.")),
        };
        Ok(compiled.shard(shard)?)
    }
}

#[pymethods]
impl PyPlan {
    #[new]
    #[pyo3(signature = (*targets, ports=None, top_ports=None, list_of_ips_file=None, allowlist_file=Vec::new(), blocklist_file=Vec::new(),
        seed=None, order="random", secret=None, probe_module=ProbeLike::default(), probe_args=BTreeMap::new(), source_ip=Addresses::default(), source_port=None, probe_ttl=None,
        probes=None, rate=None, max_targets=None, shards=None, contact=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        targets: &Bound<'_, PyTuple>,
        ports: Option<PortsLike>,
        top_ports: Option<i128>,
        list_of_ips_file: Option<ListLike>,
        allowlist_file: Vec<PathBuf>,
        blocklist_file: Vec<PathBuf>,
        seed: Option<i128>,
        order: &str,
        secret: Option<Vec<u8>>,
        probe_module: ProbeLike,
        probe_args: BTreeMap<String, String>,
        source_ip: Addresses,
        source_port: Option<&str>,
        probe_ttl: Option<i128>,
        probes: Option<i128>,
        rate: Option<i128>,
        max_targets: Option<i128>,
        shards: Option<i128>,
        contact: Option<String>,
    ) -> Result<Self> {
        let (name, args, parse) = probe_module.taken(targets.py(), probe_args)?;
        let ports = match (ports, bounded("top_ports", top_ports)?) {
            (Some(_), Some(_)) => return Err(Error::config("Give ports or top_ports, not both.")),
            (ports, None) => ports.map(PortsLike::parse).transpose()?,
            (None, Some(count)) => {
                let udp = irl_wire::Probe::resolve(&name, &args)?.protocol() == irl_wire::Protocol::Udp;
                Some(PortSet::top(count, if udp { Transport::Udp } else { Transport::Tcp })?)
            }
        };
        let mut builder = Plan::builder().targets(texts(targets)?).sources(source_ip.0).probe(name, args);
        builder = builder.order(order.parse()?);
        for path in allowlist_file {
            builder = builder.allowlist(path);
        }
        for path in blocklist_file {
            builder = builder.blocklist(path);
        }
        macro_rules! set {
            ($($name:ident = $value:expr),* $(,)?) => {$(
                if let Some(value) = $value {
                    builder = builder.$name(value);
                }
            )*};
        }
        set! {
            ports = ports,
            seed = bounded("seed", seed)?,
            secret = secret.map(secret_key).transpose()?,
            source_ports = source_port.map(str::parse).transpose()?,
            ttl = bounded("probe_ttl", probe_ttl)?,
            probes = bounded("probes", probes)?,
            rate = bounded("rate", rate)?,
            max_targets = bounded("max_targets", max_targets)?,
            shards = bounded("shards", shards)?,
            contact = contact,
        }
        let (list, streamed) = match list_of_ips_file.map(|list| list.read(py)).transpose()? {
            Some((list, streamed)) => (Some(list), streamed),
            None => (None, false),
        };
        if let Some(list) = &list {
            builder = builder.list(list);
        }
        let plan = builder.build()?;
        check_ports(&plan)?;
        let made = Made { list: Mutex::new(list), compiled: OnceLock::new() };
        let plan = Self { plan, streamed, made: Arc::new(made), parse };
        if streamed {
            // Now or never: whatever is wrong with it should be said once, and of the list itself.
            plan.compiled(py, 0)?;
        }
        Ok(plan)
    }

    /// The same plan at another rate or with another contact: what may differ from run to run.
    #[pyo3(signature = (*, rate=None, contact=None))]
    fn replace(&self, py: Python<'_>, rate: Option<i128>, contact: Option<String>) -> Result<Self> {
        let mut plan = self.plan.clone();
        if let Some(rate) = bounded("rate", rate)? {
            plan.rate = Some(rate);
        }
        if contact.is_some() {
            plan.contact = contact;
        }
        let parse = self.parse.as_ref().map(|parse| parse.clone_ref(py));
        Ok(Self { plan, streamed: self.streamed, made: Arc::clone(&self.made), parse })
    }

    /// Reads a plan file; the files it names are looked for at their path and beside the plan file.
    ///
    /// Args:
    ///     path: the file.
    ///     parse: what makes the fields of an own probe: a program is no part of a plan.
    ///
    /// Raises:
    ///     ConfigError: the file is no plan, or one of another version.
    ///     OSError: it cannot be read.
    #[staticmethod]
    #[pyo3(signature = (path, parse=None))]
    fn load(path: PathBuf, parse: Option<Py<PyAny>>) -> Result<Self> {
        Self { parse, ..Self::from_plan(Plan::load(path)?) }.checked()
    }

    /// Reads the TOML form; `parse` as for `load`.
    #[staticmethod]
    #[pyo3(signature = (text, parse=None))]
    fn from_toml(text: &str, parse: Option<Py<PyAny>>) -> Result<Self> {
        Self { parse, ..Self::from_plan(Plan::from_toml(text)?) }.checked()
    }

    /// Writes a plan file, readable by its owner only: it holds the secret key.
    ///
    /// Raises:
    ///     ConfigError: the targets came from standard input, which cannot be read again.
    ///     OSError: it cannot be written.
    fn save(&self, path: PathBuf) -> Result<()> {
        if self.streamed {
            return Err(Error::config(
                "These targets were read from standard input; save them as a file and name that.",
            ));
        }
        Ok(self.plan.save(path)?)
    }

    /// The TOML form. It holds the secret key.
    fn to_toml(&self) -> String {
        self.plan.to_toml()
    }

    /// SHA-256, in hexadecimal, over everything that decides which frames a run sends and in what order.
    fn fingerprint(&self) -> Result<String> {
        Ok(self.plan.fingerprint()?)
    }

    /// "ipv4" or "ipv6".
    #[getter]
    fn family(&self) -> &'static str {
        family_name(self.plan.family)
    }

    /// The target ports as text, "80,443,8000-8010"; None for a probe without ports.
    #[getter]
    fn ports(&self) -> Option<String> {
        has_ports(&self.plan.ports).then(|| self.plan.ports.to_string())
    }

    /// What fixes the order.
    #[getter]
    fn seed(&self) -> u64 {
        self.plan.seed
    }

    /// How the order is made from the seed: "random" or "spread".
    #[getter]
    fn order(&self) -> String {
        self.plan.order.to_string()
    }

    /// The probe's name.
    #[getter]
    fn probe_module(&self) -> &str {
        &self.plan.probe.name
    }

    /// The probe's arguments.
    #[getter]
    fn probe_args(&self) -> BTreeMap<String, String> {
        self.plan.probe.args.clone()
    }

    /// What makes the fields of an own probe; None when there is nothing. It goes along when the plan is pickled, and is no
    /// part of its text.
    #[getter]
    fn parse(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.parse.as_ref().map(|parse| parse.clone_ref(py))
    }

    /// Into how many shards the plan is cut.
    #[getter]
    fn shards(&self) -> u32 {
        self.plan.shards
    }

    /// Probes a target.
    #[getter]
    fn probes(&self) -> u16 {
        self.plan.probes
    }

    /// Probes a second; 0 = as fast as our own loss allows; None = the default.
    #[getter]
    fn rate(&self) -> Option<u64> {
        self.plan.rate
    }

    /// Whom to write to about the measurement.
    #[getter]
    fn contact(&self) -> Option<&str> {
        self.plan.contact.as_deref()
    }

    /// The addresses that probes come from; empty = the machine's own, by its route.
    #[getter]
    fn source_ip(&self) -> Vec<IpAddr> {
        self.plan.sources.clone()
    }

    /// The files of prefixes never to probe.
    #[getter]
    fn blocklist_file(&self) -> Vec<PathBuf> {
        self.plan.blocklist.iter().map(|file| file.path.clone()).collect()
    }

    /// How many targets all shards have together. Reads the plan's files.
    #[getter]
    fn total(&self, py: Python<'_>) -> Result<u64> {
        Ok(self.compiled(py, 0)?.total())
    }

    /// How the addresses asked for became the targets: a dict of "asked", "special" (cut as special-purpose space),
    /// "denied" (cut by the blocklists), "duplicates" (of a list), "kept".
    fn counts<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let counts = self.compiled(py, 0)?.targets().counts();
        let dict = PyDict::new(py);
        dict.set_item("asked", counts.asked)?;
        dict.set_item("special", counts.special)?;
        dict.set_item("denied", counts.denied)?;
        dict.set_item("duplicates", counts.duplicates)?;
        dict.set_item("kept", counts.kept)?;
        Ok(dict)
    }

    /// How many targets of a shard the fullest /24 of IPv4 or /48 of IPv6 may be expected to have; None for a list, of which
    /// that is not known.
    ///
    /// Raises:
    ///     ConfigError: there is no such shard, no target, or a file changed since the plan was made.
    #[pyo3(signature = (shard=0))]
    fn most_in_network(&self, py: Python<'_>, shard: u32) -> Result<Option<f64>> {
        let compiled = self.compiled(py, shard)?;
        let targets = compiled.targets();
        let prefix_len = match targets.family() {
            Family::V4 => 24,
            Family::V6 => 48,
        };
        // Each address has as many targets as any other.
        let share = |set: &PrefixSet| set.most_within(prefix_len) as f64 / set.count() as f64 * compiled.len() as f64;
        Ok(targets.addresses().map(share))
    }

    /// The targets of a shard in the order they are probed: an iterable of batches, and an Arrow stream.
    ///
    /// Columns: position (uint64, in the shard), address (uint32, or 16 bytes of IPv6), port (uint16).
    ///
    /// Args:
    ///     first: the position to start at.
    ///     count: at most so many; None = to the end of the shard.
    ///     shard: which shard.
    ///
    /// Raises:
    ///     ConfigError: there is no such shard, no target, or a file changed since the plan was made.
    #[pyo3(signature = (first=0, count=None, shard=0))]
    fn targets(&self, py: Python<'_>, first: u64, count: Option<u64>, shard: u32) -> Result<PyTargets> {
        let plan = self.compiled(py, shard)?;
        let first = first.min(plan.len());
        let end = count.map_or(plan.len(), |count| first.saturating_add(count).min(plan.len()));
        Ok(PyTargets { plan, family: self.plan.family, has_ports: has_ports(&self.plan.ports), first, end })
    }

    /// The bytes of a probe's frame, Ethernet header included, without the frame check sequence.
    #[getter]
    fn frame_len(&self) -> Result<usize> {
        Ok(probe::preview(&self.plan)?.frame_len())
    }

    /// The first frames of a shard as they would be sent: at time 0, and between MACs of zeros.
    ///
    /// Without `source_ip` they come from a documentation address, since the route will decide.
    #[pyo3(signature = (count=10, shard=0))]
    fn frames<'py>(&self, py: Python<'py>, count: u64, shard: u32) -> Result<Vec<Bound<'py, PyBytes>>> {
        let builder = probe::preview(&self.plan)?;
        let compiled = self.compiled(py, shard)?;
        let (count, probes) = (count.min(1_000), u64::from(self.plan.probes));
        let mut slot = vec![0; builder.frame_len()];
        let mut frames = Vec::new();
        for nth in 0..count {
            let Some((_, target)) = compiled.target(nth / probes) else { break };
            // The remainder is below the number of probes, which has 16 bits.
            let number = (nth % probes) as u16;
            let length = builder.build(&mut slot, Mac([0; 6]), target.address, target.port, number, 0);
            frames.push(PyBytes::new(py, &slot[..length]));
        }
        Ok(frames)
    }

    /// Shard and position of a target; None when the plan does not probe it.
    ///
    /// Args:
    ///     target: "192.0.2.7:80", "[2001:db8::7]:80", or an address alone where the probe has no port.
    #[pyo3(signature = (target))]
    fn find(&self, py: Python<'_>, target: &str) -> Result<Option<(u32, u64)>> {
        let (family, target) = irl_targets::parse_target(target)?;
        if family != self.plan.family {
            return Ok(None);
        }
        Ok(self.compiled(py, 0)?.shard_and_position_of(target))
    }

    fn __repr__(&self) -> Result<String> {
        let plan = &self.plan;
        let what = match &plan.list {
            Some(list) => list.path.display().to_string(),
            None => {
                let mut items = plan.targets.iter().take(3).cloned().collect::<Vec<_>>();
                items.extend(plan.allowlist.iter().map(|file| file.path.display().to_string()));
                items.extend((plan.targets.len() > 3).then(|| format!("... {} in all", plan.targets.len())));
                items.join(", ")
            }
        };
        let ports = if has_ports(&plan.ports) { format!(", ports {}", plan.ports) } else { String::new() };
        let name = &plan.fingerprint()?[..12];
        Ok(format!("<Plan {name}: {what}{ports}, {}, seed {}>", plan.probe.name, plan.seed))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        if slf.get().streamed {
            return Err(Error::config("A plan whose targets came from standard input cannot be pickled."));
        }
        let (make, text) = (slf.get_type().getattr("from_toml")?, slf.get().plan.to_toml());
        let args = match slf.get().parse(slf.py()) {
            None => PyTuple::new(slf.py(), [text])?,
            Some(parse) => (text, parse).into_pyobject(slf.py())?,
        };
        Ok((make, args))
    }
}
