//! What `irlstack bench` compares with, and where it counts.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use irl_lab::baseline::sockets::{self, Questions};
use irl_lab::baseline::{self, Baseline, Job};
use irl_lab::sink::Sink;
use pyo3::prelude::*;

use crate::errors::{Error, Result};
use crate::stack::mac;

/// A sender without this project: one of `Baseline.names()`.
#[pyclass(name = "Baseline", frozen, module = "irlstack._core")]
pub(crate) struct PyBaseline {
    baseline: Baseline,
    job: Job,
    stop: AtomicBool,
}

#[pymethods]
impl PyBaseline {
    #[new]
    fn new(name: &str, interface: String, gateway_mac: &str, source_ip: IpAddr) -> Result<Self> {
        let IpAddr::V4(source) = source_ip else {
            return Err(Error::config("The baselines send IPv4 only."));
        };
        let job = Job { interface, gateway: mac(gateway_mac)?, source, frames: 0 };
        Ok(Self { baseline: name.parse()?, job, stop: AtomicBool::new(false) })
    }

    /// What there is.
    #[staticmethod]
    fn names() -> Vec<&'static str> {
        Baseline::ALL.map(Baseline::name).to_vec()
    }

    /// Sends from the calling thread, in its namespace, until all frames were taken or `stop` is called; returns how
    /// many the interface took.
    fn run(&self, py: Python<'_>, frames: u64) -> Result<u64> {
        let job = Job { frames, ..self.job.clone() };
        Ok(py.detach(|| baseline::send(self.baseline, &job, &self.stop))?)
    }

    /// Ends `run`, from another thread.
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Exchanges by the kernel's blocking sockets with host after host of 10.0.0.0/8, on port 80.
#[pyclass(name = "KernelSockets", frozen, module = "irlstack._core")]
pub(crate) struct PyKernelSockets {
    questions: Questions,
    stop: AtomicBool,
}

#[pymethods]
impl PyKernelSockets {
    #[new]
    #[pyo3(signature = (request, reply, close, *, first = 0, step = 1))]
    fn new(request: Vec<u8>, reply: usize, close: &str, first: u64, step: u64) -> Result<Self> {
        let questions = Questions { request, reply, close: close.parse()?, first, step, exchanges: 0 };
        Ok(Self { questions, stop: AtomicBool::new(false) })
    }

    /// Asks from the calling thread, in its namespace, until so many were asked or `stop` is called; returns how many
    /// answered in full, and how many did not.
    fn run(&self, py: Python<'_>, exchanges: u64) -> Result<(u64, u64)> {
        let questions = Questions { exchanges, ..self.questions.clone() };
        let asked = py.detach(|| sockets::ask(&questions, &self.stop))?;
        Ok((asked.complete, asked.failed))
    }

    /// Ends `run` after the connection that it is at, from another thread.
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Counts TCP frames to 10.0.0.0/8 that arrive at an interface of the calling thread's namespace, and drops them.
#[pyclass(name = "Sink", frozen, module = "irlstack._core")]
pub(crate) struct PySink(Mutex<Option<Sink>>);

#[pymethods]
impl PySink {
    #[new]
    fn new(interface: &str) -> Result<Self> {
        Ok(Self(Mutex::new(Some(Sink::attach(interface)?))))
    }

    /// Frames and bytes so far.
    fn arrived(&self) -> Result<(u64, u64)> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sink = held.as_ref().ok_or_else(|| Error::config("This sink is closed."))?;
        let arrived = sink.arrived()?;
        Ok((arrived.frames, arrived.bytes))
    }

    /// Detaches; may be called twice.
    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The version of the libpcap that the baseline would use.
#[pyfunction]
pub(crate) fn pcap_version() -> Result<String> {
    Ok(baseline::pcap_version()?)
}
