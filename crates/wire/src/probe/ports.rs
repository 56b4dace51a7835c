//! The ports that probes leave from.

use serde::{Deserialize, Serialize};

use crate::cookie::Cookie;

/// A range of source ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl PortRange {
    /// Outside Linux's ephemeral ports, so that the host's own connections stay clear of it (facts of design 4).
    pub const DEFAULT: Self = Self { first: 61000, last: 65535 };

    /// How many ports there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u32 {
        u32::from(self.last.saturating_sub(self.first)) + 1
    }

    /// Whether a port is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// The source port of a probe: `first + (port part of the cookie + probe number) mod len`.
    #[inline]
    pub fn source_port(self, cookie: Cookie, probe_num: u16) -> u16 {
        let offset = (u32::from(cookie.port_part()) + u32::from(probe_num)) % self.len();
        // Below len, and first + len - 1 is last.
        self.first + offset as u16
    }

    /// Which probe of a target left from this port; `None` when the port is not in the range. The answer is below
    /// `len`; the caller compares it with the number of probes.
    #[inline]
    pub fn probe_num(self, cookie: Cookie, port: u16) -> Option<u16> {
        if !self.contains(port) {
            return None;
        }
        let len = self.len();
        let offset = u32::from(port - self.first);
        let num = (offset + len - u32::from(cookie.port_part()) % len) % len;
        u16::try_from(num).ok()
    }
}
