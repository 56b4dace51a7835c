//! What was probed and what was left alone, for metadata: enough to name it in a paper, and bounded.

use irl_link::{OptOutFile, Policy};
use irl_targets::FileRef;
use serde_json::{Value, json};

use crate::metadata::{count, rfc3339};
use crate::scan::ScanConfig;

/// Prefixes, addresses and ranges named in the document; of more, their number and hash tell.
const MOST_GIVEN: usize = 1000;

/// What was asked for, as it was typed or by file, and how much that is.
pub(crate) fn targets(config: &ScanConfig) -> Value {
    let (plan, compiled) = (&config.plan, &config.compiled);
    let counts = compiled.targets().counts();
    let given = &plan.targets;
    json!({
        "family": plan.family,
        "given": given[..given.len().min(MOST_GIVEN)],
        "given_count": given.len(),
        "given_sha256": (!given.is_empty()).then(|| plan.targets_sha256()),
        "allow_files": plan.allowlist.iter().map(file).collect::<Vec<_>>(),
        "list": plan.list.as_ref().map(file),
        "ports": plan.ports.to_string(),
        "port_count": plan.ports.len(),
        "order": plan.order,
        "addresses_asked": count(counts.asked),
        "addresses_special": count(counts.special),
        "addresses_denied": count(counts.denied),
        "list_duplicates": counts.duplicates,
        "addresses": count(counts.kept),
        "targets": compiled.total(),
        "targets_of_shard": compiled.len(),
    })
}

/// The plan's deny files, and how many addresses each has.
pub(crate) fn deny_files(config: &ScanConfig) -> Value {
    let files = config.plan.blocklist.iter().enumerate().map(|(at, each)| {
        let addresses = config.deny_counts.get(at).map(|addresses| count(*addresses));
        json!({"path": each.path, "sha256": each.sha256, "addresses": addresses})
    });
    files.collect()
}

/// The opt-out file: as it was before the run, and each time that it was read again; null where there is none.
pub(crate) fn optout_file(policy: &Policy) -> Value {
    let Some(first) = &policy.settings().optout else { return Value::Null };
    let reread = policy.optouts_reread();
    let mut document = optout(first);
    document["path"] = json!(first.name);
    document["reread_count"] = json!(reread.times);
    document["reread"] = reread.last.iter().map(optout).collect();
    document
}

fn optout(file: &OptOutFile) -> Value {
    json!({"sha256": file.sha256, "lines": file.lines, "expired": file.expired, "read_time": rfc3339(file.read_ns)})
}

fn file(file: &FileRef) -> Value {
    json!({"path": file.path, "sha256": file.sha256})
}
