//! The lab's running parts: a World's hosts at the end of a link, and a link that loses frames.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use irl_lab::hosts::{Hosts, Relay};
use irl_lab::impairment::LineCounters;
use irl_lab::{Direction, Impairment, Service, World, WorldConfig};
use irl_targets::PrefixSet;
use pyo3::prelude::*;

use crate::errors::Result;

/// The hosts of a World on an interface; they answer until closed.
#[pyclass(name = "Hosts", frozen, module = "irlstack._core")]
pub(crate) struct PyHosts(Mutex<Hosts>);

#[pymethods]
impl PyHosts {
    #[new]
    #[pyo3(signature = (netns, interface, ranges, *, seed, everything_open = false, service = "response", kernel = true))]
    #[allow(clippy::too_many_arguments, reason = "each is a keyword in Python")]
    fn new(
        py: Python<'_>,
        netns: Option<&str>,
        interface: &str,
        ranges: Vec<String>,
        seed: u64,
        everything_open: bool,
        service: &str,
        kernel: bool,
    ) -> Result<Self> {
        let service: Service = service.parse()?;
        let world = World::new(WorldConfig { seed, everything_open });
        let mut sets = Vec::new();
        for range in &ranges {
            sets.push(PrefixSet::parse_items([range.as_str()])?);
        }
        Ok(Self(Mutex::new(py.detach(|| Hosts::start(netns, interface, world, sets, service, kernel))?)))
    }

    /// Whether the kernel answers too.
    #[getter]
    fn in_kernel(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).in_kernel()
    }

    /// What they did so far, by name.
    fn counters(&self) -> Result<BTreeMap<&'static str, u64>> {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner).counters()?;
        Ok(BTreeMap::from([
            ("kernel_answered", counters.kernel.answered),
            ("kernel_silent", counters.kernel.silent),
            ("kernel_passed", counters.kernel.passed),
            ("kernel_no_room", counters.kernel.no_room),
            ("kernel_served", counters.kernel.served),
            ("kernel_held", counters.kernel.held),
            ("received", counters.received),
            ("answered", counters.answered),
            ("dropped", counters.dropped),
            ("held", counters.held),
        ]))
    }

    /// From now on SYNs are answered, and every other segment is swallowed and counted.
    fn hold(&self) -> Result<()> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).hold(true)?)
    }

    /// Ends a hold: what is sent again is answered.
    fn release(&self) -> Result<()> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).hold(false)?)
    }

    /// Stops answering; may be called twice.
    fn close(&self, py: Python<'_>) -> Result<()> {
        Ok(py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).close())?)
    }
}

/// A link between two interfaces that loses, delays, reorders and repeats frames until closed.
#[pyclass(name = "Relay", frozen, module = "irlstack._core")]
pub(crate) struct PyRelay(Mutex<Relay>);

#[pymethods]
impl PyRelay {
    #[new]
    #[pyo3(signature = (netns, near, far, *, seed = 0, loss = 0.0, duplicate = 0.0, reorder = 0.0, delay_ms = 0.0))]
    #[allow(clippy::too_many_arguments, reason = "each is a keyword in Python")]
    fn new(
        py: Python<'_>,
        netns: Option<&str>,
        near: &str,
        far: &str,
        seed: u64,
        loss: f64,
        duplicate: f64,
        reorder: f64,
        delay_ms: f64,
    ) -> Result<Self> {
        let delay_ns = (delay_ms.max(0.0) * 1e6) as u64;
        // What is held back waits as long again as the others, and a millisecond at least.
        let direction = Direction { loss, duplicate, reorder, reorder_ns: delay_ns.max(1_000_000), delay_ns };
        let impairment = Impairment { seed, there: direction, back: direction };
        Ok(Self(Mutex::new(py.detach(|| Relay::start(netns, near, far, impairment))?)))
    }

    /// What the link did to frames, by direction: there, back.
    fn counters(&self) -> [BTreeMap<&'static str, u64>; 2] {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counters().map(|line: LineCounters| {
            BTreeMap::from([
                ("entered", line.entered),
                ("lost", line.lost),
                ("duplicated", line.duplicated),
                ("reordered", line.reordered),
                ("left", line.left),
            ])
        })
    }

    /// Stops forwarding; may be called twice.
    fn close(&self, py: Python<'_>) -> Result<()> {
        Ok(py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).close())?)
    }
}
