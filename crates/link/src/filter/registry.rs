//! Who owns which address, port and echo identifier: the bookkeeping that both filters share.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use irl_wire::probe::Protocol;

use super::config::{
    Accept, AddressKind, FilterConfig, MAX_ADDRESSES, MAX_CLASSES, MAX_OWNERS, MAX_RULES, OwnerConfig,
};
use crate::error::LinkError;

/// Marks a port without owner; the value that the program in the kernel uses.
pub(super) const NO_OWNER: u16 = 0xffff;

/// Which table a claim is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Port,
    Echo,
}

/// Addresses and owners, free of contradictions.
#[derive(Debug)]
pub(super) struct Registry {
    addresses: HashMap<IpAddr, AddressKind>,
    owners: BTreeMap<u16, OwnerConfig>,
    port: Vec<u16>,
    echo: Vec<u16>,
}

impl Registry {
    /// Takes the addresses.
    pub(super) fn new(config: &FilterConfig) -> Result<Self, LinkError> {
        if config.addresses.len() > MAX_ADDRESSES {
            let count = config.addresses.len();
            return Err(LinkError::Config(format!(
                "{count} source addresses are more than the {MAX_ADDRESSES} that one interface's filter holds: use fewer"
            )));
        }
        let mut addresses = HashMap::with_capacity(config.addresses.len());
        for own in &config.addresses {
            if addresses.insert(own.address, own.kind).is_some() {
                return Err(LinkError::Config(format!("the address {} is given twice: name it once", own.address)));
            }
        }
        Ok(Self { addresses, owners: BTreeMap::new(), port: vec![NO_OWNER; 1 << 16], echo: vec![NO_OWNER; 1 << 16] })
    }

    pub(super) fn kind(&self, address: IpAddr) -> Option<AddressKind> {
        self.addresses.get(&address).copied()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = (IpAddr, AddressKind)> + '_ {
        self.addresses.iter().map(|(address, kind)| (*address, *kind))
    }

    pub(super) fn port_owner(&self, port: u16) -> Option<&OwnerConfig> {
        self.owners.get(&self.port[usize::from(port)])
    }

    pub(super) fn echo_owner(&self, id: u16) -> Option<&OwnerConfig> {
        self.owners.get(&self.echo[usize::from(id)])
    }

    /// Who gets ARP, neighbour discovery and fragments.
    pub(super) fn neighbour_owner(&self) -> Option<u16> {
        self.owners.keys().next().copied()
    }

    /// Who gets what nobody else has a claim to on a spare address.
    pub(super) fn stray_owner(&self) -> Option<u16> {
        self.owners.values().find(|owner| owner.accept == Accept::Any).map(|owner| owner.owner)
    }

    /// The ports or identifiers that are an owner's by its configuration.
    pub(super) fn claims(config: &OwnerConfig) -> (Table, impl Iterator<Item = u16> + use<>) {
        let (modulus, residue) = (config.modulus, config.residue);
        let table = match (config.protocol, config.accept) {
            (Protocol::Icmp, Accept::Cookie) => Table::Echo,
            _ => Table::Port,
        };
        let range = match table {
            Table::Port => config.ports.first..=config.ports.last,
            Table::Echo => 0..=u16::MAX,
        };
        (table, range.filter(move |value| modulus != 0 && value % modulus == residue))
    }

    /// Takes an owner in, or says why not; nothing changes then.
    pub(super) fn add(&mut self, config: &OwnerConfig) -> Result<(), LinkError> {
        let number = config.owner;
        let refuse = |text: String| Err(LinkError::Config(text));
        if number >= MAX_OWNERS {
            return refuse(format!(
                "owner {number} is beyond the {MAX_OWNERS} that one filter serves: use fewer workers"
            ));
        }
        if self.owners.contains_key(&number) {
            return refuse(format!("owner {number} is registered already: release it first"));
        }
        if config.modulus != 0 && config.residue >= config.modulus {
            return refuse(format!("residue {} of owner {number} is not below {}", config.residue, config.modulus));
        }
        if config.ports.first > config.ports.last {
            return refuse(format!(
                "the source ports {}-{} are no range: give the lower one first",
                config.ports.first, config.ports.last
            ));
        }
        let rules: usize = config.classes.iter().map(|class| class.rules.len().max(1)).sum();
        if config.classes.len() > MAX_CLASSES || rules > MAX_RULES {
            return refuse(format!(
                "the probe has {} answer classes with {rules} match rules; the filter holds {MAX_CLASSES} classes with \
                 {MAX_RULES} rules: join some",
                config.classes.len()
            ));
        }
        for class in &config.classes {
            if let Some(rule) = class.rules.iter().find(|rule| !(1..=4).contains(&rule.width)) {
                return refuse(format!(
                    "a match rule of the answer class {} is {} bytes wide: 1 to 4 are possible",
                    class.name, rule.width
                ));
            }
        }
        let (table, claims) = Self::claims(config);
        let entries = match table {
            Table::Port => &mut self.port,
            Table::Echo => &mut self.echo,
        };
        let claims: Vec<u16> = claims.collect();
        for claim in &claims {
            let holder = entries[usize::from(*claim)];
            if holder != NO_OWNER {
                return refuse(match table {
                    Table::Port => format!(
                        "source port {claim} is used by another measurement on this interface (owner {holder}): give \
                         this one other source ports"
                    ),
                    Table::Echo => format!(
                        "another ICMP echo measurement on this interface has the echo identifiers (owner {holder}): \
                         wait until it is done"
                    ),
                });
            }
        }
        for claim in claims {
            entries[usize::from(claim)] = number;
        }
        self.owners.insert(number, config.clone());
        Ok(())
    }

    /// Forgets an owner and returns its configuration, if it was there.
    pub(super) fn remove(&mut self, number: u16) -> Option<OwnerConfig> {
        let config = self.owners.remove(&number)?;
        let (table, claims) = Self::claims(&config);
        let entries = match table {
            Table::Port => &mut self.port,
            Table::Echo => &mut self.echo,
        };
        for claim in claims {
            entries[usize::from(claim)] = NO_OWNER;
        }
        Some(config)
    }

    /// The smallest range around all owners' ports; `None` when there are none.
    pub(super) fn port_bounds(&self) -> Option<(u16, u16)> {
        let first = self.port.iter().position(|owner| *owner != NO_OWNER)?;
        let last = self.port.iter().rposition(|owner| *owner != NO_OWNER)?;
        // Both are indices into a table of 65,536 entries.
        Some((first as u16, last as u16))
    }

    /// The numbers of the registered owners.
    pub(super) fn owners(&self) -> impl Iterator<Item = u16> + '_ {
        self.owners.keys().copied()
    }

    /// Whether anybody owns echo identifiers.
    pub(super) fn echo_owned(&self) -> bool {
        self.echo.iter().any(|owner| *owner != NO_OWNER)
    }
}

#[cfg(test)]
mod tests {
    use irl_wire::cookie::Key;
    use irl_wire::probe::PortRange;

    use super::*;

    fn owner(number: u16, modulus: u16, residue: u16) -> OwnerConfig {
        OwnerConfig {
            modulus,
            residue,
            ..OwnerConfig::new(number, Protocol::Tcp, PortRange { first: 61000, last: 61009 }, Key::new([7; 16]))
        }
    }

    fn registry() -> Registry {
        Registry::new(&FilterConfig::default()).expect("no address contradicts another")
    }

    #[test]
    fn owners_of_one_measurement_share_its_ports() {
        let mut registry = registry();
        registry.add(&owner(0, 2, 0)).expect("nobody has the ports");
        registry.add(&owner(1, 2, 1)).expect("the other half is free");
        assert_eq!(registry.port_owner(61004).map(|o| o.owner), Some(0));
        assert_eq!(registry.port_owner(61005).map(|o| o.owner), Some(1));
        assert_eq!(registry.port_bounds(), Some((61000, 61009)));
        registry.remove(0);
        assert!(registry.port_owner(61004).is_none());
        assert_eq!(registry.port_bounds(), Some((61001, 61009)));
    }

    #[test]
    fn a_port_has_one_owner_and_a_refusal_changes_nothing() {
        let mut registry = registry();
        registry.add(&owner(0, 2, 0)).expect("nobody has the ports");
        let error = registry.add(&owner(1, 1, 0)).expect_err("the ports overlap");
        assert!(error.to_string().contains("source port 61000"), "{error}");
        assert!(registry.port_owner(61001).is_none());
    }

    #[test]
    fn an_owner_without_share_gets_neighbour_frames_alone() {
        let mut registry = registry();
        registry.add(&owner(3, 1, 0)).expect("nobody has the ports");
        registry.add(&owner(0, 0, 0)).expect("it asks for no port");
        assert_eq!(registry.neighbour_owner(), Some(0));
        assert_eq!(registry.port_owner(61000).map(|o| o.owner), Some(3));
    }
}
