//! What Python does when a run was accepted and before its first frame.

use std::sync::{Arc, Mutex, PoisonError};

use irl_measure::MeasureError;
use irl_measure::ready::Ready;
use pyo3::prelude::*;

use crate::errors::{Error, Result};

/// A callable of Python's, and the exception that it raised.
pub(crate) struct Callback {
    pub(crate) ready: Option<Ready>,
    raised: Arc<Mutex<Option<PyErr>>>,
}

impl Callback {
    pub(crate) fn new(callable: Option<Py<PyAny>>) -> Self {
        let raised = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&raised);
        let ready = callable.map(|callable| {
            Ready::new(move || {
                Python::attach(|py| callable.call0(py)).map(drop).map_err(|error| {
                    let why = MeasureError::Config(error.to_string());
                    *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    why
                })
            })
        });
        Self { ready, raised }
    }

    /// What a start came to: its exception is Python's own, where it has one.
    pub(crate) fn outcome<T>(&self, started: std::result::Result<T, MeasureError>) -> Result<T> {
        started.map_err(|error| {
            let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
            raised.map_or_else(|| Error::from(error), Error::Python)
        })
    }
}
