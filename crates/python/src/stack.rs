//! An opened network, or several for one run, for `irlstack.Stack`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use irl_lab::{Direction, Impairment, SimConfig, SimNetwork};
use irl_link::capture::{DiskConfig, DiskNetwork};
use irl_link::{EngineInfo, Network};
use irl_measure::exchange::request::Request;
use irl_measure::exchange::session::{Close, Delimiter, Dialogue, Until};
use irl_measure::exchange::{Exchange, ExchangeConfig, ExchangeRows};
use irl_measure::filter::Filter;
use irl_measure::listing::{LONGEST_NAME, LONGEST_REQUEST};
use irl_measure::{Dedup, RowSelection, Run, Scan, ScanConfig};
use irl_wire::PortRange;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::addresses::Addresses;
use crate::checkpoint::PyCheckpoint;
use crate::errors::{Error, Result};
use crate::frames::PyStream;
use crate::keywords::Keywords;
use crate::list::PyList;
use crate::numbers::{bounded, seconds};
use crate::output;
use crate::plan::PyPlan;
use crate::policy::{self, PolicyLike};
use crate::ready::Callback;
use crate::run::PyRun;
use crate::sending::{self, Defaults, PROGRAM};
use crate::world::PyWorld;

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

    /// Starts a scan; on several networks, with a thread for each unless more are asked for. The keywords are those of
    /// `irlstack.request.ScanKeywords`, with the checkpoint that is written and what is called before the first frame.
    #[pyo3(signature = (plan, policy, *, checkpoint=None, ready=None, **keywords))]
    fn scan(
        &self,
        py: Python<'_>,
        plan: &PyPlan,
        policy: PolicyLike,
        checkpoint: Option<&PyCheckpoint>,
        ready: Option<Py<PyAny>>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> Result<PyRun> {
        let told = Keywords::new(py, "scan", keywords)?;
        let callback = Callback::new(ready);
        let output_fields: Option<Vec<String>> = told.optional("output_fields")?;
        let layout = output::layout(plan, output_fields.as_deref())?;
        let dedup: String = told.or("dedup_method", "default".to_owned())?;
        let rows: String = told.or("rows", "success".to_owned())?;
        let filter: Option<String> = told.optional("output_filter")?;
        let defaults = Defaults { reprobe: 0, max_memory: 1 << 30 };
        let config = ScanConfig {
            reprobe_wait: told.optional("reprobe_wait")?.map(|wait| seconds("reprobe_wait", wait)).transpose()?,
            recheck: told.optional("recheck")?,
            recheck_rate: told.or("recheck_rate", 1000.0)?,
            filter: filter.map(|text| Filter::parse(&text, plan.plan.family, &plan.plan.probe.name)).transpose()?,
            reset: !told.or("no_rst", false)?,
            rows: match rows.as_str() {
                "success" if dedup == "none" => RowSelection::Successes,
                "success" => RowSelection::Success,
                "all" => RowSelection::All,
                _ => return Err(Error::config(format!("rows = {rows:?} cannot be: it is \"success\" or \"all\"."))),
            },
            dedup: match dedup.as_str() {
                // Repeats are still counted and marked, as well as the memory allows.
                "default" | "none" => Dedup::Best,
                "full" => Dedup::Full,
                "window" => Dedup::Window,
                _ => {
                    let are = "there are default, full, window and none";
                    return Err(Error::config(format!("There is no deduplication method {dedup:?}: {are}.")));
                }
            },
            columns: layout.as_ref().map_or_else(
                || output::columns(&plan.plan.probe.name, output_fields),
                |layout| Ok(layout.given().to_vec()),
            )?,
            checkpointed: checkpoint.is_some(),
            resume: checkpoint.and_then(|checkpoint| checkpoint.saved.clone()),
            ready: callback.ready.clone(),
            ..sending::config(py, &self.networks, plan, &policy, &told, defaults)?
        };
        told.end()?;
        let networks = self.networks.clone();
        let further = layout.map(|layout| plan.further(py, layout)).transpose()?;
        let started = py.detach(|| Scan::start_on(config, networks));
        let run = Run::from(callback.outcome(started)?).with_further(further);
        Ok(PyRun { run: Arc::new(run) })
    }

    /// Starts an exchange: as a scan, and who answers gets a connection, a request and a row. The keywords are those of
    /// `irlstack.request.ExchangeKeywords`.
    #[pyo3(signature = (plan, policy, request, *, listed=None, ready=None, **keywords))]
    #[allow(clippy::too_many_arguments)]
    fn exchange(
        &self,
        py: Python<'_>,
        plan: &PyPlan,
        policy: PolicyLike,
        request: Option<RequestLike>,
        listed: Option<&PyList>,
        ready: Option<Py<PyAny>>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> Result<PyRun> {
        let told = Keywords::new(py, "exchange", keywords)?;
        let callback = Callback::new(ready);
        let defaults = Defaults { reprobe: 2, max_memory: 2 << 30 };
        let scan = sending::config(py, &self.networks, plan, &policy, &told, defaults)?;
        let (reprobe, max_memory) = (scan.reprobe, scan.max_memory);
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
            until: told.or("until", UntilLike::Text("close".to_owned()))?.until()?,
            close: match told.or("close", "rst".to_owned())?.as_str() {
                "rst" => Close::Reset,
                "fin" => Close::Finish,
                close => return Err(Error::config(format!("close = {close:?} cannot be: it is \"rst\" or \"fin\"."))),
            },
        };
        let most =
            |name, otherwise| Ok::<u32, Error>(bounded(name, Some(told.or(name, otherwise)?))?.unwrap_or_default());
        config.max_bytes = most("max_bytes", 65_536)?;
        config.timeout = seconds("timeout", told.or("timeout", 10.0)?)?;
        config.max_connections = most("max_connections", 1 << 20)? as usize;
        config.max_per_prefix = bounded("max_per_prefix", told.optional("max_per_prefix")?)?;
        config.max_memory = max_memory;
        config.rows = match told.or("rows", "answered".to_owned())?.as_str() {
            "success" => ExchangeRows::Success,
            "answered" => ExchangeRows::Answered,
            "all" => ExchangeRows::All,
            rows => {
                let are = "it is \"success\", \"answered\" or \"all\"";
                return Err(Error::config(format!("rows = {rows:?} cannot be: {are}.")));
            }
        };
        config.columns = output::exchange_columns(told.optional("output_fields")?)?;
        told.end()?;
        let networks = self.networks.clone();
        let started = py.detach(|| Exchange::start_on(config, networks));
        Ok(PyRun { run: Arc::new(Run::from(callback.outcome(started)?)) })
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
