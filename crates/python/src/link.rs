//! What this machine's interfaces are, for `irlstack doctor`.

use irl_link::netdev::Interface;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::Result;

/// What the system says of an interface, as a dict: name, driver, ethernet, mac (None where there is no Ethernet), mtu, up, rx_queues, addresses, default_route,
/// xdp_program (its name, or None).
///
/// Raises:
///     EngineError: there is no such interface, or it carries neither Ethernet nor bare IP packets.
#[pyfunction]
pub(crate) fn interface<'py>(py: Python<'py>, name: &str) -> Result<Bound<'py, PyDict>> {
    let interface = Interface::by_name(name)?;
    let dict = PyDict::new(py);
    dict.set_item("name", &interface.name)?;
    dict.set_item("driver", &interface.driver)?;
    dict.set_item("ethernet", interface.ethernet)?;
    dict.set_item("mac", interface.ethernet.then(|| interface.mac.to_string()))?;
    dict.set_item("mtu", interface.mtu)?;
    dict.set_item("up", interface.up)?;
    dict.set_item("rx_queues", interface.rx_queues)?;
    let addresses = interface.addresses.iter().map(|each| format!("{}/{}", each.address, each.prefix_len));
    dict.set_item("addresses", addresses.collect::<Vec<_>>())?;
    dict.set_item("default_route", interface.has_default_route())?;
    dict.set_item("xdp_program", interface.xdp_program()?.map(|program| program.name))?;
    Ok(dict)
}
