//! Keywords of a call that has many: each is read once, with what it is where it is not given.

use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{Error, Result};

/// The keywords of one call.
pub(crate) struct Keywords<'py> {
    /// What was called.
    of: &'static str,
    /// Those that have not been read.
    left: Bound<'py, PyDict>,
}

impl<'py> Keywords<'py> {
    pub(crate) fn new(py: Python<'py>, of: &'static str, given: Option<&Bound<'py, PyDict>>) -> Result<Self> {
        let left = given.map_or_else(|| Ok(PyDict::new(py)), |given| given.copy())?;
        Ok(Self { of, left })
    }

    /// The value of a keyword that may be left out.
    pub(crate) fn or<T: FromPyObjectOwned<'py>>(&self, name: &str, otherwise: T) -> Result<T> {
        let Some(value) = self.left.get_item(name)? else { return Ok(otherwise) };
        self.left.del_item(name)?;
        value.extract().map_err(Into::<PyErr>::into).map_err(|error| {
            let py = value.py();
            // As Python names what is of a wrong type.
            Error::Python(if error.is_instance_of::<PyTypeError>(py) {
                PyTypeError::new_err(format!("argument '{name}': {}", error.value(py)))
            } else {
                error
            })
        })
    }

    /// The value of a keyword that may be left out, or be `None`.
    pub(crate) fn optional<T: FromPyObjectOwned<'py>>(&self, name: &str) -> Result<Option<T>> {
        self.or(name, None)
    }

    /// Nothing is left that nobody reads.
    pub(crate) fn end(self) -> Result<()> {
        let Some((name, _)) = self.left.iter().next() else { return Ok(()) };
        let message = format!("{}() got an unexpected keyword argument '{name}'", self.of);
        Err(Error::Python(PyTypeError::new_err(message)))
    }
}
