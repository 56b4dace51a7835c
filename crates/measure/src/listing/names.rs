//! Which column of a list is which, by its name.

use crate::error::MeasureError;

/// Names of the column of addresses, and of those of ports and hosts; where there are several, the first counts. A scan's
/// own output has the target in `saddr` and `sport`, as ZMap has.
const ADDRESS: [&str; 4] = ["ip", "address", "saddr", "ip_address"];
const PORT: [&str; 2] = ["port", "sport"];
const HOST: [&str; 3] = ["domain", "host", "hostname"];

/// Where in a list the targets are. Numbers are those of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) address: usize,
    pub(super) port: Option<usize>,
    /// What `{host}` stands for.
    pub(super) host: Option<usize>,
    /// Each target's own request.
    pub(super) request: Option<usize>,
}

impl Names {
    /// Finds them among the names of all columns; that of requests has the name that was given for it.
    ///
    /// # Errors
    /// [`MeasureError::Config`] where there are no addresses, or no requests of that name.
    pub(super) fn find(names: &[&str], request: Option<&str>, list: &str) -> Result<Self, MeasureError> {
        let by_name = |wanted: &[&str]| {
            wanted.iter().find_map(|wanted| names.iter().position(|name| name.trim().eq_ignore_ascii_case(wanted)))
        };
        let there = names.join(", ");
        let address = by_name(&ADDRESS).ok_or_else(|| {
            MeasureError::Config(format!(
                "{list} has no column of addresses, which is called {}; its columns are {there}",
                ADDRESS.join(", ")
            ))
        })?;
        let request = request.map(|wanted| {
            names.iter().position(|name| *name == wanted).ok_or_else(|| {
                MeasureError::Config(format!("{list} has no column {wanted} of requests; its columns are {there}"))
            })
        });
        Ok(Self { address, port: by_name(&PORT), host: by_name(&HOST), request: request.transpose()? })
    }

    /// Whether a name is that of a column of addresses.
    pub(super) fn is_address(name: &str) -> bool {
        ADDRESS.iter().any(|address| name.trim().eq_ignore_ascii_case(address))
    }

    /// The columns beside those of address and port, of so many.
    pub(super) fn further(&self, columns: usize) -> Vec<usize> {
        (0..columns).filter(|column| *column != self.address && Some(*column) != self.port).collect()
    }

    /// The place of a column among the further ones.
    pub(super) fn place(&self, column: usize) -> usize {
        let before = |of: usize| usize::from(of < column);
        column - before(self.address) - self.port.map_or(0, before)
    }
}
