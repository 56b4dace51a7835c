//! The columns of a scan. Names are ZMap's where the meaning is; the set is versioned and frozen by a test.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, TimeUnit};
use irl_targets::Family;

use crate::error::MeasureError;
use crate::probe_fields::{ProbeField, instead_of};

/// The version of the columns below. A change of a name, type or meaning is a new version.
pub const VERSION: u32 = 1;

/// A column of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Column {
    Saddr,
    Daddr,
    Sport,
    Dport,
    Seqnum,
    Acknum,
    Window,
    Ttl,
    Ipid,
    Classification,
    Success,
    Repeat,
    ProbeNum,
    Timestamp,
    Rtt,
    Cooldown,
    TcpoptMss,
    TcpoptWscale,
    TcpoptSackPerm,
    TcpoptTsVal,
    TcpoptTsEcr,
    IcmpType,
    IcmpCode,
    IcmpUnreachStr,
    Data,
    SaddrRaw,
    DaddrRaw,
    TimestampStr,
    TimestampTs,
    TimestampUs,
    IcmpResponder,
    OfProbe(ProbeField),
}

impl Column {
    /// Every column but those of one probe alone, default ones first.
    pub const ALL: [Self; 31] = [
        Self::Saddr,
        Self::Daddr,
        Self::Sport,
        Self::Dport,
        Self::Seqnum,
        Self::Acknum,
        Self::Window,
        Self::Ttl,
        Self::Ipid,
        Self::Classification,
        Self::Success,
        Self::Repeat,
        Self::ProbeNum,
        Self::Timestamp,
        Self::Rtt,
        Self::Cooldown,
        Self::TcpoptMss,
        Self::TcpoptWscale,
        Self::TcpoptSackPerm,
        Self::TcpoptTsVal,
        Self::TcpoptTsEcr,
        Self::IcmpType,
        Self::IcmpCode,
        Self::IcmpUnreachStr,
        Self::Data,
        Self::SaddrRaw,
        Self::DaddrRaw,
        Self::TimestampStr,
        Self::TimestampTs,
        Self::TimestampUs,
        Self::IcmpResponder,
    ];

    /// The columns that are there unless others are asked for.
    pub fn defaults() -> &'static [Self] {
        &Self::ALL[..15]
    }

    /// Every column of a probe: [`Column::ALL`], and those that its answers alone have.
    pub fn all(probe: &str) -> Vec<Self> {
        Self::ALL.into_iter().chain(ProbeField::of_probe(probe).map(Self::OfProbe)).collect()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Saddr => "saddr",
            Self::Daddr => "daddr",
            Self::Sport => "sport",
            Self::Dport => "dport",
            Self::Seqnum => "seqnum",
            Self::Acknum => "acknum",
            Self::Window => "window",
            Self::Ttl => "ttl",
            Self::Ipid => "ipid",
            Self::Classification => "classification",
            Self::Success => "success",
            Self::Repeat => "repeat",
            Self::ProbeNum => "probe_num",
            Self::Timestamp => "timestamp",
            Self::Rtt => "rtt",
            Self::Cooldown => "cooldown",
            Self::TcpoptMss => "tcpopt_mss",
            Self::TcpoptWscale => "tcpopt_wscale",
            Self::TcpoptSackPerm => "tcpopt_sack_perm",
            Self::TcpoptTsVal => "tcpopt_ts_val",
            Self::TcpoptTsEcr => "tcpopt_ts_ecr",
            Self::IcmpType => "icmp_type",
            Self::IcmpCode => "icmp_code",
            Self::IcmpUnreachStr => "icmp_unreach_str",
            Self::Data => "data",
            Self::SaddrRaw => "saddr_raw",
            Self::DaddrRaw => "daddr_raw",
            Self::TimestampStr => "timestamp_str",
            Self::TimestampTs => "timestamp_ts",
            Self::TimestampUs => "timestamp_us",
            Self::IcmpResponder => "icmp_responder",
            Self::OfProbe(field) => field.name(),
        }
    }

    /// What it says, in a line.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Saddr => "the target's address (of an ICMP error too: not the router's)",
            Self::Daddr => "our address",
            Self::Sport => "the target's port; 0 for ICMP echo",
            Self::Dport => "our port; the identifier for ICMP echo",
            Self::Seqnum => "TCP sequence number of the answer; ICMP echo sequence number",
            Self::Acknum => "TCP acknowledgement number of the answer",
            Self::Window => "TCP window of the answer, unscaled",
            Self::Ttl => "time to live or hop limit of the answer",
            Self::Ipid => "IPv4 identification of the answer; 0 for IPv6",
            Self::Classification => {
                "synack, rst, echoreply, udp, icmp; of echo scans unreach, timxceed, sourcequench, redirect, other"
            }
            Self::Success => "whether that is what the probe hoped for",
            Self::Repeat => "whether this target had answered before",
            Self::ProbeNum => "which probe of the target was answered, from 0",
            Self::Timestamp => "when the answer arrived, UTC, ns",
            Self::Rtt => "round-trip time in ns; null where the answer does not tell",
            Self::Cooldown => "whether it came after the last probe",
            Self::TcpoptMss => "TCP option: maximum segment size",
            Self::TcpoptWscale => "TCP option: window scale",
            Self::TcpoptSackPerm => "TCP option: SACK permitted",
            Self::TcpoptTsVal => "TCP option: the peer's timestamp",
            Self::TcpoptTsEcr => "TCP option: our timestamp, echoed",
            Self::IcmpType => "ICMP type of an ICMP answer",
            Self::IcmpCode => "ICMP code of an ICMP answer",
            Self::IcmpUnreachStr => "ZMap's word for an ICMP unreachable code",
            Self::Data => "the payload of a UDP answer; the first 16 bytes of an echo reply's",
            Self::SaddrRaw => "saddr in network byte order, read as a number of a little-endian machine",
            Self::DaddrRaw => "daddr in the same way",
            Self::TimestampStr => "when the answer arrived, to the millisecond, as ZMap writes it in UTC",
            Self::TimestampTs => "when the answer arrived, in whole s since 1970",
            Self::TimestampUs => "and the us beyond them",
            Self::IcmpResponder => "who sent an ICMP error",
            Self::OfProbe(field) => field.meaning(),
        }
    }

    /// The column of this name, among those of a probe.
    ///
    /// # Errors
    /// [`MeasureError::Config`] saying of what probe it is, what to take instead, or which names there are.
    pub fn by_name(probe: &str, name: &str) -> Result<Self, MeasureError> {
        let all = Self::all(probe);
        let found = all.iter().find(|column| column.name() == name);
        found.copied().ok_or_else(|| MeasureError::Config(no_field(probe, name, &all)))
    }

    fn field(self, family: Family) -> Field {
        let (data_type, nullable) = match self {
            Self::Saddr | Self::Daddr => (address(family), false),
            Self::Sport | Self::Dport | Self::Window | Self::Ipid => (DataType::UInt16, false),
            Self::Seqnum | Self::Acknum => (DataType::UInt32, false),
            Self::Ttl => (DataType::UInt8, false),
            Self::Classification => (DataType::Utf8, false),
            Self::Success | Self::Repeat | Self::Cooldown => (DataType::Boolean, false),
            Self::ProbeNum => (DataType::UInt16, false),
            Self::Timestamp => (time(), false),
            Self::Rtt => (DataType::Int64, true),
            Self::TcpoptMss => (DataType::UInt16, true),
            Self::TcpoptWscale | Self::IcmpType | Self::IcmpCode => (DataType::UInt8, true),
            Self::TcpoptSackPerm => (DataType::Boolean, true),
            Self::TcpoptTsVal | Self::TcpoptTsEcr => (DataType::UInt32, true),
            Self::IcmpUnreachStr => (DataType::Utf8, true),
            Self::Data => (DataType::Binary, true),
            Self::SaddrRaw | Self::DaddrRaw => (address(family), false),
            Self::TimestampStr => (DataType::Utf8, false),
            Self::TimestampTs => (DataType::Int64, false),
            Self::TimestampUs => (DataType::UInt32, false),
            Self::IcmpResponder => (address(family), true),
            Self::OfProbe(field) => (field.data_type(), true),
        };
        Field::new(self.name(), data_type, nullable)
    }
}

/// Why a probe has no such field, and what to do about it.
fn no_field(probe: &str, name: &str, all: &[Column]) -> String {
    if let Some(why) = of_another(probe, name) {
        return why;
    }
    let names: Vec<_> = all.iter().map(|column| column.name()).collect();
    format!("there is no output field '{name}'; there are {}", names.join(", "))
}

/// The same, of a field that another probe has, or only ZMap.
pub(crate) fn of_another(probe: &str, name: &str) -> Option<String> {
    let others: Vec<_> = ProbeField::all().filter(|field| field.name() == name).map(ProbeField::probe).collect();
    if !others.is_empty() {
        let others = others.join(" or ");
        return Some(format!(
            "the output field '{name}' is one of the probe {others}, and this is {probe}: leave it out"
        ));
    }
    instead_of(name).map(|instead| format!("there is no output field '{name}': {instead}"))
}

/// The schema of these columns for a family; its metadata carries [`VERSION`].
pub fn scan(family: Family, columns: &[Column]) -> Arc<Schema> {
    let fields: Vec<_> = columns.iter().map(|column| column.field(family)).collect();
    let metadata = [("irlstack.schema".to_owned(), format!("scan {VERSION}"))].into();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// The column of this name among those of some results.
pub(crate) fn by_name<C: Copy>(all: &[C], name_of: fn(C) -> &'static str, name: &str) -> Result<C, MeasureError> {
    all.iter().copied().find(|column| name_of(*column) == name).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|column| name_of(*column)).collect();
        MeasureError::Config(format!("there is no output field '{name}'; there are {}", names.join(", ")))
    })
}

/// The type of addresses.
pub(crate) fn address(family: Family) -> DataType {
    match family {
        Family::V4 => DataType::UInt32,
        Family::V6 => DataType::FixedSizeBinary(16),
    }
}

/// The type of times.
pub(crate) fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// The fields of a schema in a line, for the tests that freeze it.
#[cfg(test)]
pub(crate) fn text(schema: &Schema) -> String {
    let fields = schema
        .fields()
        .iter()
        .map(|f| format!("{} {}{}", f.name(), f.data_type(), if f.is_nullable() { "?" } else { "" }));
    fields.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: when this fails, raise [`VERSION`] and say so in the changelog.
    #[test]
    fn version_1_has_these_columns() {
        let text = |family| text(&scan(family, &Column::ALL));
        assert_eq!(VERSION, 1);
        assert_eq!(
            text(Family::V4),
            "saddr UInt32, daddr UInt32, sport UInt16, dport UInt16, seqnum UInt32, acknum UInt32, window UInt16, \
             ttl UInt8, ipid UInt16, classification Utf8, success Boolean, repeat Boolean, probe_num UInt16, \
             timestamp Timestamp(ns, \"UTC\"), rtt Int64?, cooldown Boolean, tcpopt_mss UInt16?, tcpopt_wscale UInt8?, \
             tcpopt_sack_perm Boolean?, tcpopt_ts_val UInt32?, tcpopt_ts_ecr UInt32?, icmp_type UInt8?, \
             icmp_code UInt8?, icmp_unreach_str Utf8?, data Binary?, saddr_raw UInt32, daddr_raw UInt32, \
             timestamp_str Utf8, timestamp_ts Int64, timestamp_us UInt32, icmp_responder UInt32?"
        );
        assert!(text(Family::V6).starts_with("saddr FixedSizeBinary(16), daddr FixedSizeBinary(16), sport UInt16"));
    }

    /// Frozen likewise.
    #[test]
    fn version_1_has_these_columns_of_single_probes() {
        let own = |probe| text(&scan(Family::V4, &Column::all(probe)[Column::ALL.len()..]));
        assert_eq!(own("icmp_echoscan"), "type UInt8?, code UInt8?, icmp_id UInt16?, seq UInt16?");
        assert_eq!(own("udp"), "udp_pkt_size UInt16?");
        assert_eq!(
            own("dns"),
            "udp_len UInt16?, app_success Boolean?, dns_id UInt16?, dns_rd UInt8?, dns_tc UInt8?, dns_aa UInt8?, \
             dns_opcode UInt8?, dns_qr UInt8?, dns_rcode UInt8?, dns_cd UInt8?, dns_ad UInt8?, dns_z UInt8?, \
             dns_ra UInt8?, dns_qdcount UInt16?, dns_ancount UInt16?, dns_nscount UInt16?, dns_arcount UInt16?"
        );
        assert_eq!(
            own("ntp"),
            "LI_VN_MODE UInt8?, stratum UInt8?, poll UInt8?, precision UInt8?, root_delay UInt32?, \
             root_dispersion UInt32?, reference_clock_identifier UInt32?, reference_timestamp UInt64?, \
             originate_timestamp UInt64?, receive_timestamp UInt64?, transmit_timestamp UInt64?"
        );
        assert_eq!((own("tcp_synscan"), own("own")), (String::new(), String::new()));
    }

    #[test]
    fn a_field_that_is_not_there_says_what_is() {
        let refusal = |probe, name| Column::by_name(probe, name).unwrap_err().to_string();
        assert!(Column::by_name("ntp", "stratum").is_ok());
        assert!(refusal("udp", "stratum").contains("is one of the probe ntp, and this is udp"));
        assert!(refusal("icmp_echoscan", "rtt_us").contains("take rtt, in ns"));
        assert!(refusal("dns", "raw_data").contains("take data"));
        assert!(refusal("dns", "saddrs").contains("there are saddr, daddr, sport"));
        assert!(refusal("dns", "saddrs").contains("dns_arcount"));
    }
}
