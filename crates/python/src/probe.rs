//! `irlstack.Probe`, and the frames a plan would send.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use irl_measure::further::check_fields;
use irl_targets::{Family, Plan};
use irl_wire::probe::{FIELDS, NAMES};
use irl_wire::{Endpoint, FrameBuilder, Key, Mac, PortRange, Probe, Protocol};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::errors::{Error, Result};

/// A probe as a value: its template, what differs from target to target, and what counts as an answer.
///
/// >>> import irlstack as irl
/// >>> irl.Probe("tcp_synscan", layout="smallest").answers
/// {'synack': True, 'rst': False, 'icmp': False}
/// >>> irl.Probe("udp", text="hello").needs_port
/// True
///
/// With a `protocol` it is one of your own, declared as data; docs/probes.md says how:
///
/// >>> ack = irl.Probe("ackscan", protocol="tcp", template=bytes(12) + bytes([0x50, 0x10]) + bytes(6),
/// ...     patches=["transport[8:4] = cookie"], match=["+rst: transport[13] & 0x04 == 0x04, transport[4:4] == cookie"])
/// >>> ack.answers
/// {'rst': True, 'icmp': False}
///
/// Args:
///     name: "tcp_synscan" (argument `layout`: "linux", the default, or "smallest"), "tcp_synackscan", "icmp_echoscan",
///         "udp" (arguments `text`, `hex` or `template`: the payload), "dns" (argument `question`: "A,example.com"), "ntp";
///         or what your own is called.
///     protocol: of your own: "tcp", "udp" or "icmp" (an echo request).
///     template: of your own: TCP's header and what follows it; for UDP and ICMP what follows theirs.
///     patches: what is written for each target, such as "payload[4:4] = cookie".
///     match: classes of answers, such as "+pong: payload[0] == 1, payload[4:4] == cookie"; + marks a success.
///     fields: columns that `parse` makes, such as "level uint8".
///     parse: called with each batch of answers, whose payload is in the column `data`; returns a dict of the fields'
///         columns, or a table. It is called once a batch, and never for each answer.
///     args: the probe's arguments, texts.
///
/// Raises:
///     ConfigError: there is no such probe or argument, or its value is wrong.
#[pyclass(frozen, eq, module = "irlstack", name = "Probe")]
pub(crate) struct PyProbe {
    probe: Probe,
    /// What a plan calls it.
    module: String,
    args: BTreeMap<String, String>,
    parse: Option<Py<PyAny>>,
}

impl PartialEq for PyProbe {
    fn eq(&self, other: &Self) -> bool {
        // What is sent and what counts as an answer; a program cannot be compared.
        (&self.probe, &self.args) == (&other.probe, &other.args)
    }
}

/// The name of an own probe, as a plan has it.
const OWN: &str = "own";

/// Bytes as they are, or text.
#[derive(FromPyObject)]
enum TemplateLike {
    Text(String),
    Bytes(Vec<u8>),
}

/// A name, or a probe.
#[derive(FromPyObject)]
pub(crate) enum ProbeLike {
    Name(String),
    Probe(Py<PyProbe>),
}

impl Default for ProbeLike {
    fn default() -> Self {
        Self::Name("tcp_synscan".to_owned())
    }
}

/// What a plan has of a probe: its name, its arguments, and what makes its fields.
type Taken = (String, BTreeMap<String, String>, Option<Py<PyAny>>);

impl ProbeLike {
    /// What a plan takes of it.
    pub(crate) fn taken(self, py: Python<'_>, args: BTreeMap<String, String>) -> Result<Taken> {
        match self {
            Self::Name(name) => Ok((name, args, None)),
            Self::Probe(_) if !args.is_empty() => {
                Err(Error::config("A Probe has its arguments: probe_args cannot be given beside it."))
            }
            Self::Probe(probe) => {
                let probe = probe.get();
                let parse = probe.parse.as_ref().map(|parse| parse.clone_ref(py));
                Ok((probe.module.clone(), probe.args.clone(), parse))
            }
        }
    }
}

#[pymethods]
impl PyProbe {
    #[new]
    #[pyo3(signature = (name, *, protocol=None, template=None, patches=None, r#match=None, fields=None, parse=None, **args))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        name: &str,
        protocol: Option<String>,
        template: Option<TemplateLike>,
        patches: Option<Vec<String>>,
        r#match: Option<Vec<String>>,
        fields: Option<Vec<String>>,
        parse: Option<Py<PyAny>>,
        args: Option<BTreeMap<String, String>>,
    ) -> Result<Self> {
        let mut args = args.unwrap_or_default();
        let declared = [("patches", patches), ("match", r#match), ("fields", fields)];
        let own = protocol.is_some();
        let mut given = |argument: &str, value: String| args.insert(argument.to_owned(), value);
        match template {
            Some(TemplateLike::Text(text)) => {
                given("template", text);
            }
            Some(TemplateLike::Bytes(bytes)) => {
                let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                given(if own { "template" } else { "template_hex" }, digits);
            }
            None => {}
        }
        for (argument, items) in declared {
            if let Some(items) = items {
                given(argument, items.join("; "));
            }
        }
        if let Some(protocol) = protocol {
            given("protocol", protocol);
            given("name", name.to_owned());
        }
        let module = if own { OWN } else { name }.to_owned();
        let probe = Probe::resolve(&module, &args)?;
        check_fields(&probe)?;
        if let Some(parse) = &parse {
            if probe.fields().is_empty() {
                return Err(Error::config(format!(
                    "The probe {} declares no fields that its parse could make: fields=[\"level uint8\"].",
                    probe.name()
                )));
            }
            if !parse.bind(py).is_callable() {
                return Err(Error::config("A parse is something that can be called with a batch."));
            }
        }
        Ok(Self { probe, module, args, parse })
    }

    /// The probe that a plan, or a run's metadata, has under this name with these arguments.
    #[staticmethod]
    fn resolve(name: &str, args: BTreeMap<String, String>) -> Result<Self> {
        let probe = Probe::resolve(name, &args)?;
        check_fields(&probe)?;
        Ok(Self { probe, module: name.to_owned(), args, parse: None })
    }

    /// The names of the probes there are.
    #[staticmethod]
    fn names() -> Vec<&'static str> {
        NAMES.iter().map(|(name, _)| *name).collect()
    }

    /// What each of them does, by name, in a line.
    #[staticmethod]
    fn meanings() -> Vec<(&'static str, &'static str)> {
        NAMES.to_vec()
    }

    /// The fields of the template language of `udp`, and what each is replaced by.
    #[staticmethod]
    fn template_fields() -> Vec<(&'static str, &'static str)> {
        FIELDS.to_vec()
    }

    /// What makes the fields, of your own.
    #[getter]
    fn parse(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.parse.as_ref().map(|parse| parse.clone_ref(py))
    }

    /// What a plan calls it: "own" for your own.
    #[getter]
    fn module(&self) -> &str {
        &self.module
    }

    /// The names of the fields that `parse` makes.
    #[getter]
    fn fields(&self) -> Vec<&str> {
        self.probe.fields().iter().map(|field| field.name.as_str()).collect()
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
        let args = self.args.iter().filter(|(name, _)| *name != "name");
        let args: String = args.map(|(name, value)| format!(", {name}={value:?}")).collect();
        format!("Probe({:?}{args})", self.probe.name())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, this) = (slf.py(), slf.get());
        let partial = py.import("functools")?.getattr("partial")?;
        let keywords = PyDict::new(py);
        // All of them as texts, as a plan has them.
        for (name, value) in this.args.iter().filter(|(name, _)| !DECLARED.contains(&name.as_str())) {
            keywords.set_item(name, value)?;
        }
        for name in DECLARED.iter().filter(|name| this.args.contains_key(**name)) {
            keywords.set_item(name, [&this.args[*name]])?;
        }
        if this.module == OWN {
            let digits = &this.args.get("template").map_or("", String::as_str);
            keywords.set_item("template", PyBytes::new(py, &unhexed(digits)))?;
            keywords.del_item("name")?;
        }
        if let Some(parse) = this.parse(py) {
            keywords.set_item("parse", parse)?;
        }
        let make = partial.call((slf.get_type(), this.probe.name()), Some(&keywords))?;
        Ok((make, PyTuple::empty(py)))
    }
}

/// Arguments that are lists.
const DECLARED: [&str; 3] = ["patches", "match", "fields"];

/// The bytes of digits that were looked at before.
fn unhexed(digits: &str) -> Vec<u8> {
    let byte = |at| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok()).unwrap_or_default();
    (0..digits.len()).step_by(2).map(byte).collect()
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
