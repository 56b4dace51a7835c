//! Target ports, as users write them and as a probe needs them.

use irl_targets::{Plan, PortSet};
use pyo3::prelude::*;

use crate::errors::{Error, Result};
use crate::probe;

/// Ports as users write them.
#[derive(FromPyObject)]
pub(crate) enum PortsLike {
    One(i64),
    Text(String),
    Many(Vec<i64>),
}

impl PortsLike {
    pub(crate) fn parse(self) -> Result<PortSet> {
        let text = match self {
            Self::One(port) => port.to_string(),
            Self::Text(text) => text,
            Self::Many(ports) => ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        Ok(PortSet::parse(&text)?)
    }
}

/// A probe either has target ports or it has none.
pub(crate) fn check_ports(plan: &Plan) -> Result<()> {
    let needs = probe::of(plan)?.needs_port();
    let name = &plan.probe.name;
    match (needs, has_ports(&plan.ports) || plan.list.is_some()) {
        (true, false) => {
            Err(Error::config(format!("The probe {name} needs target ports: ports=80, or --target-ports 80.")))
        }
        (false, true) if has_ports(&plan.ports) => Err(Error::config(format!("The probe {name} has no target ports."))),
        _ => Ok(()),
    }
}

/// Whether a set of ports is that of a probe without ports.
pub(crate) fn has_ports(ports: &PortSet) -> bool {
    *ports != PortSet::none()
}
