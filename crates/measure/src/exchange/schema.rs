//! The columns of an exchange; the set is versioned and frozen by a test.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema};
use irl_targets::Family;

use crate::error::MeasureError;
use crate::schema;

/// The version of the columns below. A change of a name, type or meaning is a new version.
pub const VERSION: u32 = 1;

/// A column of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Column {
    Saddr,
    Daddr,
    Sport,
    Dport,
    Timestamp,
    Status,
    Stage,
    ConnectNs,
    FirstByteNs,
    CloseNs,
    Retransmits,
    ClosedBy,
    Bytes,
    Truncated,
    Response,
}

impl Column {
    /// Every column; all are there unless others are asked for.
    pub const ALL: [Self; 15] = [
        Self::Saddr,
        Self::Daddr,
        Self::Sport,
        Self::Dport,
        Self::Timestamp,
        Self::Status,
        Self::Stage,
        Self::ConnectNs,
        Self::FirstByteNs,
        Self::CloseNs,
        Self::Retransmits,
        Self::ClosedBy,
        Self::Bytes,
        Self::Truncated,
        Self::Response,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Saddr => "saddr",
            Self::Daddr => "daddr",
            Self::Sport => "sport",
            Self::Dport => "dport",
            Self::Timestamp => "timestamp",
            Self::Status => "status",
            Self::Stage => "stage",
            Self::ConnectNs => "connect_ns",
            Self::FirstByteNs => "first_byte_ns",
            Self::CloseNs => "close_ns",
            Self::Retransmits => "retransmits",
            Self::ClosedBy => "closed_by",
            Self::Bytes => "bytes",
            Self::Truncated => "truncated",
            Self::Response => "response",
        }
    }

    /// What it says, in a line.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Saddr => "the target's address, as in a scan",
            Self::Daddr => "our address",
            Self::Sport => "the target's port",
            Self::Dport => "our port",
            Self::Timestamp => "when the SYN left, or without TCP timestamps when its answer came, UTC, ns",
            Self::Status => {
                "success, connection-refused, connection-timeout, connection-closed, io-timeout, protocol-error, \
                 application-error, unknown-error"
            }
            Self::Stage => "where it ended: connect, request, response or close",
            Self::ConnectNs => "from the SYN to its answer in ns; null where the answer does not tell",
            Self::FirstByteNs => "from the SYN to the first data in ns; null without",
            Self::CloseNs => "from the SYN to the end of the connection in ns; null where it is not known",
            Self::Retransmits => "segments of ours that were sent again",
            Self::ClosedBy => "who ended the connection: us or peer; null for nobody",
            Self::Bytes => "bytes of the peer's that came in order, kept or not",
            Self::Truncated => "whether the response was cut at the most bytes that are kept",
            Self::Response => "the response; null without a connection",
        }
    }

    /// The column of this name.
    ///
    /// # Errors
    /// [`MeasureError::Config`] listing the names there are.
    pub fn by_name(name: &str) -> Result<Self, MeasureError> {
        schema::by_name(&Self::ALL, Self::name, name)
    }

    fn field(self, family: Family) -> Field {
        let (data_type, nullable) = match self {
            Self::Saddr | Self::Daddr => (schema::address(family), false),
            Self::Sport | Self::Dport | Self::Retransmits => (DataType::UInt16, false),
            Self::Timestamp => (schema::time(), false),
            Self::Status | Self::Stage => (DataType::Utf8, false),
            Self::ConnectNs | Self::FirstByteNs | Self::CloseNs => (DataType::Int64, true),
            Self::ClosedBy => (DataType::Utf8, true),
            Self::Bytes => (DataType::UInt64, false),
            Self::Truncated => (DataType::Boolean, false),
            Self::Response => (DataType::Binary, true),
        };
        Field::new(self.name(), data_type, nullable)
    }
}

/// The schema of these columns for a family, and after them of a list's further ones; its metadata carries [`VERSION`].
/// A further column whose name is one of ours is called `list_` and its name.
pub fn exchange(family: Family, columns: &[Column], further: &Fields) -> Arc<Schema> {
    let mut fields: Vec<Arc<Field>> = columns.iter().map(|column| Arc::new(column.field(family))).collect();
    for field in further {
        let mut name = field.name().clone();
        // All of them, so that the choice of ours does not change a name.
        let taken = |name: &String, fields: &[Arc<Field>]| {
            Column::ALL.iter().any(|column| column.name() == name) || fields.iter().any(|field| field.name() == name)
        };
        while taken(&name, &fields) {
            name.insert_str(0, "list_");
        }
        fields.push(Arc::new(field.as_ref().clone().with_name(name)));
    }
    let metadata = [("irlstack.schema".to_owned(), format!("exchange {VERSION}"))].into();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: when this fails, raise [`VERSION`] and say so in the changelog.
    #[test]
    fn version_1_has_these_columns() {
        let text = |family| schema::text(&exchange(family, &Column::ALL, &Fields::empty()));
        assert_eq!(VERSION, 1);
        assert_eq!(
            text(Family::V4),
            "saddr UInt32, daddr UInt32, sport UInt16, dport UInt16, timestamp Timestamp(ns, \"UTC\"), status Utf8, \
             stage Utf8, connect_ns Int64?, first_byte_ns Int64?, close_ns Int64?, retransmits UInt16, closed_by Utf8?, \
             bytes UInt64, truncated Boolean, response Binary?"
        );
        assert!(text(Family::V6).starts_with("saddr FixedSizeBinary(16), daddr FixedSizeBinary(16), sport UInt16"));
    }

    #[test]
    fn further_columns_come_last_and_no_name_is_there_twice() {
        let further = ["tag", "timestamp", "tag", "list_timestamp"].map(|name| Field::new(name, DataType::Utf8, true));
        let schema = exchange(Family::V4, &[Column::Saddr, Column::Status], &Fields::from(further.to_vec()));
        let text = schema::text(&schema);
        let expected =
            "saddr UInt32, status Utf8, tag Utf8?, list_timestamp Utf8?, list_tag Utf8?, list_list_timestamp Utf8?";
        assert_eq!(text, expected);
        assert_eq!(schema.metadata()["irlstack.schema"], "exchange 1");
    }
}
