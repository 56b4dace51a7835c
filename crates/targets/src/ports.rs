//! Port sets: lists and ranges.

use std::fmt;
use std::str::FromStr;

use crate::error::{Result, TargetsError};

/// A sorted set of ports without duplicates, never empty.
///
/// ```
/// use irl_targets::PortSet;
/// let ports: PortSet = "443,80,8000-8002,80".parse().unwrap();
/// assert_eq!(ports.to_string(), "80,443,8000-8002");
/// assert_eq!(ports.len(), 5);
/// assert_eq!(ports.get(2), Some(8000));
/// assert_eq!(ports.index_of(443), Some(1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortSet {
    ports: Vec<u16>,
}

impl PortSet {
    /// The set for probes that have no port (ICMP echo): the single port 0.
    pub fn none() -> Self {
        Self { ports: vec![0] }
    }

    /// All 65,536 ports.
    pub fn all() -> Self {
        Self { ports: (0..=u16::MAX).collect() }
    }

    /// A set of these ports; `None` when there are none.
    pub fn from_ports(ports: impl IntoIterator<Item = u16>) -> Option<Self> {
        let mut ports: Vec<u16> = ports.into_iter().collect();
        ports.sort_unstable();
        ports.dedup();
        (!ports.is_empty()).then_some(Self { ports })
    }

    /// Parses `80`, `80,443`, `8000-8010`, `*`, and lists of them. Duplicates are folded.
    pub fn parse(text: &str) -> Result<Self> {
        let mut ports = Vec::new();
        for item in text.split(',') {
            let item = item.trim();
            let wrong = |reason| TargetsError::Port { text: item.to_owned(), reason };
            if item == "*" {
                return Ok(Self::all());
            }
            let (first, last) = match item.split_once('-') {
                Some((first, last)) => (number(first).map_err(wrong)?, number(last).map_err(wrong)?),
                None => (number(item).map_err(wrong)?, number(item).map_err(wrong)?),
            };
            if first > last {
                return Err(wrong("the range runs backwards"));
            }
            ports.extend(first..=last);
        }
        // A text without items has failed at its empty item, so there is at least one port.
        Self::from_ports(ports).ok_or(TargetsError::Port { text: text.to_owned(), reason: "it is empty" })
    }

    /// How many ports: 1 to 65,536.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// The port at this place of the sorted set.
    pub fn get(&self, index: usize) -> Option<u16> {
        self.ports.get(index).copied()
    }

    /// The place of a port.
    pub fn index_of(&self, port: u16) -> Option<usize> {
        self.ports.binary_search(&port).ok()
    }

    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.index_of(port).is_some()
    }

    /// The ports in order.
    pub fn as_slice(&self) -> &[u16] {
        &self.ports
    }
}

fn number(text: &str) -> std::result::Result<u16, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a number is missing");
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it is not a number");
    }
    text.parse().map_err(|_| "ports end at 65535")
}

impl FromStr for PortSet {
    type Err = TargetsError;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len() == 65_536 {
            return f.write_str("*");
        }
        for (i, run) in self.ports.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match run {
                [port] => write!(f, "{comma}{port}")?,
                [first, second] => write!(f, "{comma}{first},{second}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_fold_to_a_sorted_set() {
        let ports = PortSet::parse("443, 80,8000-8010,8005,80").unwrap();
        assert_eq!(ports.to_string(), "80,443,8000-8010");
        assert_eq!(ports.len(), 13);
        for (i, &port) in ports.as_slice().iter().enumerate() {
            assert_eq!(ports.index_of(port), Some(i));
        }
        assert_eq!(ports.index_of(81), None);
        assert_eq!(PortSet::parse(&ports.to_string()).unwrap(), ports);
    }

    #[test]
    fn star_is_every_port() {
        assert_eq!(PortSet::parse("*").unwrap(), PortSet::parse("0-65535").unwrap());
        assert_eq!(PortSet::all().to_string(), "*");
    }

    #[test]
    fn what_is_no_port_is_refused_with_the_reason() {
        for (text, reason) in [
            ("65536", "ports end at 65535"),
            ("80,65536", "ports end at 65535"),
            ("99999999999999999999", "ports end at 65535"),
            ("80-70", "runs backwards"),
            ("", "missing"),
            ("80,", "missing"),
            ("-5", "missing"),
            ("http", "not a number"),
            ("+80", "not a number"),
        ] {
            let message = PortSet::parse(text).unwrap_err().to_string();
            assert!(message.contains(reason), "{text}: {message}");
        }
    }
}
