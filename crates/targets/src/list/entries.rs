//! The entries of a list in memory: addresses and ports as columns.

use crate::family::Family;

/// Addresses and, where the lines have them, ports: two columns, so that no byte is padding.
#[derive(Clone, Debug)]
pub(crate) struct Entries {
    addresses: Addresses,
    /// Empty, or as long as the addresses.
    ports: Vec<u16>,
}

#[derive(Clone, Debug)]
enum Addresses {
    V4(Vec<u32>),
    /// High half, low half: a `u128` would be aligned to 16 and is no smaller.
    V6(Vec<[u64; 2]>),
}

impl Entries {
    pub(super) fn new(family: Family) -> Self {
        let addresses = match family {
            Family::V4 => Addresses::V4(Vec::new()),
            Family::V6 => Addresses::V6(Vec::new()),
        };
        Self { addresses, ports: Vec::new() }
    }

    pub(super) fn push(&mut self, address: u128, port: Option<u16>) {
        match &mut self.addresses {
            Addresses::V4(addresses) => addresses.push(address as u32),
            Addresses::V6(addresses) => addresses.push([(address >> 64) as u64, address as u64]),
        }
        self.ports.extend(port);
    }

    pub(crate) fn len(&self) -> usize {
        match &self.addresses {
            Addresses::V4(addresses) => addresses.len(),
            Addresses::V6(addresses) => addresses.len(),
        }
    }

    #[inline]
    pub(crate) fn address(&self, entry: usize) -> u128 {
        match &self.addresses {
            Addresses::V4(addresses) => u128::from(addresses[entry]),
            Addresses::V6(addresses) => {
                let [high, low] = addresses[entry];
                u128::from(high) << 64 | u128::from(low)
            }
        }
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = u128> + '_ {
        (0..self.len()).map(|entry| self.address(entry))
    }

    /// The entry's port; 0 when the lines have none.
    #[inline]
    pub(crate) fn port(&self, entry: usize) -> u16 {
        self.ports.get(entry).copied().unwrap_or(0)
    }

    pub(crate) fn has_ports(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Orders the entries by address, then port.
    pub(crate) fn sort(&mut self) {
        let ports = &mut self.ports;
        match &mut self.addresses {
            Addresses::V4(addresses) => sort_columns(addresses, ports),
            Addresses::V6(addresses) => sort_columns(addresses, ports),
        }
    }

    /// Moves entry `from` down to `to`.
    pub(super) fn shift(&mut self, from: usize, to: usize) {
        match &mut self.addresses {
            Addresses::V4(addresses) => addresses[to] = addresses[from],
            Addresses::V6(addresses) => addresses[to] = addresses[from],
        }
        if self.has_ports() {
            self.ports[to] = self.ports[from];
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        match &mut self.addresses {
            Addresses::V4(addresses) => addresses.truncate(len),
            Addresses::V6(addresses) => addresses.truncate(len),
        }
        self.ports.truncate(len);
    }
}

fn sort_columns<A: Copy + Ord>(addresses: &mut [A], ports: &mut [u16]) {
    if ports.is_empty() {
        return addresses.sort_unstable();
    }
    let mut rows: Vec<(A, u16)> = addresses.iter().copied().zip(ports.iter().copied()).collect();
    rows.sort_unstable();
    for ((address, port), row) in addresses.iter_mut().zip(ports).zip(rows) {
        (*address, *port) = row;
    }
}
