//! The sample of a run's frames that is kept on disk (`--capture-sample`): its beginning, its end, and what metadata tell.

use std::path::PathBuf;
use std::sync::Arc;

use irl_link::capture::{Sample, SampleConfig, SampleSide, SampledInterface};
use serde_json::{Value, json};

use crate::attachment::Attachment;
use crate::error::MeasureError;
use crate::scan::ScanConfig;
use crate::shared::Shared;

/// The sample that is asked for.
#[derive(Clone, Debug)]
pub struct CaptureSample {
    /// Where it is written, as pcapng.
    pub path: PathBuf,
    /// The most frames sent in it, and the most answers.
    pub size: usize,
    /// What writes it: name and version.
    pub program: String,
}

impl CaptureSample {
    /// Makes the file, so that nothing is sent where that is not possible.
    pub(crate) fn begin(
        &self,
        config: &ScanConfig,
        attachments: &[Attachment],
        shared: &Shared,
    ) -> Result<Arc<Sample>, MeasureError> {
        let interface = |attachment: &Attachment| {
            let (info, network) = (attachment.info(), attachment.network());
            let endpoint = attachment.sources().first().and_then(|ours| network.endpoint(*ours).ok());
            SampledInterface {
                name: info.interface,
                ours: endpoint.map(|at| at.mac).unwrap_or_default(),
                gateway: network.next_hop().constant(),
                vlan: endpoint.and_then(|at| at.vlan),
                ip_layer: info.ip_layer,
            }
        };
        Ok(Arc::new(Sample::new(SampleConfig {
            path: self.path.clone(),
            size: self.size,
            seed: config.plan.seed,
            interfaces: attachments.iter().map(interface).collect(),
            sources: attachments.iter().flat_map(Attachment::sources).copied().collect(),
            utc_minus_mono: shared.utc_minus_mono(),
        })?))
    }
}

/// Writes a run's sample once all its workers are done; what goes wrong is the run's error.
pub(crate) fn end(shared: &Shared, config: &ScanConfig, attachments: &[Attachment]) {
    let (Some(sample), Some(asked)) = (&shared.capture, &config.capture_sample) else { return };
    let engines: Vec<String> = attachments
        .iter()
        .map(Attachment::info)
        .map(|info| match (info.synthetic, info.unsent) {
            (true, _) => format!("{}, synthetic: answers are made up, and no frame left the machine", info.engine),
            (_, true) => format!("{}: no frame left", info.engine),
            _ => info.engine,
        })
        .collect();
    let about = format!(
        "{} {}, plan {}, shard {} of {}, engine {}",
        asked.program,
        config.plan.probe.name,
        config.compiled.fingerprint(),
        config.compiled.shard_number(),
        config.compiled.shards(),
        engines.join(", ")
    );
    if let Err(error) = sample.write(&asked.program, &about) {
        shared.fail(error.into());
    }
}

/// What metadata tell of it; null where there is none.
pub(crate) fn report(shared: &Shared) -> Value {
    let Some(sample) = &shared.capture else { return Value::Null };
    let side = |side: SampleSide| json!({"frames": side.frames, "one_in": crate::metadata::count(side.one_in), "left_out": side.left_out});
    json!({
        "path": sample.config().path,
        "size": sample.config().size,
        "sent": sample.end().map(|end| side(end.sent)),
        "received": sample.end().map(|end| side(end.received)),
    })
}
