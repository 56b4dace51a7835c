//! Neighbours on the link: answers for our spare addresses, and finds the MACs of gateways and on-link targets.

mod conflict;
mod frames;
mod table;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use irl_targets::Family;
use irl_wire::Mac;

use crate::error::LinkError;
use crate::netdev::{Interface, Routes};
use crate::network::Hop;
use crate::policy::Gate;

pub use conflict::Dad;
pub(crate) use conflict::refuse_conflicts;
pub use frames::Heard;
use frames::Us;
use table::Table;

/// What neighbours have to do with us, counted.
#[derive(Debug, Default)]
struct Counters {
    answered: AtomicU64,
    asked: AtomicU64,
    resolved: AtomicU64,
    unresolved: AtomicU64,
}

/// One stack's view of its link.
#[derive(Debug)]
pub(crate) struct Neighbours {
    us: Us,
    spare: HashSet<IpAddr>,
    /// The address that questions of each family come from.
    asker: [Option<IpAddr>; 2],
    routes: Routes,
    defaults: [DefaultWay; 2],
    table: Table,
    counters: Counters,
}

/// The way that nearly every target takes, so that it costs no search: the default gateway of a family.
#[derive(Debug)]
struct DefaultWay {
    gateway: Option<IpAddr>,
    /// Ranges of targets that take another way.
    others: Vec<(u128, u128)>,
    /// The gateway's MAC in the low 48 bits, under [`KNOWN`] once it is known.
    mac: AtomicU64,
}

const KNOWN: u64 = 1 << 48;

impl DefaultWay {
    fn new(routes: &Routes, family: Family) -> Self {
        Self { gateway: routes.default_gateway(family), others: routes.narrower(family), mac: AtomicU64::new(0) }
    }

    fn learn(&self, address: IpAddr, mac: Mac) {
        if self.gateway == Some(address) {
            let value = mac.0.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
            self.mac.store(KNOWN | value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn look_up(&self, target: u128) -> Option<Mac> {
        let value = self.mac.load(Ordering::Relaxed);
        if value & KNOWN == 0 || self.others.iter().any(|&(first, last)| first <= target && target <= last) {
            return None;
        }
        let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
        Some(Mac([a, b, c, d, e, f]))
    }
}

impl Neighbours {
    /// `sources` are all of our addresses, `spare` those among them that the host does not have.
    pub(crate) fn new(
        interface: &Interface,
        vlan: Option<u16>,
        sources: &[IpAddr],
        spare: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Self, LinkError> {
        let routes = interface.routes()?;
        let table = Table::default();
        let defaults = [Family::V4, Family::V6].map(|family| DefaultWay::new(&routes, family));
        // What the kernel knows of gateways saves a question.
        for gateway in routes.gateways() {
            if let Some(mac) = interface.kernel_neighbour(gateway) {
                table.learn(gateway, mac);
                defaults.iter().for_each(|way| way.learn(gateway, mac));
            }
        }
        let asker = |family| sources.iter().copied().find(|source| Family::of(*source) == family);
        Ok(Self {
            us: Us { mac: interface.mac, vlan },
            spare: spare.into_iter().collect(),
            asker: [asker(Family::V4), asker(Family::V6)],
            routes,
            defaults,
            table,
            counters: Counters::default(),
        })
    }

    /// Handles a neighbour frame that the filter handed over.
    pub(crate) fn hear(&self, frame: &[u8], gate: &mut Gate) -> Result<(), LinkError> {
        match Heard::parse(frame) {
            Some(Heard::Question { mac, .. } | Heard::Answer { mac, .. }) if mac == self.us.mac => Ok(()),
            Some(Heard::Question { target, asker, mac }) => {
                if let Some(asker) = asker {
                    self.refuse_claim(asker, mac)?;
                    self.believe(asker, mac);
                }
                if self.spare.contains(&target) { self.answer(target, asker, mac, gate) } else { Ok(()) }
            }
            Some(Heard::Answer { address, mac }) => {
                self.refuse_claim(address, mac)?;
                self.believe(address, mac);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn answer(&self, ours: IpAddr, asker: Option<IpAddr>, mac: Mac, gate: &mut Gate) -> Result<(), LinkError> {
        let frame = match (ours, asker) {
            (IpAddr::V4(ours), Some(IpAddr::V4(asker))) => self.us.arp_answer(ours, asker, mac),
            (IpAddr::V4(ours), _) => self.us.arp_answer(ours, std::net::Ipv4Addr::UNSPECIFIED, mac),
            (IpAddr::V6(ours), Some(IpAddr::V6(asker))) => self.us.advertisement(ours, Some((asker, mac))),
            (IpAddr::V6(ours), _) => self.us.advertisement(ours, None),
        };
        if gate.neighbour(&frame)? {
            self.counters.answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Somebody else uses an address of ours: nothing that arrives is certain any more.
    fn refuse_claim(&self, address: IpAddr, mac: Mac) -> Result<(), LinkError> {
        if self.spare.contains(&address) { Err(LinkError::AddressConflict { address, mac }) } else { Ok(()) }
    }

    /// Takes over what was asked for, and changes of what is known; strangers' claims fill no table.
    fn believe(&self, address: IpAddr, mac: Mac) {
        // A gateway that moves to another machine says so, or is asked for by us: take its word either way.
        self.defaults.iter().for_each(|way| way.learn(address, mac));
        if self.table.update(address, mac) {
            self.counters.resolved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks for those that are due.
    pub(crate) fn tick(&self, now_ns: u64, gate: &mut Gate) -> Result<(), LinkError> {
        let mut outcome = Ok(());
        let unresolved = self.table.due(now_ns, |address| {
            let asker = self.asker[usize::from(address.is_ipv6())];
            let Some(frame) = asker.and_then(|asker| self.us.question(asker, address)) else { return false };
            match gate.neighbour(&frame) {
                Ok(sent) => {
                    self.counters.asked.fetch_add(u64::from(sent), Ordering::Relaxed);
                    sent
                }
                Err(error) => {
                    outcome = Err(error);
                    false
                }
            }
        });
        self.counters.unresolved.fetch_add(unresolved, Ordering::Relaxed);
        outcome
    }

    /// The address whose MAC a target's frames need: itself or a gateway.
    fn first_hop(&self, target: IpAddr) -> Option<IpAddr> {
        Some(self.routes.gateway(target)?.unwrap_or(target))
    }

    /// The counters by name.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BTreeMap::from([
            ("neighbours_answered".to_owned(), of(&self.counters.answered)),
            ("neighbours_asked".to_owned(), of(&self.counters.asked)),
            ("neighbours_resolved".to_owned(), of(&self.counters.resolved)),
            ("neighbours_unresolved".to_owned(), of(&self.counters.unresolved)),
        ])
    }

    /// The way to a target.
    pub(crate) fn look_up(&self, target: u128) -> Hop {
        // No IPv6 address that may be probed fits 32 bits: ::/96 is reserved.
        let (family, default) = match target <= u128::from(u32::MAX) {
            true => (Family::V4, &self.defaults[0]),
            false => (Family::V6, &self.defaults[1]),
        };
        if let Some(mac) = default.look_up(target) {
            return Hop::Known(mac);
        }
        match self.first_hop(family.address(target)) {
            Some(address) => self.table.look_up(address),
            None => Hop::Unreachable,
        }
    }
}
