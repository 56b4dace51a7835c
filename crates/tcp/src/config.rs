//! What a table of connections is told.

/// How connections behave, all of a table alike. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The secret under which the index hashes, so that nobody can aim at one of its chains.
    pub key: [u64; 2],
    /// Whether addresses are IPv6: headers are 20 bytes longer, and a silent peer's MSS is 1,220 (RFC 9293, MUST-15).
    pub v6: bool,
    /// The longest packet of our link, IP header included.
    pub mtu: u16,
    /// What our SYNs carried: the window.
    pub syn_window: u16,
    /// What our SYNs carried: the window scale, if any.
    pub window_scale: Option<u8>,
    /// What our SYNs carried: SACK permitted.
    pub sack_permitted: bool,
    /// What our SYNs carried: timestamps. TSval is the time in microseconds plus this.
    pub timestamp_offset: Option<u32>,
    /// How many bytes a peer may send ahead of our acknowledgements; at most 65,535 where it knows no window scale.
    pub window: u32,
    /// The most connections at once.
    pub max_connections: usize,
    /// The most bytes that wait for others before them, over all connections. What would exceed it is dropped, and the
    /// peer sends it again.
    pub max_buffered: usize,
    /// The least retransmission timeout (RFC 6298, 2.4).
    pub min_rto: u32,
    /// Whether the end of a flight is sent again after two round-trip times of silence, long before the retransmission
    /// timeout (RFC 8985, 7). Only where both sides speak SACK and timestamps.
    pub tail_loss_probe: bool,
    /// How often in a row something is sent again before the peer is given up (RFC 9293, R2).
    pub max_retransmits: u8,
    /// How long an acknowledgement may wait for data to go with (RFC 9293, MUST-40: below 500).
    pub delayed_ack: u32,
    /// How long a connection that we have closed by FIN waits for the peer's end of it.
    pub linger: u32,
    /// How long a connection may last while its owner has set no deadline.
    pub patience: u32,
}

impl Config {
    /// For connections whose SYNs were those of the probe `tcp_synscan` in its layout `linux`: over an MTU of 1,500, with
    /// timestamps of this offset.
    pub fn new(key: [u64; 2], v6: bool, timestamp_offset: u32) -> Self {
        Self {
            key,
            v6,
            mtu: 1500,
            syn_window: 64_240,
            window_scale: Some(7),
            sack_permitted: true,
            timestamp_offset: Some(timestamp_offset),
            window: 256 << 10,
            max_connections: 1 << 24,
            max_buffered: 256 << 20,
            min_rto: 1000,
            tail_loss_probe: true,
            // 1 + 2 + 4 + .. + 64 s: above the 100 s that RFC 9293 asks for.
            max_retransmits: 7,
            delayed_ack: 40,
            linger: 10_000,
            patience: 300_000,
        }
    }

    /// The same for SYNs in the layout `smallest`: no options, a window of 65,535.
    pub fn smallest(key: [u64; 2], v6: bool) -> Self {
        Self {
            syn_window: 65_535,
            window_scale: None,
            sack_permitted: false,
            timestamp_offset: None,
            ..Self::new(key, v6, 0)
        }
    }

    /// IP and TCP header without options.
    pub(crate) fn headers(&self) -> u16 {
        if self.v6 { 60 } else { 40 }
    }
}
