//! The most common ports, for who does not want to name them: a table of ours, with its source in it.

use crate::error::{Result, TargetsError};
use crate::ports::PortSet;

/// Which table of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Ports that listen for TCP.
    Tcp,
    /// Ports that listen for UDP.
    Udp,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// The table, the most common port first.
    fn table(self) -> impl Iterator<Item = u16> {
        let text = match self {
            Self::Tcp => include_str!("../data/top-tcp-ports.txt"),
            Self::Udp => include_str!("../data/top-udp-ports.txt"),
        };
        // A test reads every line.
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next()?.parse().ok())
    }
}

impl PortSet {
    /// The `count` most common ports, by our table (`data/top-tcp-ports.txt`, `data/top-udp-ports.txt`).
    ///
    /// # Errors
    /// [`TargetsError::Value`] for 0 and for more than the table has.
    ///
    /// ```
    /// use irl_targets::{PortSet, Transport};
    /// assert_eq!(PortSet::top(3, Transport::Tcp).unwrap().to_string(), "22,80,443");
    /// ```
    pub fn top(count: u64, transport: Transport) -> Result<Self> {
        let most = transport.table().count() as u64;
        let wrong = || {
            let reason = format!("the table of common {} ports has {most}; name 1 to {most}", transport.name());
            TargetsError::value("top_ports", count, reason)
        };
        if count > most {
            return Err(wrong());
        }
        // No more than a table's length.
        Self::from_ports(transport.table().take(count as usize)).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_tables_are_long_enough_and_have_every_port_once() {
        for (transport, least, lines) in [
            (Transport::Tcp, 100, include_str!("../data/top-tcp-ports.txt")),
            (Transport::Udp, 30, include_str!("../data/top-udp-ports.txt")),
        ] {
            let ports: Vec<u16> = transport.table().collect();
            assert!(ports.len() >= least, "{}", ports.len());
            assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len(), "{transport:?} has a port twice");
            let entries = lines.lines().filter(|line| !line.starts_with('#')).count();
            assert_eq!(ports.len(), entries, "a line of {transport:?} is no port");
            assert!(!ports.contains(&0));
        }
    }

    #[test]
    fn the_first_ones_are_a_subset_of_more() {
        let (few, more) = (PortSet::top(10, Transport::Tcp).unwrap(), PortSet::top(100, Transport::Tcp).unwrap());
        assert_eq!((few.len(), more.len()), (10, 100));
        assert!(few.as_slice().iter().all(|&port| more.contains(port)));
        assert_eq!(PortSet::top(1, Transport::Udp).unwrap().to_string(), "53");
    }

    #[test]
    fn none_and_too_many_are_refused_with_how_many_there_are() {
        let most = Transport::Udp.table().count() as u64;
        assert!(PortSet::top(most, Transport::Udp).is_ok());
        for count in [0, most + 1, u64::MAX] {
            let message = PortSet::top(count, Transport::Udp).unwrap_err().to_string();
            assert!(message.contains(&format!("name 1 to {most}")), "{message}");
        }
    }
}
