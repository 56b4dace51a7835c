//! Source ports on an address that the host has too.

use std::net::IpAddr;

use irl_wire::Protocol;

use crate::error::LinkError;
use crate::netdev::ephemeral_ports;
use crate::network::WorkerRequest;

/// Refuses source ports that the kernel gives to the host's own connections: we would take their answers.
pub(super) fn refuse_overlap(request: &WorkerRequest, address: IpAddr) -> Result<(), LinkError> {
    if request.protocol == Protocol::Icmp {
        return Ok(());
    }
    match ephemeral_ports() {
        Some(host) => check(host, (request.ports.first, request.ports.last), address),
        None => Ok(()),
    }
}

fn check((low, high): (u16, u16), (first, last): (u16, u16), address: IpAddr) -> Result<(), LinkError> {
    if last < low || first > high {
        return Ok(());
    }
    // The larger rest of the host's range.
    let below = first.saturating_sub(low);
    let above = high.saturating_sub(last);
    let mended = if below == 0 && above == 0 {
        None
    } else if below >= above {
        Some((low, first - 1))
    } else {
        Some((last + 1, high))
    };
    let mend = match mended {
        Some((low, high)) => format!("or run sysctl -w net.ipv4.ip_local_port_range=\"{low} {high}\""),
        None => "or leave the host a part of its range".to_owned(),
    };
    Err(LinkError::config(format!(
        "the source ports {first}-{last} overlap with those of the host's own connections from {address} \
         (net.ipv4.ip_local_port_range is {low} {high}): use --source-port {}, {mend}",
        if high < u16::MAX { format!("{}-65535", high + 1) } else { format!("1024-{}", low.saturating_sub(1)) }
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(host: (u16, u16), ours: (u16, u16)) -> Option<String> {
        check(host, ours, IpAddr::from([192, 0, 2, 1])).err().map(|error| error.to_string())
    }

    #[test]
    fn ports_beside_the_hosts_range_are_fine() {
        assert_eq!(message((32768, 60999), (61000, 65535)), None);
        assert_eq!(message((32768, 60999), (1024, 32767)), None);
    }

    #[test]
    fn an_overlap_is_refused_with_the_line_that_mends_it() {
        let text = message((32768, 60999), (60000, 65535)).unwrap();
        assert!(text.contains("use --source-port 61000-65535"), "{text}");
        assert!(text.contains("sysctl -w net.ipv4.ip_local_port_range=\"32768 59999\""), "{text}");
        let text = message((32768, 60999), (30000, 40000)).unwrap();
        assert!(text.contains("net.ipv4.ip_local_port_range=\"40001 60999\""), "{text}");
        let text = message((1024, 65535), (1024, 65535)).unwrap();
        assert!(text.contains("leave the host a part"), "{text}");
    }
}
