//! `irlstack.World`: the truth of a synthetic Internet, and how a run's rows compare with it.

use std::collections::HashMap;
use std::net::IpAddr;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt16Type, UInt32Type};
use arrow_array::{ArrayRef, RecordBatch};
use irl_lab::world::flags;
use irl_lab::{Class, Service, Truth, World, WorldConfig};
use irl_targets::{Target, address_bits};
use irl_wire::{Probe, Protocol};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::arrow::PyBatch;
use crate::errors::{Error, Result};
use crate::plan::PyPlan;
use crate::probe;

/// A synthetic Internet: what every (address, port) is, as a pure function of a seed. Spec: docs/world.md.
///
/// >>> import irlstack as irl
/// >>> world = irl.World(seed=1)
/// >>> world.classes
/// ['absent', 'closed', 'open', 'filtered', 'duplicate', 'middlebox', 'wrong_ack']
/// >>> world.truth_of("10.0.3.4", 80)["class"]
/// 'absent'
///
/// Args:
///     seed: everything follows from it.
///     everything_open: every port is open and every host answers echoes, for benchmarks.
#[pyclass(frozen, eq, hash, module = "irlstack", name = "World")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct PyWorld(pub(crate) World);

#[pymethods]
impl PyWorld {
    #[new]
    #[pyo3(signature = (seed=1, *, everything_open=false))]
    fn new(seed: u64, everything_open: bool) -> Self {
        Self(World::new(WorldConfig { seed, everything_open }))
    }

    /// What everything follows from.
    #[getter]
    fn seed(&self) -> u64 {
        self.0.config().seed
    }

    /// The names of the classes, in the order of their numbers.
    #[getter]
    fn classes(&self) -> Vec<&'static str> {
        Class::ALL.iter().map(|class| class.name()).collect()
    }

    /// What an (address, port) is: a dict of class, alive, echo, udp_echo, response_id and response (bytes).
    fn truth_of<'py>(&self, py: Python<'py>, address: IpAddr, port: u16) -> Result<Bound<'py, PyDict>> {
        let truth = self.0.truth(address_bits(address), port);
        let dict = PyDict::new(py);
        dict.set_item("class", truth.class.name())?;
        dict.set_item("alive", truth.flags & flags::ALIVE != 0)?;
        dict.set_item("echo", truth.flags & flags::ECHO != 0)?;
        dict.set_item("udp_echo", truth.flags & flags::UDP_ECHO != 0)?;
        dict.set_item("response_id", truth.response_id)?;
        dict.set_item("response", PyBytes::new(py, &self.0.response(truth, port)))?;
        Ok(dict)
    }

    /// What a service of the lab says to data at (address, port), as bytes.
    ///
    /// >>> import irlstack as irl
    /// >>> irl.World(seed=1).reply_of("10.0.3.4", 80, "exchange:24")
    /// b'c4e0874022ed084c0000016\n'
    ///
    /// Args:
    ///     address: the host's.
    ///     port: its port.
    ///     service: "exchange:BYTES", "exchange:BYTES:fin", "gnutella" or "response"; "exchange" alone is of 100 bytes.
    ///
    /// Raises:
    ///     ConfigError: there is no such service.
    #[pyo3(signature = (address, port, service="exchange"))]
    fn reply_of<'py>(&self, py: Python<'py>, address: IpAddr, port: u16, service: &str) -> Result<Bound<'py, PyBytes>> {
        let address = address_bits(address);
        let said = match service.parse::<Service>()?.reply() {
            Some(reply) => reply.said(self.0.response_draw(address, port)),
            None => self.0.response(self.0.truth(address, port), port),
        };
        Ok(PyBytes::new(py, &said))
    }

    /// Class, flags (each uint8) and response id (uint16) of many targets, as three arrays of NumPy.
    ///
    /// Args:
    ///     addresses: uint32 of shape (n,), or for IPv6 uint8 of shape (n, 16).
    ///     ports: uint16 of shape (n,).
    ///
    /// Raises:
    ///     ConfigError: the arrays do not fit together.
    ///     ImportError: NumPy is not installed (`pip install irlstack[numpy]`).
    fn truth<'py>(
        &self,
        py: Python<'py>,
        addresses: &Bound<'py, PyAny>,
        ports: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyTuple>> {
        let numpy = py
            .import("numpy")
            .map_err(|_| PyImportError::new_err("This needs NumPy: pip install 'irlstack[numpy]'"))?;
        let addresses = addresses_of(addresses)?;
        let ports =
            PyBuffer::<u16>::get(ports).map_err(|_| Error::config("Ports are an array of uint16."))?.to_vec(py)?;
        if addresses.len() != ports.len() {
            return Err(Error::config(format!("There are {} addresses and {} ports.", addresses.len(), ports.len())));
        }
        let (classes, flags, responses) = py.detach(|| {
            let mut classes = Vec::with_capacity(ports.len());
            let mut flags = Vec::with_capacity(ports.len());
            let mut responses = Vec::with_capacity(2 * ports.len());
            for (address, port) in addresses.iter().zip(&ports) {
                let truth = self.0.truth(*address, *port);
                classes.push(truth.class as u8);
                flags.push(truth.flags);
                responses.extend_from_slice(&truth.response_id.to_ne_bytes());
            }
            (classes, flags, responses)
        });
        let array = |bytes: &[u8], kind: &str| numpy.call_method1("frombuffer", (PyBytes::new(py, bytes), kind));
        Ok(PyTuple::new(py, [array(&classes, "uint8")?, array(&flags, "uint8")?, array(&responses, "uint16")?])?)
    }

    /// Compares a run's rows with the truth, target by target.
    ///
    /// A target that the truth says answers, but not so in the rows, is *missed*; a row that the truth does not say is
    /// *invented*. Rows of repeated answers are counted apart.
    ///
    /// Args:
    ///     plan: what was probed.
    ///     batches: the rows, with the default columns.
    ///     rows: which answers were kept, as told to the scan: "all" or "success".
    ///     shard: which shard was probed.
    ///
    /// Returns:
    ///     A dict of probed, answered, found (successes), missed, invented, repeats, and truth (targets by class).
    #[pyo3(signature = (plan, batches, *, rows="success", shard=0))]
    fn check<'py>(
        &self,
        py: Python<'py>,
        plan: &PyPlan,
        batches: Vec<PyRef<'py, PyBatch>>,
        rows: &str,
        shard: u32,
    ) -> Result<Bound<'py, PyDict>> {
        let compiled = plan.compiled(py, shard)?;
        let probe = probe::of(&plan.plan)?;
        let batches: Vec<RecordBatch> = batches.iter().map(|batch| batch.0.clone()).collect();
        let all = rows == "all";
        let (answers, repeats) = py.detach(|| answers(&batches))?;
        let mut left = answers;
        let (mut answered, mut found, mut missed) = (0u64, 0u64, 0u64);
        let mut invented = 0u64;
        let mut truths: HashMap<Class, u64> = HashMap::new();
        py.detach(|| {
            let mut chunk = vec![(0, Target::default()); 65_536];
            let mut first = 0;
            loop {
                let filled = compiled.fill(first, &mut chunk);
                if filled == 0 {
                    break;
                }
                first += filled as u64;
                for (_, target) in &chunk[..filled] {
                    let truth = self.0.truth(target.address, target.port);
                    *truths.entry(truth.class).or_default() += 1;
                    let expected = expected(truth, &probe).filter(|(_, success)| all || *success);
                    match (expected, left.remove(&(target.address, target.port))) {
                        (Some((class, success)), Some(given)) if class == given => {
                            answered += 1;
                            found += u64::from(success);
                        }
                        (Some(_), Some(_)) => {
                            missed += 1;
                            invented += 1;
                        }
                        (Some(_), None) => missed += 1,
                        (None, Some(_)) => invented += 1,
                        (None, None) => {}
                    }
                }
            }
        });
        // What is left came from nobody we asked.
        invented += left.len() as u64;
        let dict = PyDict::new(py);
        dict.set_item("probed", compiled.len())?;
        dict.set_item("answered", answered)?;
        dict.set_item("found", found)?;
        dict.set_item("missed", missed)?;
        dict.set_item("invented", invented)?;
        dict.set_item("repeats", repeats)?;
        let truth = PyDict::new(py);
        for class in Class::ALL {
            truth.set_item(class.name(), truths.get(&class).copied().unwrap_or_default())?;
        }
        dict.set_item("truth", truth)?;
        Ok(dict)
    }

    /// Compares what an exchange kept of each success with what the lab's service must have said.
    ///
    /// Args:
    ///     batches: the rows, with the columns saddr, sport, status and response.
    ///     service: as for `reply_of`.
    ///
    /// Returns:
    ///     A dict of success (rows of that status) and intact (those whose response is right to the last byte).
    #[pyo3(signature = (batches, service="exchange"))]
    fn intact<'py>(
        &self,
        py: Python<'py>,
        batches: Vec<PyRef<'py, PyBatch>>,
        service: &str,
    ) -> Result<Bound<'py, PyDict>> {
        let service: Service = service.parse()?;
        let batches: Vec<RecordBatch> = batches.iter().map(|batch| batch.0.clone()).collect();
        let (success, intact) = py.detach(|| -> Result<_> {
            let reply = service.reply();
            let (mut success, mut intact) = (0_u64, 0_u64);
            for batch in &batches {
                let (addresses, ports) = (column(batch, "saddr")?, column(batch, "sport")?);
                let statuses = column(batch, "status")?.as_string::<i32>();
                let responses = column(batch, "response")?.as_binary::<i32>();
                for row in (0..batch.num_rows()).filter(|row| statuses.value(*row) == "success") {
                    let (address, port) = (address_in(addresses, row)?, ports.as_primitive::<UInt16Type>().value(row));
                    let said = match &reply {
                        Some(reply) => reply.said(self.0.response_draw(address, port)),
                        None => self.0.response(self.0.truth(address, port), port),
                    };
                    success += 1;
                    intact += u64::from(responses.value(row) == said);
                }
            }
            Ok((success, intact))
        })?;
        let dict = PyDict::new(py);
        dict.set_item("success", success)?;
        dict.set_item("intact", intact)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        let open = if self.0.config().everything_open { ", everything_open=True" } else { "" };
        format!("World(seed={}{open})", self.0.config().seed)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let keywords = PyDict::new(py);
        keywords.set_item("everything_open", slf.get().0.config().everything_open)?;
        let partial = py.import("functools")?.getattr("partial")?;
        let make = partial.call((slf.get_type(), slf.get().seed()), Some(&keywords))?;
        Ok((make, PyTuple::empty(py)))
    }
}

fn addresses_of(addresses: &Bound<'_, PyAny>) -> Result<Vec<u128>> {
    if let Ok(buffer) = PyBuffer::<u32>::get(addresses) {
        return Ok(buffer.to_vec(addresses.py())?.into_iter().map(u128::from).collect());
    }
    match PyBuffer::<u8>::get(addresses) {
        Ok(buffer) if matches!(buffer.shape(), [_, 16]) => {
            let bytes = buffer.to_vec(addresses.py())?;
            let (addresses, _) = bytes.as_chunks::<16>();
            Ok(addresses.iter().map(|address| u128::from_be_bytes(*address)).collect())
        }
        _ => Err(Error::config("Addresses are an array of uint32, or for IPv6 one of uint8 with 16 columns.")),
    }
}

/// The answer that a probe gets, and whether it counts as a success.
fn expected(truth: Truth, probe: &Probe) -> Option<(&'static str, bool)> {
    let has = |flag: u8| truth.flags & flag != 0;
    match probe.protocol() {
        Protocol::Icmp => has(flags::ECHO).then_some(("echoreply", true)),
        // An echo is no response to dns and ntp.
        Protocol::Udp if has(flags::UDP_ECHO) => Some(("udp", probe.name() == "udp")),
        Protocol::Udp => has(flags::ALIVE).then_some(("icmp", false)),
        // Nobody has sent a SYN, so that everybody resets the answer to it.
        Protocol::Tcp if probe.name() == "tcp_synackscan" => match truth.class {
            Class::Absent => None,
            Class::Filtered => Some(("icmp", false)),
            _ => Some(("rst", true)),
        },
        Protocol::Tcp => match truth.class {
            class if class.accepts() => Some(("synack", true)),
            Class::Closed => Some(("rst", false)),
            Class::Filtered => Some(("icmp", false)),
            _ => None,
        },
    }
}

type Answers = HashMap<(u128, u16), String>;

/// First answers by target, and how many repeats there were.
fn answers(batches: &[RecordBatch]) -> Result<(Answers, u64)> {
    let mut answers = HashMap::new();
    let mut repeats = 0;
    for batch in batches {
        let addresses = column(batch, "saddr")?;
        let ports = column(batch, "sport")?.as_primitive::<UInt16Type>();
        let classes = column(batch, "classification")?.as_string::<i32>();
        let again = column(batch, "repeat")?.as_boolean();
        for row in 0..batch.num_rows() {
            if again.value(row) {
                repeats += 1;
                continue;
            }
            answers.insert((address_in(addresses, row)?, ports.value(row)), classes.value(row).to_owned());
        }
    }
    Ok((answers, repeats))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::config(format!("The rows have no column '{name}'.")))
}

/// The address in a row of a column of either family.
fn address_in(addresses: &ArrayRef, row: usize) -> Result<u128> {
    match addresses.as_primitive_opt::<UInt32Type>() {
        Some(v4) => Ok(u128::from(v4.value(row))),
        None => {
            let bytes = addresses.as_fixed_size_binary().value(row);
            Ok(u128::from_be_bytes(bytes.try_into().map_err(|_| Error::config("An address is not 16 bytes."))?))
        }
    }
}
