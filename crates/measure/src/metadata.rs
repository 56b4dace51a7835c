//! The document that describes a run: ZMap's keys where the meaning is ZMap's, and what reviewers ask for.

use irl_link::DeviceCounters;
use serde_json::{Value, json};

use crate::exchange::request::Request;
use crate::exchange::session::{Close, Until};
use crate::exchange::{ExchangeConfig, ExchangeRows};
use crate::filter::Filter;
use crate::map::MapMode;
use crate::passes::Pass;
use crate::probed;
use crate::run::Run;
use crate::scan::{Attachment, RowSelection};
use crate::stats::Stats;

/// Bytes of a header that a frame has inside the house and not on a device without Ethernet.
const ETHERNET: usize = 14;

/// What the run itself does not know.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The command line, or the call, that began the run.
    pub argv: Vec<String>,
    /// The version of the package.
    pub version: String,
    /// Whether the seed was given.
    pub seed_provided: bool,
    /// Free text.
    pub notes: Option<String>,
    /// Whatever the user wants to keep with the run.
    pub user_metadata: Option<Value>,
    /// The run was interrupted.
    pub interrupted: bool,
    /// Rows that outputs were given and could not keep, over all outputs.
    pub rows_lost: u64,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

/// The document of a run, at any time of it.
pub fn document(run: &Run, about: &About) -> Value {
    let config = run.config();
    let plan = &config.plan;
    let stats = run.stats();
    let engine = run.engine();
    let times = run.times();
    let settings = config.policy.settings();
    let sent_over_s = run.send_s();
    let counts = config.compiled.targets().counts();
    let interfaces: Vec<Value> = run.attachments().map(|(attachment, stats)| interface(attachment, &stats)).collect();
    let map = match run.map().mode() {
        MapMode::Exact => "exact".to_owned(),
        MapMode::Window { places } => format!(
            "window of {places} targets: a target's second answer is a repeat unless one that shares its place answered \
             in between, and a first answer is never taken for a repeat"
        ),
    };
    let how = json!({
        "type": "metadata",
        "version": about.version,
        "argv": about.argv,
        "engine": engine.engine,
        "engine_why": engine.why,
        "synthetic": engine.synthetic,
        "unsent": engine.unsent,
        "xdp_mode": engine.xdp_mode,
        "driver": engine.driver,
        "kernel": engine.kernel,
        "iface": engine.interface,
        "iplayer": engine.ip_layer,
        "kernel_rst": engine.kernel_rst,
        "interfaces": interfaces,
    });
    let what = json!({
        "probe_module": plan.probe.name,
        "probe_args": plan.probe.args,
        "plan_fingerprint": config.compiled.fingerprint(),
        "secret_hash": plan.secret.hash(),
        "permutation_version": plan.versions.permutation,
        "cookie_version": plan.versions.cookie,
        "iana_snapshot": plan.versions.registry,
        "targets": probed::targets(config),
        "deny_files": probed::deny_files(config),
        "optout_file": probed::optout_file(&config.policy),
        "prefix_budget": settings.prefix_budget,
        "contact": settings.contact,
        "authorized": settings.authorized,
        "seed": plan.seed,
        "seed_provided": about.seed_provided,
        "shard_num": config.compiled.shard_number(),
        "total_shards": config.compiled.shards(),
        "senders": config.workers,
        "cores": config.cores,
        "rate": stats.rate,
        "packet_streams": plan.probes,
        "probe_ttl": plan.ttl,
        "target_ports": plan.ports.to_string(),
        "source_ips": config.sources,
        "source_mac": interfaces.first().map(|first| &first["source_mac"]),
        "gateway_mac": interfaces.first().map(|first| &first["gateway_mac"]),
        "vlan": interfaces.first().map(|first| &first["vlan"]),
        "source_port_first": plan.source_ports.first,
        "source_port_last": plan.source_ports.last,
        "reprobe": config.reprobe,
        "cooldown_secs": config.cooldown.as_secs_f64(),
        "max_targets": plan.max_targets,
        "max_runtime": config.max_runtime.map(|time| time.as_secs_f64()),
        "max_results": config.max_results,
        "min_hitrate": config.min_hitrate,
        "max_sendto_failures": config.max_sendto_failures,
        "filter_duplicates": (config.filter.is_none() && config.rows == RowSelection::Success) || run.exchange().is_some(),
        "filter_unsuccessful": config.filter.is_none() && config.rows != RowSelection::All,
        "rows_selected": match (&config.filter, config.rows) {
            (Some(_), _) => "by the filter",
            (None, RowSelection::All) => "all",
            (None, RowSelection::Success) => "success",
            (None, RowSelection::Successes) => "success, repeats too",
        },
        "output_fields": config.columns.iter().map(|column| column.name()).collect::<Vec<_>>(),
        "schema_version": crate::schema::VERSION,
    });
    let passed = stats.rows + stats.repeats + stats.unselected;
    let outcome = json!({
        "dedup_method": map,
        "blocklist_total_allowed": count(counts.kept),
        "blocklist_total_not_allowed": count(counts.asked.saturating_sub(counts.kept)),
        "start_time": rfc3339(times.start),
        "send_start_time": rfc3339(times.first_frame),
        "send_end_time": rfc3339(times.last_frame),
        "recv_start_time": rfc3339(times.start),
        "recv_end_time": rfc3339(times.end),
        "elapsed_s": stats.elapsed_s,
        "send_s": sent_over_s,
        "send_rate": send_rate(&run.passes(), stats.probes_sent, sent_over_s),
        "targets_scanned": stats.targets,
        "passes": run.passes(),
        "packets_sent": stats.frames_sent(),
        "first_scanned": config.compiled.target(0).map(|(_, target)| plan.family.address(target.address)),
        "first_frame": run.first_frame().map(|frame| hex(if engine.ip_layer { frame.get(ETHERNET..).unwrap_or_default() } else { &frame })),
        "ended_by": run.ended_by(),
        "sent": stats.probes_sent,
        "found": stats.found,
        "hitrate": stats.hit_rate(),
        "success_total": stats.successes,
        "success_unique": stats.found,
        "validation_passed": passed,
        "validation_failed": stats.not_ours + stats.invalid,
        "success_cooldown_total": stats.cooldown_successes,
        "success_cooldown_unique": stats.cooldown_found,
        "failure_total": passed.saturating_sub(stats.successes),
        "send_to_failures": stats.sendto_failures,
        "ip_fragments": stats.fragments,
        "pcap_recv": stats.received,
        "pcap_drop": stats.overruns,
        "stats": stats,
        "imbalances": stats.imbalances(None),
        "filter": counts_by_name(run.filter_counters()),
        "device": run.device().map(since),
        "network": run.extra_counters(),
        "per_second": run.seconds(),
        "sessions": run.sessions(),
    });
    let losses = json!({
        "reprobe_wait_secs": config.reprobe_wait.map(|wait| wait.as_secs_f64()),
        "output_filter": config.filter.as_ref().map(Filter::text),
        "recheck_share": config.recheck,
        "recheck_rate": config.recheck.map(|_| config.recheck_rate),
        "loss": run.loss(),
        "recheck": run.recheck(),
    });
    let end = json!({
        "capture_sample": run.capture_sample(),
        "rows_lost": about.rows_lost,
        "interrupted": about.interrupted,
        "error": about.error,
        "notes": about.notes,
        "user-metadata": about.user_metadata,
        "clock": clock_state(),
    });
    let exchange = run.exchange().map_or(Value::Null, |config| exchange(config, &stats));
    let parts = [how, what, outcome, losses, exchange, end].into_iter().filter_map(|part| match part {
        Value::Object(map) => Some(map),
        _ => None,
    });
    Value::Object(parts.flatten().collect())
}

/// What an exchange was told and did beside what it has in common with a scan, whose keys it takes where they differ.
fn exchange(config: &ExchangeConfig, stats: &Stats) -> Value {
    let until = match &config.dialogue.until {
        Until::Close => "close".to_owned(),
        Until::Bytes(bytes) => format!("{bytes} bytes"),
        Until::Delimiter(delimiter) => format!("the bytes {}", hex(delimiter.bytes())),
    };
    json!({
        "request": match &config.request {
            Request::Bytes(bytes) => hex(bytes),
            Request::Template(template) => hex(&template.text()),
            Request::Column => "of each row".to_owned(),
        },
        "request_is_template": matches!(config.request, Request::Template(_)),
        "list": config.list.as_ref().map(|list| list.counts()),
        "targets_scanned": config.list.as_ref().map_or(stats.targets, |list| list.counts().targets),
        "until": until,
        "close": match config.dialogue.close {
            Close::Reset => "rst",
            Close::Finish => "fin",
        },
        "max_bytes": config.max_bytes,
        "timeout": config.timeout.as_secs_f64(),
        "max_connections": config.max_connections,
        "max_per_prefix": config.max_per_prefix,
        "max_memory": config.max_memory,
        "filter_unsuccessful": config.rows == ExchangeRows::Success,
        "rows_selected": config.rows.name(),
        "output_fields": config.columns.iter().map(|column| column.name()).collect::<Vec<_>>(),
        "schema_version": crate::exchange::schema::VERSION,
        "validation_passed": stats.segments_received + stats.errors_received + stats.refused,
        "failure_total": stats.connections_closed() + stats.refused + stats.silent - stats.exchanged,
        "connections": stats.connections_opened,
        "exchanged": stats.exchanged,
        "refused": stats.refused,
    })
}

/// One interface's share of a run.
fn interface(attachment: &Attachment, stats: &Stats) -> Value {
    let (info, network) = (attachment.info(), attachment.network());
    let endpoint = attachment.sources().first().and_then(|ours| network.endpoint(*ours).ok());
    json!({
        "iface": info.interface,
        "engine": info.engine,
        "engine_why": info.why,
        "xdp_mode": info.xdp_mode,
        "driver": info.driver,
        "iplayer": info.ip_layer,
        "kernel_rst": info.kernel_rst,
        "source_ips": attachment.sources(),
        "source_mac": endpoint.filter(|_| !info.ip_layer).map(|at| at.mac.to_string()),
        "vlan": endpoint.and_then(|at| at.vlan),
        "gateway_mac": network.next_hop().constant().filter(|_| !info.ip_layer).map(|mac| mac.to_string()),
        "sent": stats.probes_sent,
        "packets_sent": stats.frames_sent(),
        "received": stats.received,
        "found": stats.found,
        "crossed": stats.crossed,
        "pcap_drop": stats.overruns,
        "filter": counts_by_name(attachment.filter_counters()),
        "device": attachment.device().map(since),
        "network": network.extra_counters(),
    })
}

/// Probes a second while they left as fast as was asked for: the waits between passes are not in it, nor is a recheck,
/// which is slow on purpose.
fn send_rate(passes: &[Pass], sent: u64, send_s: f64) -> f64 {
    let walked =
        passes.iter().filter(|pass| !pass.recheck).filter_map(|pass| Some((pass.sent, pass.end_s? - pass.start_s)));
    let (sent, send_s) = match passes {
        [] | [_] => (sent, send_s),
        _ => walked.fold((0, 0.0), |(sent, send_s), (of_pass, took_s)| (sent + of_pass, send_s + took_s)),
    };
    if send_s > 0.0 { sent as f64 / send_s } else { 0.0 }
}

/// By how much a device's counters have moved.
fn since((before, after): (DeviceCounters, DeviceCounters)) -> Value {
    json!({
        "rx_packets": after.rx_packets.saturating_sub(before.rx_packets),
        "rx_dropped": after.rx_dropped.saturating_sub(before.rx_dropped),
        "rx_errors": after.rx_errors.saturating_sub(before.rx_errors),
        "tx_packets": after.tx_packets.saturating_sub(before.tx_packets),
        "tx_dropped": after.tx_dropped.saturating_sub(before.tx_dropped),
        "tx_errors": after.tx_errors.saturating_sub(before.tx_errors),
    })
}

fn counts_by_name(counts: Vec<(&'static str, u64)>) -> Value {
    Value::Object(counts.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect())
}

/// A count that may exceed what JSON readers take for an integer, then as text.
pub(crate) fn count(value: u128) -> Value {
    u64::try_from(value).map_or_else(|_| Value::from(value.to_string()), Value::from)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn rfc3339(ns: i64) -> Option<String> {
    (ns != 0).then(|| chrono::DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(chrono::SecondsFormat::Nanos, true))
}

/// Whether the system's clock is kept in step with UTC, as the kernel sees it.
fn clock_state() -> Value {
    match irl_link::clock::synchronised() {
        Some((synchronised, error_us)) => json!({"synchronised": synchronised, "max_error_us": error_us}),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_waits_nor_a_slow_recheck_lower_the_rate() {
        let pass = |pass, sent, recheck, start_s, end_s| Pass {
            pass,
            targets: sent,
            sent,
            found: 0,
            answered: 0,
            recheck,
            start_s,
            end_s,
        };
        let passes = [
            pass(0, 1000, false, 0.0, Some(1.0)),
            pass(1, 500, false, 3.0, Some(3.5)),
            pass(2, 100, true, 5.0, Some(15.0)),
        ];
        assert_eq!(send_rate(&passes, 1600, 15.0), 1000.0);
        assert_eq!(send_rate(&passes[..1], 1000, 0.8), 1250.0, "from the first frame to the last");
        assert_eq!(send_rate(&[pass(0, 0, false, 0.0, None)], 0, 0.0), 0.0);
    }
}
