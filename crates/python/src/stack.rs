//! An opened network, or several for one run, for `irlstack.Stack`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use irl_lab::{Direction, Impairment, SimConfig, SimNetwork};
use irl_link::capture::{DiskConfig, DiskNetwork};
use irl_link::{EngineInfo, Network, PolicySettings, Rate};
use irl_measure::exchange::request::Request;
use irl_measure::exchange::session::{Close, Delimiter, Dialogue, Until};
use irl_measure::exchange::{Exchange, ExchangeConfig, ExchangeRows};
use irl_measure::filter::Filter;
use irl_measure::listing::{LONGEST_NAME, LONGEST_REQUEST};
use irl_measure::{CaptureSample, Dedup, RowSelection, Run, Scan, ScanConfig, ScanRate};
use irl_wire::PortRange;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::addresses::Addresses;
use crate::checkpoint::PyCheckpoint;
use crate::errors::{Error, Result};
use crate::frames::PyStream;
use crate::list::PyList;
use crate::numbers::bounded;
use crate::output;
use crate::plan::PyPlan;
use crate::policy::{self, PolicyLike};
use crate::ready::Callback;
use crate::run::PyRun;
use crate::world::PyWorld;

/// Who writes captures.
const PROGRAM: &str = concat!("irlstack ", env!("CARGO_PKG_VERSION"));

/// An opened network, or several that a scan shares. Use `irlstack.Stack`.
#[pyclass(frozen, module = "irlstack._core", name = "RawStack")]
pub(crate) struct PyStack {
    /// At least one.
    networks: Vec<Arc<dyn Network>>,
}

#[pymethods]
impl PyStack {
    /// Opens interfaces; without a name the one that the route leads to.
    #[staticmethod]
    #[cfg(target_os = "linux")]
    #[pyo3(signature = (interfaces=Vec::new(), source_ip=Addresses::default(), towards=None, gateway_mac=None, vlan=None, engine="auto",
        dad="fast", source_mac=None, rate=None, batch=128, iplayer=false))]
    #[allow(clippy::too_many_arguments)]
    fn open(
        py: Python<'_>,
        interfaces: Vec<String>,
        source_ip: Addresses,
        towards: Option<IpAddr>,
        gateway_mac: Option<&str>,
        vlan: Option<u16>,
        engine: &str,
        dad: &str,
        source_mac: Option<&str>,
        rate: Option<f64>,
        batch: u32,
        iplayer: bool,
    ) -> Result<Self> {
        let config = irl_link::StackConfig {
            sources: source_ip.0,
            towards,
            gateway_mac: gateway_mac.map(mac).transpose()?,
            source_mac: source_mac.map(mac).transpose()?,
            vlan,
            ip_layer: iplayer,
            engine: engine.parse()?,
            dad: dad.parse()?,
            rate,
            batch,
            ..irl_link::StackConfig::default()
        };
        let stacks = py.detach(|| irl_link::Stack::open_each(&interfaces, &config))?;
        Ok(Self { networks: stacks.into_iter().map(|stack| Arc::new(stack) as Arc<dyn Network>).collect() })
    }

    /// A network inside this process that leads to a World, over a link that loses, repeats, reorders and delays.
    #[staticmethod]
    #[pyo3(signature = (world, source_ip, *, loss=0.0, duplicate=0.0, reorder=0.0, delay_ms=0.0, seed=1))]
    fn simulate(
        world: &PyWorld,
        source_ip: Addresses,
        loss: f64,
        duplicate: f64,
        reorder: f64,
        delay_ms: f64,
        seed: u64,
    ) -> Self {
        let delay_ns = (delay_ms * 1e6) as u64;
        // A reordered frame comes later than those of the next millisecond.
        let way = Direction { loss, duplicate, reorder, reorder_ns: 1_000_000, delay_ns };
        let impairment = Impairment { seed, there: way, back: way };
        let network = SimNetwork::new(SimConfig { world: world.0, impairment, sources: source_ip.0 });
        Self { networks: vec![Arc::new(network)] }
    }

    /// A network that is a file: one that frames go into, or a capture whose answers are judged again.
    #[staticmethod]
    #[pyo3(signature = (path, source_ip, *, replay=false, gateway_mac=None, source_mac=None, vlan=None))]
    fn on_disk(
        py: Python<'_>,
        path: PathBuf,
        source_ip: Addresses,
        replay: bool,
        gateway_mac: Option<&str>,
        source_mac: Option<&str>,
        vlan: Option<u16>,
    ) -> Result<Self> {
        let config = DiskConfig {
            path,
            replay,
            sources: source_ip.0,
            source_mac: source_mac.map(mac).transpose()?.unwrap_or(irl_lab::sim::OUR_MAC),
            gateway_mac: gateway_mac.map(mac).transpose()?.unwrap_or(irl_lab::sim::GATEWAY_MAC),
            vlan,
            program: PROGRAM.to_owned(),
        };
        Ok(Self { networks: vec![Arc::new(py.detach(|| DiskNetwork::open(config))?)] })
    }

    /// Our addresses.
    fn sources(&self) -> Vec<IpAddr> {
        self.networks.iter().flat_map(|network| network.sources()).collect()
    }

    /// What the engine is, as a dict; of several networks, what each is.
    fn info<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let info = EngineInfo::of_all(self.networks.iter().map(|network| network.info()));
        let dict = PyDict::new(py);
        dict.set_item("engine", info.engine)?;
        dict.set_item("why", info.why)?;
        dict.set_item("xdp_mode", info.xdp_mode)?;
        dict.set_item("driver", info.driver)?;
        dict.set_item("kernel", info.kernel)?;
        dict.set_item("interface", info.interface)?;
        dict.set_item("synthetic", info.synthetic)?;
        dict.set_item("unsent", info.unsent)?;
        dict.set_item("iplayer", info.ip_layer)?;
        dict.set_item("kernel_rst", info.kernel_rst)?;
        Ok(dict)
    }

    /// What the filters did with frames, by name, with what their rings had no room for as `overruns`, and what else the
    /// networks count.
    fn counters(&self, py: Python<'_>) -> BTreeMap<String, u64> {
        let mut counters = BTreeMap::new();
        for network in &self.networks {
            let (filter, extra) = py.detach(|| (network.filter_counters(), network.extra_counters()));
            let filtered = filter.iter().map(|(name, count)| (name.to_owned(), count));
            let overruns = ("overruns".to_owned(), filter.overruns.values().sum());
            for (name, count) in filtered.chain([overruns]).chain(extra) {
                *counters.entry(name).or_default() += count;
            }
        }
        counters
    }

    /// Opens the sending and receiving of whole frames, received on `source_port` of our addresses.
    #[pyo3(signature = (policy, source_port=None, frame_len=1518))]
    fn stream(
        &self,
        py: Python<'_>,
        policy: PolicyLike,
        source_port: Option<&str>,
        frame_len: usize,
    ) -> Result<PyStream> {
        // Port 0 is nobody's: then only what spare addresses get beside all others is received.
        let ports = match source_port.map(str::parse::<irl_targets::SourcePorts>).transpose()? {
            Some(ports) => PortRange { first: ports.first, last: ports.last },
            None => PortRange { first: 0, last: 0 },
        };
        let [network] = self.networks.as_slice() else {
            return Err(Error::config(
                "This stack has several interfaces, which only a scan shares: to send and receive frames of your own, open \
                 a Stack for each interface.",
            ));
        };
        let network = Arc::clone(network);
        py.detach(|| PyStream::start(network, &policy, ports, frame_len))
    }

    /// Starts a scan; on several networks, with a thread for each unless more are asked for.
    #[pyo3(signature = (plan, policy, *, shard=0, sender_threads=None, cooldown_time=8.0, max_runtime=None, max_results=None,
        min_hitrate=0.0, retries=10, max_sendto_failures=None, no_rst=false, rows="success", output_fields=None, max_memory=1 << 30, queue=32, dedup_method="default", cores=Vec::new(), reprobe=0,
        reprobe_wait=None, recheck=None, recheck_rate=1000.0, output_filter=None, checkpoint=None,
        capture_sample=None, capture_sample_size=1000, ready=None))]
    #[allow(clippy::too_many_arguments)]
    fn scan(
        &self,
        py: Python<'_>,
        plan: &PyPlan,
        policy: PolicyLike,
        shard: u32,
        sender_threads: Option<u16>,
        cooldown_time: f64,
        max_runtime: Option<f64>,
        max_results: Option<u64>,
        min_hitrate: f64,
        retries: u16,
        max_sendto_failures: Option<u64>,
        no_rst: bool,
        rows: &str,
        output_fields: Option<Vec<String>>,
        max_memory: u64,
        queue: usize,
        dedup_method: &str,
        cores: Vec<usize>,
        reprobe: i128,
        reprobe_wait: Option<f64>,
        recheck: Option<f64>,
        recheck_rate: f64,
        output_filter: Option<&str>,
        checkpoint: Option<&PyCheckpoint>,
        capture_sample: Option<PathBuf>,
        capture_sample_size: usize,
        ready: Option<Py<PyAny>>,
    ) -> Result<PyRun> {
        let callback = Callback::new(ready);
        let sending = Sending {
            shard,
            sender_threads,
            cooldown_time,
            max_runtime,
            max_results,
            min_hitrate,
            retries,
            max_sendto_failures,
            max_memory,
            queue,
            cores,
            reprobe,
            capture_sample: sample(capture_sample, capture_sample_size),
        };
        let layout = output::layout(plan, output_fields.as_deref())?;
        let config = ScanConfig {
            reprobe_wait: reprobe_wait.map(|wait| seconds("reprobe_wait", wait)).transpose()?,
            recheck,
            recheck_rate,
            filter: output_filter
                .map(|text| Filter::parse(text, plan.plan.family, &plan.plan.probe.name))
                .transpose()?,
            reset: !no_rst,
            rows: match rows {
                "success" if dedup_method == "none" => RowSelection::Successes,
                "success" => RowSelection::Success,
                "all" => RowSelection::All,
                _ => return Err(Error::config(format!("rows = {rows:?} cannot be: it is \"success\" or \"all\"."))),
            },
            dedup: match dedup_method {
                // Repeats are still counted and marked, as well as the memory allows.
                "default" | "none" => Dedup::Best,
                "full" => Dedup::Full,
                "window" => Dedup::Window,
                _ => {
                    let are = "there are default, full, window and none";
                    return Err(Error::config(format!("There is no deduplication method {dedup_method:?}: {are}.")));
                }
            },
            columns: layout.as_ref().map_or_else(
                || output::columns(&plan.plan.probe.name, output_fields),
                |layout| Ok(layout.given().to_vec()),
            )?,
            checkpointed: checkpoint.is_some(),
            resume: checkpoint.and_then(|checkpoint| checkpoint.saved.clone()),
            ready: callback.ready.clone(),
            ..self.config(py, plan, &policy, sending)?
        };
        let networks = self.networks.clone();
        let further = layout.map(|layout| plan.further(py, layout)).transpose()?;
        let started = py.detach(|| Scan::start_on(config, networks));
        let run = Run::from(callback.outcome(started)?).with_further(further);
        Ok(PyRun { run: Arc::new(run) })
    }

    /// Starts an exchange: as a scan, and who answers gets a connection, a request and a row.
    #[pyo3(signature = (plan, policy, request, *, listed=None, until=UntilLike::Text("close".to_owned()), close="rst", max_bytes=65536, timeout=10.0,
        max_connections=1 << 20, max_per_prefix=None, rows="answered", output_fields=None, shard=0, sender_threads=None,
        cooldown_time=8.0, max_runtime=None, max_results=None, min_hitrate=0.0, retries=10, max_sendto_failures=None,
        max_memory=2 << 30, queue=32, cores=Vec::new(), reprobe=2, capture_sample=None, capture_sample_size=1000,
        ready=None))]
    #[allow(clippy::too_many_arguments)]
    fn exchange(
        &self,
        py: Python<'_>,
        plan: &PyPlan,
        policy: PolicyLike,
        request: Option<RequestLike>,
        listed: Option<&PyList>,
        until: UntilLike,
        close: &str,
        max_bytes: i128,
        timeout: f64,
        max_connections: i128,
        max_per_prefix: Option<i128>,
        rows: &str,
        output_fields: Option<Vec<String>>,
        shard: u32,
        sender_threads: Option<u16>,
        cooldown_time: f64,
        max_runtime: Option<f64>,
        max_results: Option<u64>,
        min_hitrate: f64,
        retries: u16,
        max_sendto_failures: Option<u64>,
        max_memory: u64,
        queue: usize,
        cores: Vec<usize>,
        reprobe: i128,
        capture_sample: Option<PathBuf>,
        capture_sample_size: usize,
        ready: Option<Py<PyAny>>,
    ) -> Result<PyRun> {
        let callback = Callback::new(ready);
        let sending = Sending {
            shard,
            sender_threads,
            cooldown_time,
            max_runtime,
            max_results,
            min_hitrate,
            retries,
            max_sendto_failures,
            max_memory,
            queue,
            cores,
            reprobe,
            capture_sample: sample(capture_sample, capture_sample_size),
        };
        let scan = self.config(py, plan, &policy, sending)?;
        let reprobe = scan.reprobe;
        let mut config = ExchangeConfig::new(scan, request.map_or(Ok(Request::Column), RequestLike::request)?);
        config.list = listed.map(|list| Arc::clone(&list.0));
        if config.list.is_some() {
            config.longest_request = match &config.request {
                Request::Column => LONGEST_REQUEST as u32,
                other => other.longest(config.scan.plan.family, LONGEST_NAME),
            };
        }
        config.scan.reprobe = reprobe;
        config.scan.ready = callback.ready.clone();
        config.dialogue = Dialogue {
            until: until.until()?,
            close: match close {
                "rst" => Close::Reset,
                "fin" => Close::Finish,
                _ => return Err(Error::config(format!("close = {close:?} cannot be: it is \"rst\" or \"fin\"."))),
            },
        };
        let most = |name, value| Ok::<u32, Error>(bounded(name, Some(value))?.unwrap_or_default());
        config.max_bytes = most("max_bytes", max_bytes)?;
        config.timeout = seconds("timeout", timeout)?;
        config.max_connections = most("max_connections", max_connections)? as usize;
        config.max_per_prefix = bounded("max_per_prefix", max_per_prefix)?;
        config.max_memory = max_memory;
        config.rows = match rows {
            "success" => ExchangeRows::Success,
            "answered" => ExchangeRows::Answered,
            "all" => ExchangeRows::All,
            _ => {
                let are = "it is \"success\", \"answered\" or \"all\"";
                return Err(Error::config(format!("rows = {rows:?} cannot be: {are}.")));
            }
        };
        config.columns = output::exchange_columns(output_fields)?;
        let networks = self.networks.clone();
        let started = py.detach(|| Exchange::start_on(config, networks));
        Ok(PyRun { run: Arc::new(Run::from(callback.outcome(started)?)) })
    }
}

/// What a scan and an exchange are told alike.
struct Sending {
    shard: u32,
    sender_threads: Option<u16>,
    cooldown_time: f64,
    max_runtime: Option<f64>,
    max_results: Option<u64>,
    min_hitrate: f64,
    retries: u16,
    max_sendto_failures: Option<u64>,
    max_memory: u64,
    queue: usize,
    cores: Vec<usize>,
    reprobe: i128,
    capture_sample: Option<CaptureSample>,
}

/// The sample of frames that is asked for.
fn sample(path: Option<PathBuf>, size: usize) -> Option<CaptureSample> {
    path.map(|path| CaptureSample { path, size, program: PROGRAM.to_owned() })
}

impl PyStack {
    /// How a plan is carried out on these networks, within the policy.
    fn config(&self, py: Python<'_>, plan: &PyPlan, policy: &PolicyLike, sending: Sending) -> Result<ScanConfig> {
        let networks = &self.networks;
        let workers = sending.sender_threads.unwrap_or(networks.len() as u16);
        if workers == 0 {
            return Err(Error::config("A run needs at least one sender thread (--sender-threads 1)."));
        }
        let compiled = plan.compiled(py, sending.shard)?;
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
        Ok(ScanConfig {
            workers,
            deny_counts,
            cores: sending.cores,
            reprobe: bounded("reprobe", Some(sending.reprobe))?.unwrap_or_default(),
            cooldown: seconds("cooldown_time", sending.cooldown_time)?,
            max_runtime: sending.max_runtime.map(|value| seconds("max_runtime", value)).transpose()?,
            max_results: sending.max_results,
            min_hitrate: sending.min_hitrate,
            retries: sending.retries,
            max_sendto_failures: sending.max_sendto_failures,
            max_memory: sending.max_memory,
            queue: sending.queue,
            capture_sample: sending.capture_sample,
            ..ScanConfig::new(plan.plan.clone(), compiled, judged, sources, rate)
        })
    }
}

/// A request: bytes as they are, or text with places for the target's address, port and host.
#[derive(FromPyObject)]
enum RequestLike {
    Bytes(Vec<u8>),
    Text(String),
}

impl RequestLike {
    fn request(self) -> Result<Request> {
        match self {
            Self::Bytes(bytes) => Ok(Request::Bytes(bytes)),
            Self::Text(text) => Ok(Request::template(text.as_bytes())?),
        }
    }
}

/// When a response is complete: "close", a number of bytes, or the bytes that end it.
#[derive(FromPyObject)]
enum UntilLike {
    Bytes(i128),
    Delimiter(Vec<u8>),
    Text(String),
}

impl UntilLike {
    fn until(self) -> Result<Until> {
        Ok(match self {
            Self::Bytes(0) => return Err(Error::config("A response of 0 bytes is none: until is 1 or more.")),
            Self::Bytes(bytes) => Until::Bytes(bounded("until", Some(bytes))?.unwrap_or_default()),
            Self::Delimiter(bytes) => Until::Delimiter(Delimiter::new(&bytes)?),
            Self::Text(text) if text == "close" => Until::Close,
            Self::Text(text) => Until::Delimiter(Delimiter::new(text.as_bytes())?),
        })
    }
}

pub(crate) fn mac(text: &str) -> Result<irl_wire::Mac> {
    text.parse().map_err(|_| Error::config(format!("{text:?} is no MAC; write 02:00:00:00:00:01.")))
}

pub(crate) fn seconds(name: &str, value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| Error::config(format!("{name} = {value} cannot be: it is a number of seconds from 0.")))
}

/// Refuses what lacks a permission before anything is opened; `opens`: whether an interface of this machine would be.
#[pyfunction]
pub(crate) fn refuse_early(py: Python<'_>, plan: &PyPlan, policy: PolicyLike, opens: bool) -> Result<()> {
    policy::refuse_early(&policy, &plan.plan, &plan.compiled(py, 0)?, opens)
}

/// Refuses an output filter that cannot be read, before anything is opened.
#[pyfunction]
pub(crate) fn check_filter(text: &str, plan: &PyPlan) -> Result<()> {
    Filter::parse(text, plan.plan.family, &plan.plan.probe.name)?;
    Ok(())
}
