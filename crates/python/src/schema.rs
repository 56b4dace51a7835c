//! The columns of results, for `irlstack schema`.

use arrow_schema::{DataType, Fields, Schema};
use irl_measure::{exchange, schema};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::Result;
use crate::prefix::parse_family;

/// The columns of a scan: dicts of name, type, nullable, default (whether it is there unless others are asked for) and
/// meaning; of those that the answers of one probe have beside all others', its name is given.
///
/// >>> import irlstack as irl
/// >>> irl.scan_fields()[0]["name"]
/// 'saddr'
#[pyfunction]
#[pyo3(signature = (family="ipv4", probe_module="tcp_synscan"))]
pub(crate) fn scan_fields<'py>(py: Python<'py>, family: &str, probe_module: &str) -> Result<Vec<Bound<'py, PyDict>>> {
    use schema::Column;
    let columns = Column::all(probe_module);
    let schema = schema::scan(parse_family(family)?, &columns);
    fields(py, &schema, columns.iter().map(|column| (Column::defaults().contains(column), column.meaning())))
}

/// The columns of an exchange, as those of a scan in `scan_fields`; a list's further ones come after them.
///
/// >>> import irlstack as irl
/// >>> [each["name"] for each in irl.exchange_fields()][-1]
/// 'response'
#[pyfunction]
#[pyo3(signature = (family="ipv4"))]
pub(crate) fn exchange_fields<'py>(py: Python<'py>, family: &str) -> Result<Vec<Bound<'py, PyDict>>> {
    use exchange::schema::{Column, exchange};
    let schema = exchange(parse_family(family)?, &Column::ALL, &Fields::empty());
    fields(py, &schema, Column::ALL.iter().map(|column| (true, column.meaning())))
}

/// A schema's fields as dicts; of each also whether it is a default and what it means.
fn fields<'py>(
    py: Python<'py>,
    schema: &Schema,
    columns: impl Iterator<Item = (bool, &'static str)>,
) -> Result<Vec<Bound<'py, PyDict>>> {
    let mut fields = Vec::new();
    for (field, (default, meaning)) in schema.fields().iter().zip(columns) {
        let dict = PyDict::new(py);
        dict.set_item("name", field.name())?;
        dict.set_item("type", type_name(field.data_type()))?;
        dict.set_item("nullable", field.is_nullable())?;
        dict.set_item("default", default)?;
        dict.set_item("meaning", meaning)?;
        fields.push(dict);
    }
    Ok(fields)
}

/// Arrow's own words for a type, in lower case.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "utf8".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::FixedSizeBinary(width) => format!("fixed_size_binary[{width}]"),
        DataType::Timestamp(_, Some(zone)) => format!("timestamp[ns, {zone}]"),
        other => other.to_string().to_lowercase(),
    }
}
