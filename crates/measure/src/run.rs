//! A run: a measurement in progress or done, and the handle that its reader holds.

mod sessions;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use crossbeam_channel::{Receiver as Channel, RecvTimeoutError, bounded};
use irl_link::{Arena, DeviceCounters, EngineInfo, Network, Worker, WorkerRequest, clock, cores};
use irl_targets::{Family, registry};
use irl_wire::{FrameBuilder, Key, PortRange, Probe};

use crate::answers::{Answers, Ours};
use crate::attachment::{self, Attachment};
use crate::bounds::EndedBy;
use crate::budget::Budget;
use crate::capture;
use crate::checkpoint::{Delivered, Progress};
use crate::error::MeasureError;
use crate::exchange::ExchangeConfig;
use crate::further::Further;
use crate::loss::{Loss, Recheck, Sample, estimate};
use crate::map::AnsweredMap;
use crate::passes::{self, Pass, Passes};
use crate::ready::Ready;
use crate::scan::{ScanConfig, ScanRate};
use crate::shared::Shared;
use crate::stats::Stats;
use crate::worker::Loop;

pub use sessions::{SessionReport, Times};

/// What a run needs before its workers are opened.
pub(crate) struct Prepared {
    pub(crate) config: ScanConfig,
    pub(crate) probe: Probe,
    pub(crate) key: Key,
    pub(crate) ports: PortRange,
    pub(crate) attachments: Vec<Attachment>,
}

impl Prepared {
    /// Attaches a run to networks: workers take them in turn, and a probe leaves by the one that has its source address.
    ///
    /// # Errors
    /// [`MeasureError::Config`] when a network has no worker or no address of the run's, and those of the probe.
    pub(crate) fn new(mut config: ScanConfig, networks: Vec<Arc<dyn Network>>) -> Result<Self, MeasureError> {
        let family = config.plan.family;
        let probe = Probe::resolve(&config.plan.probe.name, &config.plan.probe.args)?;
        let key = Key::new(config.plan.secret.bytes());
        let ports = PortRange { first: config.plan.source_ports.first, last: config.plan.source_ports.last };
        if config.sources.is_empty() || config.sources.iter().any(|source| Family::of(*source) != family) {
            return Err(MeasureError::Config(format!("a scan of {family} targets needs {family} source addresses")));
        }
        config.workers = config.workers.max(1);
        let turns = networks.len();
        if turns == 0 || usize::from(config.workers) < turns {
            return Err(MeasureError::Config(format!(
                "{turns} interfaces cannot share the sender threads: each needs one (--sender-threads {})",
                turns.max(1)
            )));
        }
        let attachments = Attachment::to(networks, &config, &probe, &key, ports)?;
        Ok(Self { config, probe, key, ports, attachments })
    }

    /// What every kind of run asks of its networks.
    pub(crate) fn request(&self) -> WorkerRequest {
        let builders = self.attachments.iter().flat_map(Attachment::builders);
        WorkerRequest {
            probes: passes::numbers(&self.config),
            frame_len: builders.map(FrameBuilder::frame_len).max().unwrap_or(128),
            ..WorkerRequest::new(Arc::clone(&self.config.policy), self.key, self.ports, self.probe.protocol())
        }
    }

    /// Opens the workers and starts them, each with its answers.
    ///
    /// # Errors
    /// [`MeasureError`] when the cores or the networks refuse; nothing was sent then.
    pub(crate) fn start<A: Answers + 'static>(
        self,
        map: AnsweredMap,
        request: &WorkerRequest,
        schema: SchemaRef,
        exchange: Option<ExchangeConfig>,
        answers: impl Fn(usize, &ScanConfig, Ours, &Arc<Shared>) -> A,
    ) -> Result<Run, MeasureError> {
        let Self { config, attachments, .. } = self;
        cores::check(&config.cores)?;
        let budget = Budget::of(&config)?;
        let workers = workers(&config, &attachments, request)?;
        let (sender, batches) = bounded(config.queue.max(1));
        let rate = match config.rate {
            ScanRate::PerSecond(rate) => rate,
            ScanRate::Search => 0.0,
        };
        let passes = Passes::new(workers.len(), &config, clock::now_ns());
        let mut shared = Shared::new(workers.len(), map, passes, config.max_results, rate);
        shared.budget = budget;
        // One probe a target tells nothing of losses. By which of its probes a target was found is not known of an exchange,
        // nor of the sessions before this one.
        let knows = passes::numbers(&config) > 1 && exchange.is_none() && config.resume.is_none();
        shared.sample = knows.then(|| Sample::new(config.plan.seed));
        shared.replayed = attachments.iter().find_map(|each| each.network().replayed());
        if let Some(asked) = &config.capture_sample {
            shared.capture = Some(asked.begin(&config, &attachments, &shared)?);
        }
        if let Some(saved) = &config.resume {
            shared.resume(saved, config.max_results, config.compiled.len());
        }
        let start = config.resume.as_ref().map(|saved| saved.place()).unwrap_or_default();
        let delivered = config.checkpointed.then(|| Mutex::new(Delivered::new(workers.len(), start)));
        let shared = Arc::new(shared);
        config.ready.as_ref().map_or(Ok(()), Ready::call)?;
        let mut threads = Vec::new();
        for (number, mut worker) in workers {
            if let Some(sample) = &shared.capture {
                worker.gate.show(Arc::clone(sample), (number % attachments.len()) as u32);
            }
            let answers = answers(number, &config, Ours::of(&attachments, number % attachments.len()), &shared);
            let task = Loop::new(number, worker, &config, &shared, &attachments, answers, sender.clone());
            let core = config.cores.get(number % config.cores.len().max(1)).copied();
            let thread = std::thread::Builder::new()
                .name(format!("irl-worker-{number}"))
                .spawn(move || {
                    // The CPU was there a moment ago; a run does not end because it is taken away.
                    if let Some(Err(error)) = core.map(cores::pin) {
                        log::warn!("{error}");
                    }
                    task.run();
                })
                .map_err(|source| irl_link::LinkError::os("starting a worker thread", source));
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.stop.store(true, Ordering::Release);
                    drop(batches);
                    for thread in threads {
                        // Those that were started are stopped before anybody else gets their owners.
                        let _ = thread.join();
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(Run {
            shared,
            batches,
            delivered,
            threads: Mutex::new(threads),
            attachments,
            config,
            schema,
            exchange,
            further: None,
        })
    }
}

/// The workers of a run by their numbers; they take the networks in turn.
fn workers(
    config: &ScanConfig,
    attachments: &[Attachment],
    request: &WorkerRequest,
) -> Result<Vec<(usize, Worker)>, MeasureError> {
    let turns = attachments.len();
    let mut workers = Vec::new();
    for (turn, attachment) in attachments.iter().enumerate() {
        let each = (usize::from(config.workers) - turn).div_ceil(turns) as u16;
        let opened = attachment.workers(each, request)?;
        workers.extend(opened.into_iter().enumerate().map(|(round, worker)| (round * turns + turn, worker)));
    }
    workers.sort_by_key(|(number, _)| *number);
    Ok(workers)
}

/// A measurement in progress, or done. Dropping it stops the frames and waits for the workers.
pub struct Run {
    shared: Arc<Shared>,
    batches: Channel<Delivery>,
    /// What a checkpoint has to know of the rows that were handed over.
    delivered: Option<Mutex<Delivered>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    attachments: Vec<Attachment>,
    config: ScanConfig,
    schema: SchemaRef,
    exchange: Option<ExchangeConfig>,
    further: Option<Further>,
}

impl Run {
    /// The same with further columns, which a program makes of each batch. When that fails, the run ends with its error.
    #[must_use]
    pub fn with_further(self, further: Option<Further>) -> Self {
        // A value with a destructor is not taken apart.
        let mut run = self;
        run.further = further;
        run
    }

    /// The schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        self.further.as_ref().map_or_else(|| Arc::clone(&self.schema), Further::schema)
    }

    /// The family of addresses.
    pub fn family(&self) -> Family {
        self.config.plan.family
    }

    /// What it was told, of how targets are probed and when it ends.
    pub fn config(&self) -> &ScanConfig {
        &self.config
    }

    /// What it was told of its exchanges; `None` for a scan.
    pub fn exchange(&self) -> Option<&ExchangeConfig> {
        self.exchange.as_ref()
    }

    /// What it runs on: of several networks, what each is.
    pub fn engine(&self) -> EngineInfo {
        EngineInfo::of_all(self.attachments.iter().map(Attachment::info))
    }

    /// The networks, each with the counters of its workers.
    pub fn attachments(&self) -> impl Iterator<Item = (&Attachment, Stats)> {
        let turns = self.attachments.len();
        self.attachments.iter().enumerate().map(move |(turn, attachment)| {
            let mut stats = Stats::gather(self.shared.counters.iter().skip(turn).step_by(turns));
            let overruns = self.shared.overruns.iter().skip(turn).step_by(turns);
            stats.overruns = overruns.map(|each| each.load(Ordering::Relaxed)).sum();
            (attachment, stats)
        })
    }

    /// The next batch of rows, waiting at most `timeout`. [`Next::End`] once everything was handed over.
    ///
    /// # Errors
    /// The error that ended the run, once, after all rows that came before it.
    pub fn next_batch(&self, timeout: Duration) -> Result<Next, MeasureError> {
        match self.batches.recv_timeout(timeout) {
            Ok(Delivery { batch, progress }) => {
                if let (Some(delivered), Some(progress)) = (&self.delivered, progress) {
                    delivered.lock().unwrap_or_else(PoisonError::into_inner).absorb(*progress);
                }
                Ok(batch.map_or(Next::Nothing, |batch| Next::Batch(self.extended(batch))))
            }
            Err(RecvTimeoutError::Timeout) => Ok(Next::Nothing),
            Err(RecvTimeoutError::Disconnected) => {
                self.join();
                capture::end(&self.shared, &self.config, &self.attachments);
                let error = self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).take();
                error.map_or(Ok(Next::End), Err)
            }
        }
    }

    /// A batch with the columns that the probe's owner makes of it.
    fn extended(&self, batch: RecordBatch) -> RecordBatch {
        let Some(further) = &self.further else { return batch };
        let (batch, error) = further.extend(&batch);
        error.into_iter().for_each(|error| self.shared.fail(error));
        batch
    }

    /// Stops sending; answers are still received for the cooldown.
    pub fn stop_sending(&self) {
        self.shared.end(EndedBy::Stopped);
        self.shared.halt.store(true, Ordering::Release);
    }

    /// Tells the workers to stop everything, and does not wait: rows collected until now can still be read.
    pub fn halt(&self) {
        self.shared.end(EndedBy::Stopped);
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Stops everything: no frame leaves once this returns. Rows collected until now can still be read.
    pub fn stop(&self) {
        self.halt();
        while self.shared.running.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        capture::end(&self.shared, &self.config, &self.attachments);
    }

    /// Changes the rate in flight; 0 searches for the fastest.
    ///
    /// # Errors
    /// [`MeasureError::Config`] for what is no rate, and for 0 where the policy wanted a finite one.
    pub fn set_rate(&self, per_second: f64) -> Result<(), MeasureError> {
        if !(per_second.is_finite() && per_second >= 0.0) {
            return Err(MeasureError::Config(format!(
                "a rate of {per_second} is not possible: give frames a second, or 0 for as fast as goes"
            )));
        }
        let family = self.family();
        let world = !self.config.policy.allowed(family).is_subset(registry::not_global(family));
        if per_second == 0.0 && world && !self.synthetic() && !self.engine().unsent {
            return Err(MeasureError::Config(
                "globally reachable targets are probed at a finite rate: give one above 0".to_owned(),
            ));
        }
        self.shared.rate.store(per_second.to_bits(), Ordering::Release);
        Ok(())
    }

    /// Why no more probes are sent; `None` while they are.
    pub fn ended_by(&self) -> Option<EndedBy> {
        EndedBy::from_u8(self.shared.ended_by.load(Ordering::Acquire))
    }

    /// The first probe, as it was built; `None` before it.
    pub fn first_frame(&self) -> Option<Vec<u8>> {
        self.shared.first_frame.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The counters so far.
    pub fn stats(&self) -> Stats {
        let mut stats = self.shared.stats();
        let (len, probes) = (self.config.compiled.len(), self.config.plan.probes);
        stats.probes_planned = match self.exchange.as_ref().and_then(|exchange| exchange.list.as_ref()) {
            // What has been read; nobody knows what comes.
            Some(list) => list.counts().targets + stats.reprobed,
            None => self.shared.passes.planned(&stats, len, probes),
        };
        stats
    }

    /// The counters of each worker with the interface it sends by; of this session, where a run was gone on with.
    pub fn workers(&self) -> Vec<(String, Stats)> {
        let interfaces: Vec<_> = self.attachments.iter().map(|each| each.info().interface).collect();
        let each = self.shared.counters.iter().zip(&self.shared.overruns).zip(interfaces.iter().cycle());
        each.map(|((counters, overruns), interface)| {
            let mut stats = Stats::gather([counters]);
            stats.overruns = overruns.load(Ordering::Relaxed);
            (interface.clone(), stats)
        })
        .collect()
    }

    /// Batches of rows that wait for their reader, and how many may before senders pause.
    pub fn queue(&self) -> (usize, usize) {
        (self.batches.len(), self.config.queue.max(1))
    }

    /// Probes a second over the last whole second; 0 when none are sent any more, and before a second has passed.
    pub fn rate_now(&self) -> f64 {
        if self.shared.sending.load(Ordering::Acquire) == 0 {
            return 0.0;
        }
        let seconds = self.shared.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = seconds.last() else { return 0.0 };
        let behind = &self.shared.behind;
        let before = match seconds.len() {
            1 => (behind.offset_s, behind.stats.probes_sent),
            more => (seconds[more - 2].elapsed_s, seconds[more - 2].sent),
        };
        last.sent.saturating_sub(before.1) as f64 / (last.elapsed_s - before.0).max(1e-9)
    }

    /// The passes over the targets so far.
    pub fn passes(&self) -> Vec<Pass> {
        self.shared.passes.report(&self.shared.stats(), self.shared.started_ns)
    }

    /// What is thought of losses by now; `None` where nothing is known: one probe a target, an exchange, or a run that was
    /// gone on with, of which an earlier session knew who was found by which probe.
    pub fn loss(&self) -> Option<Loss> {
        let sample = self.shared.sample.as_ref()?;
        let (stats, ended) = (self.shared.stats(), self.ended_by() == Some(EndedBy::Targets));
        let schedule = estimate::Schedule {
            probes: u32::from(self.config.plan.probes.max(1)),
            passes: u32::from(self.shared.passes.walked(ended)),
        };
        let found = stats.found.saturating_sub(stats.recheck_others_found);
        estimate::estimate(sample.answered(), schedule, found)
    }

    /// What probing a sample again at the end told; `None` where that was not asked for or has not begun.
    pub fn recheck(&self) -> Option<Recheck> {
        let stats = self.shared.stats();
        let begun = stats.recheck_found_probed + stats.recheck_others_probed > 0;
        (self.config.recheck.is_some() && begun).then(|| Recheck::of(&stats))
    }

    /// Positions of this shard handed to workers so far: the watermark.
    pub fn watermark(&self) -> u64 {
        self.shared.watermark.load(Ordering::Acquire).min(self.config.compiled.len())
    }

    /// Whether the workers are done.
    pub fn is_finished(&self) -> bool {
        self.shared.running.load(Ordering::Acquire) == 0
    }

    /// Device counters before the first frame and now, over all networks.
    pub fn device(&self) -> Option<(DeviceCounters, DeviceCounters)> {
        attachment::device(&self.attachments)
    }

    /// What the filters counted since the run began, by name: what was handed over, and what was dropped for which reason.
    pub fn filter_counters(&self) -> Vec<(&'static str, u64)> {
        attachment::filter_counters(&self.attachments)
    }

    /// Further counters of the networks, by name.
    pub fn extra_counters(&self) -> BTreeMap<String, u64> {
        attachment::extra_counters(&self.attachments)
    }

    /// What metadata tell of the sample of its frames.
    pub(crate) fn capture_sample(&self) -> serde_json::Value {
        capture::report(&self.shared)
    }

    /// The answered map.
    pub fn map(&self) -> &AnsweredMap {
        &self.shared.map
    }

    /// Whether answers are made up by a simulated network.
    pub fn synthetic(&self) -> bool {
        self.config.policy.settings().arena == Arena::Simulated
    }

    fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A worker that panicked has left that as the run's error.
            let _ = thread.join();
        }
        self.attachments.iter().for_each(Attachment::release);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop();
        // Workers that still hold rows for a reader end when there is none.
        let (_, nobody) = bounded(0);
        self.batches = nobody;
        self.join();
    }
}

/// What a worker hands over: rows, and what a checkpoint has to know to keep them.
pub(crate) struct Delivery {
    pub(crate) batch: Option<RecordBatch>,
    pub(crate) progress: Option<Box<Progress>>,
}

/// What [`Run::next_batch`] found.
#[derive(Debug)]
pub enum Next {
    /// Rows.
    Batch(RecordBatch),
    /// Nothing yet.
    Nothing,
    /// The run is over and everything was handed over.
    End,
}
