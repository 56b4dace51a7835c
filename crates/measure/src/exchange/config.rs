//! What an exchange is told.

use std::sync::Arc;
use std::time::Duration;

use arrow_schema::Fields;

use super::request::Request;
use super::schema::Column;
use super::session::{Close, Dialogue, Until};
use crate::listing::Listing;
use crate::scan::ScanConfig;

/// Which exchanges become rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExchangeRows {
    /// Those that ended as asked.
    Success,
    /// Every target that answered, by a connection, a refusal or an ICMP error.
    #[default]
    Answered,
    /// Those, and at the end of the run every target that stayed silent.
    All,
}

impl ExchangeRows {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Answered => "answered",
            Self::All => "all",
        }
    }
}

/// Everything that an exchange is told.
#[derive(Clone, Debug)]
pub struct ExchangeConfig {
    /// How targets are probed, by whom, how fast and until when. What it says of rows and columns is for scans.
    pub scan: ScanConfig,
    /// Where targets come from instead of the plan, which then says where they may lie. The list sends its SYNs again by
    /// itself.
    pub list: Option<Arc<Listing>>,
    /// What is sent to whoever accepts a connection.
    pub request: Request,
    /// The most bytes of it.
    pub longest_request: u32,
    /// When the response is complete, and how the connection is closed then.
    pub dialogue: Dialogue,
    /// The most bytes of a response that are kept.
    pub max_bytes: u32,
    /// How long a dialogue may take, from the SYN-ACK on.
    pub timeout: Duration,
    /// The most connections at once, those that SYNs under way may become among them.
    pub max_connections: usize,
    /// The same for each /24 of IPv4 or /48 of IPv6; `None` for no bound.
    pub max_per_prefix: Option<u32>,
    /// Bytes of memory for the answered map, connections and responses: SYNs pause where it may not be enough.
    pub max_memory: u64,
    /// Which exchanges become rows.
    pub rows: ExchangeRows,
    /// The columns.
    pub columns: Vec<Column>,
}

impl ExchangeConfig {
    /// The list's further columns, which come after ours.
    pub fn further(&self) -> Fields {
        self.list.as_ref().map_or_else(Fields::empty, |list| list.columns().clone())
    }

    /// The defaults: targets that are silent are probed twice again, the response is what comes until the peer closes,
    /// 64 KiB of it at most and for 10 s, and we close by RST.
    pub fn new(scan: ScanConfig, request: Request) -> Self {
        let longest_request = request.longest(scan.plan.family, 0);
        Self {
            scan: ScanConfig { reprobe: 2, ..scan },
            list: None,
            request,
            longest_request,
            dialogue: Dialogue { until: Until::Close, close: Close::Reset },
            max_bytes: 64 << 10,
            timeout: Duration::from_secs(10),
            max_connections: 1 << 20,
            max_per_prefix: None,
            max_memory: 2 << 30,
            rows: ExchangeRows::default(),
            columns: Column::ALL.to_vec(),
        }
    }
}
