//! The columns of results, for `irlstack schema`.

use arrow_schema::DataType;
use irl_measure::schema::{self, Column};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::Result;
use crate::prefix::parse_family;

/// The columns of a scan: dicts of name, type, nullable, default (whether it is there unless others are asked for) and
/// meaning.
///
/// >>> import irlstack as irl
/// >>> irl.scan_fields()[0]["name"]
/// 'saddr'
#[pyfunction]
#[pyo3(signature = (family="ipv4"))]
pub(crate) fn scan_fields<'py>(py: Python<'py>, family: &str) -> Result<Vec<Bound<'py, PyDict>>> {
    let schema = schema::scan(parse_family(family)?, &Column::ALL);
    let mut fields = Vec::new();
    for (column, field) in Column::ALL.iter().zip(schema.fields()) {
        let dict = PyDict::new(py);
        dict.set_item("name", column.name())?;
        dict.set_item("type", type_name(field.data_type()))?;
        dict.set_item("nullable", field.is_nullable())?;
        dict.set_item("default", Column::defaults().contains(column))?;
        dict.set_item("meaning", column.meaning())?;
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
