//! Several interfaces for one run: which of its source addresses belongs to which.

use std::net::IpAddr;

use irl_targets::{Family, address_bits};

use super::{Stack, StackConfig};
use crate::error::LinkError;
use crate::netdev::{HostAddress, Interface};

impl Stack {
    /// Opens interfaces that one run shares, in the order of their names. Each gets those of the source addresses that lie
    /// in its subnets, or the one the kernel would take where none are given; and answers to the addresses of the others
    /// are taken there too, should they come in by it. With fewer than two names it is [`Stack::open`].
    ///
    /// # Errors
    /// As [`Stack::open`], and [`LinkError::Config`] for a name given twice, a source in no subnet or in several, an
    /// interface without a source, and for a MAC, which would be one interface's.
    pub fn open_each(names: &[String], config: &StackConfig) -> Result<Vec<Self>, LinkError> {
        if names.len() < 2 {
            let interface = names.first().cloned();
            return Ok(vec![Self::open(StackConfig { interface, ..config.clone() })?]);
        }
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(LinkError::config(format!("the interface {} is named twice: name each one once", twice.1)));
        }
        for (given, option) in [(config.gateway_mac, "--gateway-mac"), (config.source_mac, "--source-mac")] {
            if given.is_some() {
                return Err(LinkError::config(format!(
                    "{option} is one interface's, and there are {}: leave it out, and each goes by its own MACs",
                    names.len()
                )));
            }
        }
        let interfaces = names.iter().map(|name| Interface::by_name(name)).collect::<Result<Vec<_>, _>>()?;
        let sources = if config.sources.is_empty() {
            interfaces.iter().map(|interface| config.sources_on(interface)).collect::<Result<Vec<_>, _>>()?
        } else {
            let ends: Vec<_> = interfaces.iter().map(|each| (each.name.as_str(), each.addresses.as_slice())).collect();
            assign(&config.sources, &ends)?
        };
        let mut stacks = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let others = sources.iter().enumerate().filter(|(other, _)| *other != at);
            stacks.push(Self::open(StackConfig {
                interface: Some(name.clone()),
                sources: sources[at].clone(),
                elsewhere: others.flat_map(|(_, sources)| sources).copied().collect(),
                ..config.clone()
            })?);
        }
        Ok(stacks)
    }
}

/// The sources of each interface: those that it has, and the spare ones in its subnets, the longest prefix first.
fn assign(sources: &[IpAddr], interfaces: &[(&str, &[HostAddress])]) -> Result<Vec<Vec<IpAddr>>, LinkError> {
    let mut assigned = vec![Vec::new(); interfaces.len()];
    for source in sources {
        // An address that the host has on an interface is that one's, whatever else would fit.
        let fit = |addresses: &[HostAddress]| {
            let has = addresses.iter().any(|each| each.address == *source);
            let within = addresses.iter().filter(|each| holds(each, *source)).map(|each| u16::from(each.prefix_len));
            if has { Some(u16::MAX) } else { within.max() }
        };
        let fits: Vec<_> = interfaces.iter().map(|(_, addresses)| fit(addresses)).collect();
        let best = fits.iter().max().copied().flatten();
        let mut at = fits.iter().enumerate().filter(|(_, fit)| best.is_some() && **fit == best).map(|(at, _)| at);
        match (at.next(), at.next()) {
            (Some(only), None) => assigned[only].push(*source),
            (Some(one), Some(other)) => {
                return Err(LinkError::config(format!(
                    "the source {source} lies in a subnet of {} and of {} alike: give one that only one of them has",
                    interfaces[one].0, interfaces[other].0
                )));
            }
            (None, _) => {
                let all = interfaces.iter().map(|(name, addresses)| subnets(name, addresses, Family::of(*source)));
                return Err(LinkError::config(format!(
                    "the source {source} lies in no subnet of these interfaces ({}): give one of theirs, or name the \
                     interface that has it",
                    all.collect::<Vec<_>>().join("; ")
                )));
            }
        }
    }
    if let Some(at) = assigned.iter().position(Vec::is_empty) {
        let (name, addresses) = interfaces[at];
        let family = sources.first().map_or(Family::V4, |source| Family::of(*source));
        return Err(LinkError::config(format!(
            "none of the source addresses belongs to {}: give one more with --source-ip, or leave that interface out",
            subnets(name, addresses, family)
        )));
    }
    Ok(assigned)
}

/// Whether an address lies in the network of one of the host's.
fn holds(network: &HostAddress, address: IpAddr) -> bool {
    let family = Family::of(network.address);
    let host_bits = u32::from(family.bits().saturating_sub(network.prefix_len));
    let differ = address_bits(network.address) ^ address_bits(address);
    family == Family::of(address) && differ.checked_shr(host_bits).unwrap_or(0) == 0
}

/// `va has 198.18.0.1/24`.
fn subnets(name: &str, addresses: &[HostAddress], family: Family) -> String {
    let of_family = addresses.iter().filter(|each| Family::of(each.address) == family);
    let texts: Vec<_> = of_family.map(|each| format!("{}/{}", each.address, each.prefix_len)).collect();
    if texts.is_empty() {
        format!("{name}, which has no {family} address")
    } else {
        format!("{name}, which has {}", texts.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn has(networks: &[&str]) -> Vec<HostAddress> {
        let host = |text: &&str| {
            let (address, prefix_len) = text.split_once('/').unwrap();
            HostAddress { address: ip(address), prefix_len: prefix_len.parse().unwrap(), broadcast: None }
        };
        networks.iter().map(host).collect()
    }

    fn assigned(sources: &[&str], one: &[&str], other: &[&str]) -> Result<Vec<Vec<IpAddr>>, String> {
        let sources: Vec<_> = sources.iter().map(|source| ip(source)).collect();
        let (one, other) = (has(one), has(other));
        assign(&sources, &[("va", one.as_slice()), ("va2", other.as_slice())]).map_err(|error| error.to_string())
    }

    #[test]
    fn each_source_goes_to_the_interface_whose_subnet_holds_it() {
        let (va, va2) = (["198.18.0.1/24", "fd00:18::1/64"], ["198.18.2.1/24", "fd00:18:2::1/64"]);
        let found = assigned(&["198.18.2.10", "198.18.0.10", "198.18.2.11"], &va, &va2).unwrap();
        assert_eq!(found, [vec![ip("198.18.0.10")], vec![ip("198.18.2.10"), ip("198.18.2.11")]]);
        let found = assigned(&["fd00:18::10", "fd00:18:2::10"], &va, &va2).unwrap();
        assert_eq!(found, [[ip("fd00:18::10")], [ip("fd00:18:2::10")]]);
    }

    #[test]
    fn the_narrower_subnet_and_the_interface_that_has_the_address_come_first() {
        let found = assigned(&["10.1.2.9", "10.1.9.9"], &["10.1.0.1/16"], &["10.1.2.1/24"]).unwrap();
        assert_eq!(found, [[ip("10.1.9.9")], [ip("10.1.2.9")]]);
        let found = assigned(&["10.1.0.1", "10.1.0.2"], &["10.1.0.1/24"], &["10.1.0.2/24"]).unwrap();
        assert_eq!(found, [[ip("10.1.0.1")], [ip("10.1.0.2")]]);
    }

    #[test]
    fn what_cannot_be_assigned_is_told_with_what_to_do() {
        let (va, va2) = (["198.18.0.1/24"], ["198.18.2.1/24"]);
        let nowhere = assigned(&["198.18.0.10", "198.18.9.10"], &va, &va2).unwrap_err();
        assert!(nowhere.contains("198.18.9.10 lies in no subnet"), "{nowhere}");
        assert!(nowhere.contains("va, which has 198.18.0.1/24; va2, which has 198.18.2.1/24"), "{nowhere}");
        let idle = assigned(&["198.18.0.10", "198.18.0.11"], &va, &va2).unwrap_err();
        assert!(idle.contains("belongs to va2, which has 198.18.2.1/24: give one more with --source-ip"), "{idle}");
        let both = assigned(&["198.18.0.10"], &["198.18.0.1/24"], &["198.18.0.2/24"]).unwrap_err();
        assert!(both.contains("of va and of va2 alike"), "{both}");
        let idle = assigned(&["fd00:18::10"], &["fd00:18::1/64"], &va2).unwrap_err();
        assert!(idle.contains("va2, which has no IPv6 address"), "{idle}");
    }
}
