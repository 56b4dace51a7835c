//! The start of an exchange.

use std::ops::Deref;
use std::sync::Arc;

use irl_link::filter::Frames;
use irl_link::{LinkError, Network, WorkerRequest};
use irl_tcp::Config;
use irl_wire::Protocol;

use super::answers::{self, Exchanges};
use super::caps::Prefixes;
use super::config::ExchangeConfig;
use super::schema;
use crate::error::MeasureError;
use crate::map::{AnsweredMap, Dedup};
use crate::passes;
use crate::run::{Prepared, Run};

/// The least memory for connections and responses, beside the answered map.
const LEAST_MEMORY: u64 = 1 << 20;

/// An exchange in progress: a [`Run`] whose rows are dialogues.
pub struct Exchange(Run);

impl Exchange {
    /// Opens workers on a network and starts them.
    ///
    /// # Errors
    /// [`MeasureError`] when the request, a bound or the network refuse; nothing was sent then.
    pub fn start(config: ExchangeConfig, network: Arc<dyn Network>) -> Result<Self, MeasureError> {
        Self::start_on(config, vec![network])
    }

    /// The same on several networks at once: workers take them in turn, and a connection lives on the one that has its
    /// source address.
    ///
    /// # Errors
    /// As [`Exchange::start`], and [`MeasureError::Config`] when a network has no worker or no address of the run's.
    pub fn start_on(mut config: ExchangeConfig, networks: Vec<Arc<dyn Network>>) -> Result<Self, MeasureError> {
        if config.list.is_some() {
            config.scan.reprobe = 0;
        }
        let prepared = Prepared::new(config.scan.clone(), networks)?;
        config.scan = prepared.config.clone();
        let family = config.scan.plan.family;
        let (map, memory) = map(&config)?;
        let tcp = tcp(&config, &prepared)?;
        for attachment in &prepared.attachments {
            let info = attachment.info();
            if attachment.network().replayed().is_some() {
                return Err(MeasureError::Config(
                    "a capture answers no request: replay:FILE judges the answers of a scan again".to_owned(),
                ));
            }
            if info.kernel_rst {
                return Err(LinkError::Unsupported(format!(
                    "the kernel would reset our connections on {}, whose address is the host's own and which has no filter \
                     here: take a spare address of its network with --source-ip, or run where the engine live can be used \
                     (irlstack doctor says what it lacks)",
                    info.interface
                ))
                .into());
            }
        }
        let request = WorkerRequest {
            frames: Frames::Payload,
            max_data: max_data(config.longest_request)?,
            // A target that a list has again is reached from another of our ports.
            probes: match &config.list {
                Some(_) => u16::try_from(prepared.ports.len()).unwrap_or(u16::MAX),
                None => passes::syn_numbers(&config.scan),
            },
            ..prepared.request()
        };
        let endpoints: Vec<Vec<_>> = prepared.attachments.iter().map(|each| each.endpoints().to_vec()).collect();
        let longest = answers::frame_len(config.longest_request, tcp.mtu, &endpoints.concat());
        let request = WorkerRequest { frame_len: request.frame_len.max(longest), ..request };
        let workers = usize::from(config.scan.workers);
        let bounds = Arc::new(answers::Bounds {
            tcp: Config {
                max_connections: config.max_connections.div_ceil(workers),
                max_buffered: usize::try_from(memory / 4 / workers as u64).unwrap_or(usize::MAX),
                ..tcp
            },
            ports: prepared.ports,
            max_connections: config.max_connections as u64,
            memory,
            held: (0..workers).map(|_| 0.into()).collect(),
            max_bytes: config.max_bytes,
            prefixes: config.max_per_prefix.map(|most| Arc::new(Prefixes::new(most, family))),
        });
        let schema = schema::exchange(family, &config.columns, &config.further());
        let told = config.clone();
        prepared
            .start(map, &request, schema, Some(config), |number, _, ours, shared| {
                let endpoints = &endpoints[number % endpoints.len()];
                Exchanges::new(number, &told, ours, endpoints, shared, &bounds)
            })
            .map(Self)
    }
}

impl Deref for Exchange {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.0
    }
}

impl From<Exchange> for Run {
    fn from(exchange: Exchange) -> Self {
        exchange.0
    }
}

/// The answered map, and how many bytes are left beside it. A target gets one connection, so that none may be forgotten.
fn map(config: &ExchangeConfig) -> Result<(AnsweredMap, u64), MeasureError> {
    // A list knows by itself of whom it has heard.
    let slots = if config.list.is_some() { 1 } else { config.scan.compiled.slots() };
    let needed = AnsweredMap::exact_bytes(slots).saturating_add(u128::from(LEAST_MEMORY));
    let needed = u64::try_from(needed).ok().filter(|needed| *needed <= config.max_memory).ok_or_else(|| {
        MeasureError::Config(format!(
            "an exchange has to know of each of {slots} targets whether it has answered, which takes {needed} bytes with \
             the least for its connections: give --max-memory as much, or fewer targets"
        ))
    })?;
    let map = AnsweredMap::new(slots, config.max_memory, config.scan.workers, Dedup::Full)?;
    Ok((map, config.max_memory - needed + LEAST_MEMORY))
}

/// What TCP is told, if the probe is a SYN that it can go on from.
fn tcp(config: &ExchangeConfig, prepared: &Prepared) -> Result<Config, MeasureError> {
    let plan = &config.scan.plan;
    if prepared.probe.protocol() != Protocol::Tcp || plan.probe.name != "tcp_synscan" {
        return Err(MeasureError::Config(format!(
            "an exchange begins with the probe tcp_synscan, and this plan's is {}",
            plan.probe.name
        )));
    }
    if plan.probes > 1 {
        return Err(MeasureError::Config(
            "an exchange sends one SYN a target, and again only to the silent: give --reprobe instead of --probes"
                .into(),
        ));
    }
    for (name, zero) in [
        ("--max-connections", config.max_connections == 0),
        ("--max-per-prefix", config.max_per_prefix == Some(0)),
        ("--timeout", config.timeout.is_zero()),
    ] {
        if zero {
            return Err(MeasureError::Config(format!("{name} 0 leaves no exchange: give more")));
        }
    }
    let key = prepared.key.halves();
    let v6 = plan.family == irl_targets::Family::V6;
    Ok(match plan.probe.args.get("layout").map(String::as_str) {
        Some("smallest") => Config::smallest(key, v6),
        _ => Config::new(key, v6, prepared.key.timestamp_offset()),
    })
}

/// How much sequence space an exchange may use after its SYN: the request, its FIN, and one more that a RST may carry.
fn max_data(longest_request: u32) -> Result<u32, MeasureError> {
    longest_request.checked_add(2).filter(|bytes| *bytes <= 1 << 30).ok_or_else(|| {
        MeasureError::Config(format!("a request of {longest_request} bytes is too long: there may be 1 GiB of it"))
    })
}
