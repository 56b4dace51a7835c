//! Python bindings of irlstack: thin, one file an area, one place for errors.
//!
//! Everything here converts arguments, lets go of the interpreter, calls the crate that does the work, and converts
//! the answer. What users see is `python/irlstack`, which documents it.

#![deny(unsafe_code)]

mod addresses;
mod arrow;
#[cfg(target_os = "linux")]
mod bench;
mod checkpoint;
mod errors;
mod frames;
mod keywords;
#[cfg(target_os = "linux")]
mod lab;
#[cfg(target_os = "linux")]
mod link;
mod list;
mod numbers;
mod output;
mod parse;
mod plan;
mod policy;
mod ports;
mod prefix;
mod probe;
mod reading;
mod ready;
mod run;
mod schema;
mod sending;
mod stack;
mod targets;
mod world;

use pyo3::pymodule;

/// The extension module `irlstack._core`.
#[pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;
    use pyo3_log::{Caching, Logger};

    #[pymodule_export]
    use crate::arrow::PyBatch;
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use crate::bench::{PyBaseline, PyKernelSockets, PySink, pcap_version};
    #[pymodule_export]
    use crate::checkpoint::PyCheckpoint;
    #[pymodule_export]
    use crate::frames::{PyCompletion, PyStream};
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use crate::lab::{PyHosts, PyRelay};
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use crate::link::interface;
    #[pymodule_export]
    use crate::list::PyList;
    #[pymodule_export]
    use crate::output::{PyOutputs, record_run};
    #[pymodule_export]
    use crate::plan::PyPlan;
    #[pymodule_export]
    use crate::prefix::PyPrefixSet;

    #[pymodule_export]
    use crate::probe::PyProbe;

    #[pymodule_export]
    use crate::run::PyRun;
    #[pymodule_export]
    use crate::schema::{exchange_fields, scan_fields};
    #[pymodule_export]
    use crate::stack::{PyStack, check_filter, refuse_early};
    #[pymodule_export]
    use crate::targets::PyTargets;

    #[pymodule_export]
    use crate::world::PyWorld;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Records of Rust's `log` go to Python's loggers of the same names below `irlstack`. Levels are asked for each
        // time: they may change between two runs.
        let logger = Logger::new(module.py(), Caching::Loggers)?;
        logger.set_prefix("irlstack").install().ok();
        module.add("DEFAULT_RATE", irl_link::policy::DEFAULT_RATE)?;
        module.add("FILTER_BUILT", irl_link::filter::FILTER_BUILT)?;
        module.add("EXCHANGE_SCHEMA_VERSION", irl_measure::exchange::schema::VERSION)?;
        module.add("SCHEMA_VERSION", irl_measure::schema::VERSION)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
