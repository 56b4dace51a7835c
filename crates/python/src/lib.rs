//! Python bindings of irlstack: thin, one file an area, one place for errors.
//!
//! Everything here converts arguments, lets go of the interpreter, calls the crate that does the work, and converts
//! the answer. What users see is `python/irlstack`, which documents it.

#![deny(unsafe_code)]

mod arrow;
mod errors;
mod plan;
mod prefix;
mod probe;

use pyo3::pymodule;

/// The extension module `irlstack._core`.
#[pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::arrow::PyBatch;
    #[pymodule_export]
    use crate::plan::{PyPlan, PyTargets};
    #[pymodule_export]
    use crate::prefix::PyPrefixSet;

    #[pymodule_export]
    use crate::probe::PyProbe;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Records of Rust's `log` go to Python's loggers of the same names.
        pyo3_log::try_init().ok();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
