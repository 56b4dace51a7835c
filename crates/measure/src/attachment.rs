//! The networks that a scan runs on: which of its addresses each one has, and what happened there.
//!
//! A probe leaves by the network that has its source address. Its answer is taken where it comes in, by that network or,
//! crossing over, by another: it is a row either way. The RST that a SYN-ACK is owed would have to leave by a network
//! that has not its source, so an answer that crossed gets none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use irl_link::filter::FilterCounters;
use irl_link::{DeviceCounters, EngineInfo, Hop, Network, Worker, WorkerRequest};
use irl_targets::Target;
use irl_wire::{Endpoint, FrameBuilder, Key, PortRange, Probe};

use crate::error::MeasureError;
use crate::scan::ScanConfig;

/// One network of a scan. Dropping it gives its owners back.
pub struct Attachment {
    network: Arc<dyn Network>,
    sources: Vec<IpAddr>,
    endpoints: Vec<Endpoint>,
    builders: Vec<FrameBuilder>,
    owners: Mutex<Vec<u16>>,
    device_before: Option<DeviceCounters>,
    filter_before: FilterCounters,
}

impl Attachment {
    /// One for each network, with a builder for each address that is the scan's and the network's.
    pub(crate) fn to(
        networks: Vec<Arc<dyn Network>>,
        config: &ScanConfig,
        probe: &Probe,
        key: &Key,
        ports: PortRange,
    ) -> Result<Vec<Self>, MeasureError> {
        let mut homeless = config.sources.clone();
        let mut attachments = Vec::new();
        for network in networks {
            let has = network.sources();
            let sources: Vec<IpAddr> = config.sources.iter().copied().filter(|source| has.contains(source)).collect();
            homeless.retain(|source| !has.contains(source));
            let (mut endpoints, mut builders) = (Vec::new(), Vec::new());
            for source in &sources {
                let at = network.endpoint(*source)?;
                let from = Endpoint { mac: at.mac, address: *source, ports, ttl: config.plan.ttl, vlan: at.vlan };
                builders.push(FrameBuilder::new(probe, &from, key)?);
                endpoints.push(from);
            }
            let (device_before, filter_before) = (network.device_counters(), network.filter_counters());
            let owners = Mutex::default();
            attachments.push(Self { network, sources, endpoints, builders, owners, device_before, filter_before });
        }
        let names = || attachments.iter().map(|each| each.info().interface).collect::<Vec<_>>().join(" or ");
        if let Some(source) = homeless.first() {
            return Err(MeasureError::Config(format!(
                "{source} is no address of ours on {}: name it with --source-ip when the interface is opened",
                names()
            )));
        }
        if let Some(idle) = attachments.iter().find(|each| each.sources.is_empty()) {
            return Err(MeasureError::Config(format!(
                "none of the source addresses leaves by {}: give one that does with --source-ip",
                idle.info().interface
            )));
        }
        // A worker without a way to the targets would take them from the others only to give them up.
        let mut first = [(0, Target::default())];
        if attachments.len() > 1 && config.compiled.fill(0, &mut first) > 0 {
            let address = first[0].1.address;
            let stranded = |each: &&Self| each.network.next_hop().lookup(address) == Hop::Unreachable;
            if let Some(stranded) = attachments.iter().find(stranded) {
                return Err(MeasureError::Config(format!(
                    "the interface {0} has no route towards {1}: give it one (ip route add default via GATEWAY dev {0} metric 100), or \
                     leave it out",
                    stranded.info().interface,
                    config.plan.family.address(address)
                )));
            }
        }
        Ok(attachments)
    }

    /// So many workers of the request's, which let out this network's sources only.
    pub(crate) fn workers(&self, count: u16, request: &WorkerRequest) -> Result<Vec<Worker>, MeasureError> {
        let policy = Arc::new(request.policy.leaving_from(&self.sources));
        let workers = self.network.workers(&WorkerRequest { count, policy, ..request.clone() })?;
        self.owners().extend(workers.iter().map(|worker| worker.owner));
        Ok(workers)
    }

    /// Gives the workers' owners back.
    pub(crate) fn release(&self) {
        let owners = std::mem::take(&mut *self.owners());
        if !owners.is_empty() {
            self.network.release(&owners);
        }
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, Vec<u16>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network.
    pub fn network(&self) -> &Arc<dyn Network> {
        &self.network
    }

    /// Those of the scan's addresses that it has.
    pub fn sources(&self) -> &[IpAddr] {
        &self.sources
    }

    /// How frames from each of [`Attachment::sources`] look on the link.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// What builds frames, for each of [`Attachment::sources`].
    pub(crate) fn builders(&self) -> &[FrameBuilder] {
        &self.builders
    }

    /// What it runs on.
    pub fn info(&self) -> EngineInfo {
        self.network.info()
    }

    /// Device counters before the first frame and now.
    pub fn device(&self) -> Option<(DeviceCounters, DeviceCounters)> {
        Some((self.device_before?, self.network.device_counters()?))
    }

    /// What the filter counted since the run began, by name.
    pub fn filter_counters(&self) -> Vec<(&'static str, u64)> {
        let now = self.network.filter_counters();
        let both = self.filter_before.iter().zip(now.iter());
        both.map(|((name, before), (_, now))| (name, now.saturating_sub(before))).collect()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.release();
    }
}

/// Device counters of all of them, before the first frame and now; `None` where one has no device.
pub(crate) fn device(attachments: &[Attachment]) -> Option<(DeviceCounters, DeviceCounters)> {
    let mut sum = (DeviceCounters::default(), DeviceCounters::default());
    for attachment in attachments {
        let (before, now) = attachment.device()?;
        sum.0.add(&before);
        sum.1.add(&now);
    }
    Some(sum)
}

/// What all the filters counted, by name.
pub(crate) fn filter_counters(attachments: &[Attachment]) -> Vec<(&'static str, u64)> {
    let all = attachments.iter().map(Attachment::filter_counters);
    // Each filter has the same names in the same order.
    all.reduce(|sum, more| sum.into_iter().zip(more).map(|((name, one), (_, other))| (name, one + other)).collect())
        .unwrap_or_default()
}

/// Further counters of all the networks, by name.
pub(crate) fn extra_counters(attachments: &[Attachment]) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (name, count) in attachments.iter().flat_map(|each| each.network.extra_counters()) {
        *sum.entry(name).or_default() += count;
    }
    sum
}
