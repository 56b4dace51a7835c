//! Our addresses as Python users write them.

use std::net::IpAddr;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::errors::{Error, Result};

/// One address, several in one text ("192.0.2.10,192.0.2.11"), or a sequence of addresses; each as text or as an
/// `ipaddress` object.
#[derive(Default)]
pub(crate) struct Addresses(pub(crate) Vec<IpAddr>);

impl<'py> FromPyObject<'_, 'py> for Addresses {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let mut out = Vec::new();
        if let Ok(text) = object.cast::<PyString>() {
            for item in text.to_cow()?.split(',') {
                out.push(parse(item.trim())?);
            }
        } else if let Ok(address) = object.extract::<IpAddr>() {
            out.push(address);
        } else if object.cast::<PyBytes>().is_ok() || object.try_iter().is_err() {
            return Err(refused(&object.repr()?.to_string_lossy()).into());
        } else {
            for item in object.try_iter()? {
                out.push(parse(item?.str()?.to_string_lossy().trim())?);
            }
        }
        Ok(Self(out))
    }
}

fn parse(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| refused(&format!("{text:?}")))
}

fn refused(what: &str) -> Error {
    Error::config(format!("source_ip: {what} is no address; write \"192.0.2.10\", or a list of such."))
}
