//! `irlstack.Probe`, and the frames a plan would send.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use irl_targets::{Family, Plan};
use irl_wire::probe::NAMES;
use irl_wire::{Endpoint, FrameBuilder, Key, Mac, PortRange, Probe, Protocol};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::errors::Result;

/// A probe as a value: its template, what differs from target to target, and what counts as an answer.
///
/// >>> import irlstack as irl
/// >>> irl.Probe("tcp_synscan", layout="smallest").answers
/// {'synack': True, 'rst': False, 'icmp': False}
/// >>> irl.Probe("udp", text="hello").needs_port
/// True
///
/// Args:
///     name: "tcp_synscan" (argument `layout`: "linux", the default, or "smallest"), "icmp_echoscan", or "udp"
///         (arguments `text` or `hex`: the payload).
///     args: the probe's arguments, texts.
///
/// Raises:
///     ConfigError: there is no such probe or argument, or its value is wrong.
#[pyclass(frozen, eq, module = "irlstack", name = "Probe")]
#[derive(PartialEq)]
pub(crate) struct PyProbe {
    probe: Probe,
    args: BTreeMap<String, String>,
}

#[pymethods]
impl PyProbe {
    #[new]
    #[pyo3(signature = (name, **args))]
    fn new(name: &str, args: Option<BTreeMap<String, String>>) -> Result<Self> {
        let args = args.unwrap_or_default();
        Ok(Self { probe: Probe::resolve(name, &args)?, args })
    }

    /// The names of the probes there are.
    #[staticmethod]
    fn names() -> [&'static str; 3] {
        NAMES
    }

    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        self.probe.name()
    }

    /// Its arguments.
    #[getter]
    fn args(&self) -> BTreeMap<String, String> {
        self.args.clone()
    }

    /// "tcp", "udp" or "icmp".
    #[getter]
    fn protocol(&self) -> &'static str {
        match self.probe.protocol() {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        }
    }

    /// Whether its targets have ports.
    #[getter]
    fn needs_port(&self) -> bool {
        self.probe.needs_port()
    }

    /// Whether answers tell the round-trip time.
    #[getter]
    fn carries_time(&self) -> bool {
        self.probe.carries_time()
    }

    /// The classes of answers by name, and whether each counts as a success.
    #[getter]
    fn answers<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for class in self.probe.answers() {
            dict.set_item(&class.name, class.success)?;
        }
        Ok(dict)
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.probe.hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        let args: String = self.args.iter().map(|(name, value)| format!(", {name}={value:?}")).collect();
        format!("Probe({:?}{args})", self.probe.name())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, this) = (slf.py(), slf.get());
        let partial = py.import("functools")?.getattr("partial")?;
        let keywords = PyDict::new(py);
        for (name, value) in &this.args {
            keywords.set_item(name, value)?;
        }
        let make = partial.call((slf.get_type(), this.probe.name()), Some(&keywords))?;
        Ok((make, PyTuple::empty(py)))
    }
}

/// The probe of a plan.
pub(crate) fn of(plan: &Plan) -> Result<Probe> {
    Ok(Probe::resolve(&plan.probe.name, &plan.probe.args)?)
}

/// A builder for looking at a plan's frames: from its first source, or from a documentation address where the route
/// will decide, and between MACs of zeros.
pub(crate) fn preview(plan: &Plan) -> Result<FrameBuilder> {
    let address = plan.sources.first().copied().unwrap_or(match plan.family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    });
    let ports = PortRange { first: plan.source_ports.first, last: plan.source_ports.last };
    let from = Endpoint { mac: Mac([0; 6]), address, ports, ttl: plan.ttl, vlan: None };
    Ok(FrameBuilder::new(&of(plan)?, &from, &Key::new(plan.secret.bytes()))?)
}
