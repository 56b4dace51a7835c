//! A scan: its configuration and its start.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use irl_link::filter::Frames;
use irl_link::{Network, Policy, WorkerRequest};
use irl_targets::{CompiledPlan, Plan};
use irl_wire::Protocol;

pub use crate::attachment::Attachment;
pub use crate::bounds::EndedBy;
use crate::capture::CaptureSample;
use crate::checkpoint::Saved;
use crate::error::MeasureError;
use crate::filter::Filter;
use crate::judge::Judge;
use crate::map::Dedup;
use crate::passes;
use crate::ready::Ready;
pub use crate::run::{Next, Times};
use crate::run::{Prepared, Run};
use crate::schema::{self, Column};

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScanRate {
    /// So many probes a second.
    PerSecond(f64),
    /// The fastest at which we lose nothing ourselves (`--rate 0`).
    Search,
}

/// Which answers become rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowSelection {
    /// Successes, each target once.
    #[default]
    Success,
    /// Every success, each as often as it comes.
    Successes,
    /// Every answer.
    All,
}

/// Everything that a scan is told.
#[derive(Clone, Debug)]
pub struct ScanConfig {
    /// What to probe, and how.
    pub plan: Plan,
    /// The shard of it.
    pub compiled: CompiledPlan,
    /// What may leave.
    pub policy: Arc<Policy>,
    /// How many addresses each of the plan's deny files has, in their order; for metadata.
    pub deny_counts: Vec<u128>,
    /// Our addresses, of the plan's family.
    pub sources: Vec<IpAddr>,
    /// How fast.
    pub rate: ScanRate,
    /// Worker threads, each an owner; they take the networks in turn.
    pub workers: u16,
    /// The CPUs that they are bound to, in turn; empty to let the system choose.
    pub cores: Vec<usize>,
    /// How often the silent are probed again, each time in a pass over all targets that have not answered in any way.
    pub reprobe: u16,
    /// How long after a pass the next one begins; by default a second, or the cooldown where that is shorter.
    pub reprobe_wait: Option<Duration>,
    /// The share of the targets that is probed once more at the end, found or not.
    pub recheck: Option<f64>,
    /// How fast, at most, in probes a second.
    pub recheck_rate: f64,
    /// How long to listen after the last probe.
    pub cooldown: Duration,
    /// Stop sending after so long.
    pub max_runtime: Option<Duration>,
    /// Stop sending after so many rows; there are no more of them.
    pub max_results: Option<u64>,
    /// Stop sending when fewer than so many percent of the probes find a target, for 5 s. 0 for no bound.
    pub min_hitrate: f64,
    /// How often frames that the device refused are offered again before that counts as a failure. They are offered
    /// on and on after it, too.
    pub retries: u16,
    /// Stop sending after more failures than this.
    pub max_sendto_failures: Option<u64>,
    /// Whether each valid SYN-ACK is answered with a RST of ours.
    pub reset: bool,
    /// Which answers become rows.
    pub rows: RowSelection,
    /// Which answers become rows instead, where that is said (`--output-filter`).
    pub filter: Option<Filter>,
    /// The columns.
    pub columns: Vec<Column>,
    /// Bytes for the answered map.
    pub max_memory: u64,
    /// What the answered map is asked to be.
    pub dedup: Dedup,
    /// Batches that may wait for the reader before the senders pause.
    pub queue: usize,
    /// What is done when all of this was accepted, before the first frame.
    pub ready: Option<Ready>,
    /// Whether it can be gone on with: workers say with their rows how far they are.
    pub checkpointed: bool,
    /// What it goes on from.
    pub resume: Option<Arc<Saved>>,
    /// The sample of its frames that is kept, if one is.
    pub capture_sample: Option<CaptureSample>,
}

impl ScanConfig {
    /// The defaults for a plan: ZMap's cooldown of 8 s, RSTs, default columns, one worker.
    pub fn new(plan: Plan, compiled: CompiledPlan, policy: Arc<Policy>, sources: Vec<IpAddr>, rate: ScanRate) -> Self {
        Self {
            plan,
            compiled,
            policy,
            deny_counts: Vec::new(),
            sources,
            rate,
            workers: 1,
            cores: Vec::new(),
            reprobe: 0,
            reprobe_wait: None,
            recheck: None,
            recheck_rate: 1000.0,
            cooldown: Duration::from_secs(8),
            max_runtime: None,
            max_results: None,
            min_hitrate: 0.0,
            retries: 10,
            max_sendto_failures: None,
            reset: true,
            rows: RowSelection::default(),
            filter: None,
            columns: Column::defaults().to_vec(),
            max_memory: 1 << 30,
            dedup: Dedup::default(),
            queue: 32,
            ready: None,
            checkpointed: false,
            resume: None,
            capture_sample: None,
        }
    }
}

/// A scan in progress: a [`Run`] whose rows are answers.
pub struct Scan(Run);

impl Scan {
    /// Opens workers on a network and starts them.
    ///
    /// # Errors
    /// [`MeasureError`] when the probe, the memory bound or the network refuse; nothing was sent then.
    pub fn start(config: ScanConfig, network: Arc<dyn Network>) -> Result<Self, MeasureError> {
        Self::start_on(config, vec![network])
    }

    /// The same on several networks at once: workers take them in turn, and a probe leaves by the one that has its source
    /// address.
    ///
    /// # Errors
    /// As [`Scan::start`], and [`MeasureError::Config`] when a network has no worker or no address of the scan's.
    pub fn start_on(config: ScanConfig, networks: Vec<Arc<dyn Network>>) -> Result<Self, MeasureError> {
        if let Some(saved) = &config.resume {
            saved.check(&config)?;
        }
        let prepared = Prepared::new(config, networks)?;
        let config = &prepared.config;
        let frames = match prepared.probe.protocol() {
            Protocol::Udp if config.columns.contains(&Column::Data) => Frames::Payload,
            _ => Frames::Never,
        };
        let classes = if prepared.probe.by_rules() { prepared.probe.answers().to_vec() } else { Vec::new() };
        let request = WorkerRequest { frames, classes: classes.clone(), ..prepared.request() };
        let schema = schema::scan(config.plan.family, &config.columns);
        let map = passes::map(config)?;
        prepared
            .start(map, &request, schema, None, |_, config, ours, shared| Judge::new(config, &classes, ours, shared))
            .map(Self)
    }
}

impl Deref for Scan {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.0
    }
}

impl From<Scan> for Run {
    fn from(scan: Scan) -> Self {
        scan.0
    }
}
