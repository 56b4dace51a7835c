//! Python bindings of irlstack: thin, one file an area, one place for errors.
//!
//! Everything here converts arguments, lets go of the interpreter, calls the crate that does the work, and converts
//! the answer. What users see is `python/irlstack`, which documents it.

#![deny(unsafe_code)]

use pyo3::pymodule;

/// The extension module `irlstack._core`.
#[pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
