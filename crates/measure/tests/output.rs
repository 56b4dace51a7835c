//! Runs written down: every format read back, and outputs that cannot be written.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampNanosecondType, UInt32Type};
use arrow_array::{Array, RecordBatch};
use irl_measure::metadata::About;
use irl_measure::output::{self, Format, PartLimits, Sink};
use irl_measure::record::{Outcome, Watch, record};
use irl_measure::schema::{self, Column};
use irl_measure::{MeasureError, Scan, ScanRate, status};
use irl_targets::Family;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use support::{Handle, Scripted, config};

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("irl-measure-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sees what a terminal and a status-updates file would.
#[derive(Default)]
struct Watched {
    lines: Vec<String>,
    rows: Vec<String>,
    interrupt: bool,
}

impl Watch for Watched {
    fn go_on(&mut self) -> bool {
        !self.interrupt
    }

    fn second(&mut self, line: &str, row: &str) {
        self.lines.push(line.to_owned());
        self.rows.push(row.to_owned());
    }
}

fn open(path: &Path, columns: &[Column], header: bool) -> Result<Box<dyn Sink>, MeasureError> {
    output::open(path, Format::of(path)?, Family::V4, &schema::scan(Family::V4, columns), header)
}

/// A Parquet output whose parts are closed with the batch that brings so many rows.
fn open_small(path: &Path, columns: &[Column], rows: u64) -> Box<dyn Sink> {
    let limits = PartLimits { rows, ..PartLimits::default() };
    output::open_parquet(path, &schema::scan(Family::V4, columns), limits).unwrap()
}

/// Scans a network where everybody answers.
fn start(targets: &str, rate: f64, columns: &[Column]) -> Scan {
    let mut config = config(targets, ScanRate::PerSecond(rate));
    config.columns = columns.to_vec();
    Scan::start(config, Arc::new(Handle(Arc::new(Scripted::open())))).unwrap()
}

fn write(scan: &Scan, sinks: Vec<Box<dyn Sink>>) -> Outcome {
    record(scan, sinks, &About { version: "1.2.3".to_owned(), ..About::default() }, &mut Watched::default(), None)
}

fn read(path: &Path) -> (Vec<RecordBatch>, Vec<(String, String)>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let pairs = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let batches = builder.with_batch_size(1 << 16).build().unwrap().collect::<Result<_, _>>().unwrap();
    (batches, pairs.into_iter().map(|pair| (pair.key, pair.value.unwrap_or_default())).collect())
}

fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[test]
fn parts_become_one_parquet_file_with_schema_version_and_metadata() {
    let folder = Folder::new("parquet");
    let path = folder.join("out.parquet");
    let columns = Column::defaults();
    let sinks = vec![open(&path, columns, true).unwrap()];
    // More than a part holds.
    let outcome = write(&start("10.0.0.0/11", 1e9, columns), sinks);
    assert!(outcome.error.is_none() && !outcome.lost && !outcome.interrupted, "{outcome:?}");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "only the file is left");
    let (batches, pairs) = read(&path);
    assert_eq!(rows(&batches), 1 << 21);
    assert_eq!(batches[0].schema().fields(), schema::scan(Family::V4, columns).fields());
    let value = |key| &pairs.iter().find(|(name, _)| name == key).unwrap().1;
    assert_eq!(value("irlstack.schema"), "scan 1");
    assert_eq!(*value("irlstack.metadata"), outcome.metadata.to_string());
    // Each target once.
    let mut seen = vec![false; 1 << 21];
    for batch in &batches {
        for address in batch.column_by_name("saddr").unwrap().as_primitive::<UInt32Type>().values() {
            assert!(!std::mem::replace(&mut seen[(address - 0x0a00_0000) as usize], true));
        }
        let rtt = batch.column_by_name("rtt").unwrap().as_primitive::<Int64Type>();
        assert!(rtt.null_count() == 0 && rtt.values().iter().all(|rtt| (0..1_000_000_000).contains(rtt)));
    }
}

#[test]
fn text_says_the_same_as_parquet() {
    let folder = Folder::new("text");
    let columns = Column::ALL;
    let [parquet, csv, bare, json] = ["a.parquet", "a.csv", "bare.csv", "a.jsonl"].map(|name| folder.join(name));
    let sinks = [(&parquet, true), (&csv, true), (&bare, false), (&json, true)];
    let sinks = sinks.map(|(path, header)| open(path, &columns, header).unwrap());
    write(&start("10.0.0.0/22", 1e9, &columns), sinks.into());
    let (batches, _) = read(&parquet);
    let csv = fs::read_to_string(csv).unwrap();
    let bare = fs::read_to_string(bare).unwrap();
    let json = fs::read_to_string(json).unwrap();
    let names: Vec<_> = columns.iter().map(|column| column.name()).collect();
    assert_eq!(csv.lines().next().unwrap(), names.join(","));
    assert_eq!(csv.split_once('\n').unwrap().1, bare);
    assert_eq!((bare.lines().count(), json.lines().count(), rows(&batches)), (1024, 1024, 1024));
    let mut lines = bare.lines().zip(json.lines());
    for batch in &batches {
        let column = |name| batch.column_by_name(name).unwrap();
        for row in 0..batch.num_rows() {
            let (csv, json) = lines.next().unwrap();
            let cell = |name| csv.split(',').nth(names.iter().position(|each| *each == name).unwrap()).unwrap();
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            let address = std::net::Ipv4Addr::from_bits(column("saddr").as_primitive::<UInt32Type>().value(row));
            assert_eq!(
                (cell("saddr"), json["saddr"].as_str().unwrap()),
                (&*address.to_string(), &*address.to_string())
            );
            let seq = column("seqnum").as_primitive::<UInt32Type>().value(row);
            assert_eq!((cell("seqnum"), json["seqnum"].as_u64().unwrap()), (&*seq.to_string(), u64::from(seq)));
            let time = column("timestamp").as_primitive::<TimestampNanosecondType>().value(row);
            let time = chrono::DateTime::from_timestamp_nanos(time).to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
            assert_eq!((cell("timestamp"), json["timestamp"].as_str().unwrap()), (&*time, &*time));
            assert_eq!((cell("success"), &json["success"]), ("1", &serde_json::Value::Bool(true)));
            assert_eq!((cell("classification"), json["classification"].as_str().unwrap()), ("synack", "synack"));
            assert_eq!((cell("icmp_type"), &json["icmp_type"]), ("", &serde_json::Value::Null));
        }
    }
}

#[test]
fn what_cannot_be_written_is_found_before_the_first_frame() {
    let folder = Folder::new("unwritable");
    let columns = Column::defaults();
    for name in ["no/such/folder/a.csv", "no/such/folder/a.parquet", "no/such/folder/a.jsonl"] {
        assert!(matches!(open(&folder.join(name), columns, true), Err(MeasureError::Output { .. })), "{name}");
    }
    assert!(matches!(open(&folder.join("a.xlsx"), columns, true), Err(MeasureError::Config(_))));
    assert!(matches!(open(Path::new("/dev/full"), columns, true), Err(MeasureError::Output { .. })));
    // Rows of a run that was killed are never overwritten.
    fs::create_dir(folder.join("b.parquet.parts")).unwrap();
    assert!(matches!(open(&folder.join("b.parquet"), columns, true), Err(MeasureError::Config(_))));
}

#[test]
fn an_output_that_fails_ends_the_run_and_the_others_are_kept() {
    let folder = Folder::new("full");
    let columns = [Column::Saddr];
    let good = folder.join("good.csv");
    let sinks = vec![open(Path::new("/dev/full"), &columns, false).unwrap(), open(&good, &columns, true).unwrap()];
    let scan = start("10.0.0.0/8", 100_000.0, &columns);
    let outcome = write(&scan, sinks);
    assert!(matches!(&outcome.error, Some(MeasureError::Output { path, .. }) if path == Path::new("/dev/full")));
    assert!(outcome.lost && !outcome.interrupted);
    assert!(outcome.metadata["error"].as_str().unwrap().contains("/dev/full"));
    let stats = scan.stats();
    assert!(stats.probes_sent < 1 << 20, "the run went on");
    assert_eq!(fs::read_to_string(good).unwrap().lines().count() as u64, 1 + stats.rows);
}

/// The name by which a test calls itself with a bound on the size of files.
const BOUNDED: &str = "IRL_TEST_BOUNDED_FOLDER";

/// Runs a test of this file again where no file grows beyond `kilobytes`, which stands for a disk that fills up.
fn with_bounded_files(test: &str, folder: &Folder, kilobytes: u32) {
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", kilobytes * 2);
    let done = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(BOUNDED, &folder.0)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

#[test]
fn a_full_disk_leaves_whole_lines() {
    let Some(folder) = std::env::var_os(BOUNDED).map(PathBuf::from) else {
        let folder = Folder::new("bounded-csv");
        return with_bounded_files("a_full_disk_leaves_whole_lines", &folder, 512);
    };
    let columns = Column::defaults();
    let (csv, json) = (folder.join("a.csv"), folder.join("a.jsonl"));
    let sinks = vec![open(&csv, columns, true).unwrap(), open(&json, columns, true).unwrap()];
    let scan = start("10.0.0.0/14", 1e9, columns);
    let outcome = write(&scan, sinks);
    assert!(outcome.lost && matches!(outcome.error, Some(MeasureError::Output { .. })));
    let csv = fs::read_to_string(csv).unwrap();
    assert!(csv.len() > (512 << 10) - 200 && csv.ends_with('\n'), "{} bytes", csv.len());
    assert!(csv.lines().all(|line| line.split(',').count() == columns.len()));
    let json = fs::read_to_string(json).unwrap();
    assert!(json.len() > 200_000, "{} bytes", json.len());
    assert!(json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    let kept = (csv.lines().count() - 1 + json.lines().count()) as u64;
    assert_eq!(outcome.metadata["rows_lost"], 2 * scan.stats().rows - kept);
}

#[test]
fn a_full_disk_leaves_the_parts_that_were_closed() {
    let Some(folder) = std::env::var_os(BOUNDED).map(PathBuf::from) else {
        let folder = Folder::new("bounded-parquet");
        return with_bounded_files("a_full_disk_leaves_the_parts_that_were_closed", &folder, 20 << 10);
    };
    let columns = Column::defaults();
    let path = folder.join("a.parquet");
    // A part fits; all of them joined do not.
    let outcome = write(&start("10.0.0.0/10", 1e9, columns), vec![open(&path, columns, true).unwrap()]);
    let parts = folder.join("a.parquet.parts");
    let named = matches!(&outcome.error, Some(MeasureError::Output { path, .. }) if *path == parts);
    assert!(outcome.lost && named, "{:?}", outcome.error);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "only the parts are left");
    let kept: usize = fs::read_dir(&parts).unwrap().map(|part| rows(&read(&part.unwrap().path()).0)).sum();
    assert_eq!(kept, 1 << 22);
}

#[test]
fn a_part_that_there_is_no_room_for_is_lost_and_its_rows_are_counted() {
    const TEST: &str = "a_part_that_there_is_no_room_for_is_lost_and_its_rows_are_counted";
    let Some(folder) = std::env::var_os(BOUNDED).map(PathBuf::from) else {
        return with_bounded_files(TEST, &Folder::new("bounded-part"), 1 << 10);
    };
    let columns = Column::defaults();
    let path = folder.join("a.parquet");
    // A batch fits into a part; all rows in one part do not.
    let small = open_small(&folder.join("b.parquet"), columns, 1);
    let sinks = vec![small, open(&path, columns, true).unwrap()];
    let scan = start("10.0.0.0/13", 1e9, columns);
    let outcome = write(&scan, sinks);
    assert!(outcome.lost && matches!(outcome.error, Some(MeasureError::Output { .. })), "{:?}", outcome.error);
    assert!(outcome.metadata["error"].is_string());
    assert!(!path.exists() && !folder.join("a.parquet.parts").exists(), "nothing of it could be kept");
    let parts = folder.join("b.parquet.parts");
    let kept: usize = fs::read_dir(&parts).unwrap().map(|part| rows(&read(&part.unwrap().path()).0)).sum();
    assert_eq!(kept as u64, scan.stats().rows, "the output beside it is whole, in parts for lack of room");
    assert_eq!(outcome.metadata["rows_lost"], scan.stats().rows);
}

#[test]
fn many_parts_joined_are_the_same_table_as_one() {
    let folder = Folder::new("joined");
    let (one, many) = (folder.join("one.parquet"), folder.join("many.parquet"));
    let columns = Column::ALL;
    let sinks = vec![open(&one, &columns, true).unwrap(), open_small(&many, &columns, 5000)];
    let outcome = write(&start("10.0.0.0/13", 1e9, &columns), sinks);
    assert!(outcome.error.is_none() && outcome.metadata["rows_lost"] == 0);
    let groups = |path| {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        builder.metadata().num_row_groups()
    };
    assert_eq!(groups(&one), 1);
    assert!(groups(&many) > 4, "{}", groups(&many));
    let ((left, left_pairs), (right, right_pairs)) = (read(&one), read(&many));
    assert_eq!(rows(&left), 1 << 19);
    assert_eq!(left, right);
    assert_eq!(left_pairs, right_pairs);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2);
}

/// The name by which a test tells the process that it kills where to write.
const KILLED: &str = "IRL_TEST_KILLED_FOLDER";

#[test]
fn a_killed_run_leaves_readable_parts() {
    let columns = Column::defaults();
    if let Some(folder) = std::env::var_os(KILLED).map(PathBuf::from) {
        let sinks = vec![open_small(&folder.join("a.parquet"), columns, 1000)];
        write(&start("10.0.0.0/8", 100_000.0, columns), sinks);
        return;
    }
    let folder = Folder::new("killed");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_run_leaves_readable_parts"])
        .env(KILLED, &folder.0)
        .spawn()
        .unwrap();
    let parts = folder.join("a.parquet.parts");
    let closed = || {
        let all = fs::read_dir(&parts).into_iter().flatten().map(|entry| entry.unwrap().path());
        all.filter(|path| path.extension().is_some_and(|suffix| suffix == "parquet")).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while closed().len() < 3 {
        assert!(Instant::now() < deadline, "no parts were closed");
        std::thread::sleep(Duration::from_millis(5));
    }
    // SIGKILL: nothing of the process can tidy up.
    child.kill().unwrap();
    child.wait().unwrap();
    let parts = closed();
    let kept: usize = parts.iter().map(|part| rows(&read(part).0)).sum();
    assert!(kept >= 1000 * parts.len(), "{kept} rows in {} parts", parts.len());
    // A new run must not write over them.
    assert!(matches!(open(&folder.join("a.parquet"), columns, true), Err(MeasureError::Config(_))));
}

#[test]
fn an_interrupted_run_keeps_its_rows_and_says_so() {
    let folder = Folder::new("interrupted");
    let columns = Column::defaults();
    let path = folder.join("a.parquet");
    let sinks = vec![open(&path, columns, true).unwrap()];
    let scan = start("10.0.0.0/8", 100_000.0, columns);
    while scan.stats().rows < 20_000 {
        std::thread::yield_now();
    }
    let mut watched = Watched { interrupt: true, ..Watched::default() };
    let outcome = record(&scan, sinks, &About::default(), &mut watched, None);
    assert!(outcome.interrupted && outcome.error.is_none() && !outcome.lost, "{outcome:?}");
    assert_eq!(outcome.metadata["interrupted"], true);
    assert_eq!(outcome.metadata["ended_by"], "stopped");
    assert_eq!(rows(&read(&path).0) as u64, scan.stats().rows);
}

#[test]
fn metadata_and_status_tell_the_whole_run() {
    let columns = Column::defaults();
    let scan = start("10.0.0.0/16", 30_000.0, columns);
    let mut watched = Watched::default();
    let outcome = record(&scan, Vec::new(), &About { seed_provided: true, ..About::default() }, &mut watched, None);
    let document = outcome.metadata;
    let expected = serde_json::json!({
        "engine": "scripted", "synthetic": true, "probe_module": "tcp_synscan", "seed": 5, "seed_provided": true,
        "shard_num": 0, "total_shards": 1, "senders": 1, "rate": 30_000.0, "target_ports": "80",
        "source_ips": ["198.18.0.10"], "source_mac": "02:00:00:00:00:01", "gateway_mac": "02:00:00:00:00:02",
        "packets_sent": 131_072, "sent": 65_536, "found": 65_536, "targets_scanned": 65_536, "hitrate": 100.0,
        "success_total": 65_536, "success_unique": 65_536, "failure_total": 0, "validation_passed": 65_536,
        "validation_failed": 0, "blocklist_total_allowed": 65_536, "blocklist_total_not_allowed": 0, "pcap_drop": 0,
        "send_to_failures": 0, "ended_by": "targets", "dedup_method": "exact", "imbalances": [], "error": null,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&document[key], value, "{key}");
    }
    for key in ["send_start_time", "send_end_time", "recv_start_time", "recv_end_time", "first_scanned", "first_frame"]
    {
        assert!(document[key].is_string(), "{key}: {}", document[key]);
    }
    assert!(document["clock"]["synchronised"].is_boolean());
    assert!(document["plan_fingerprint"].as_str().unwrap().len() == 64);
    // Two seconds, and the end.
    let seconds = scan.seconds();
    assert_eq!(document["per_second"].as_array().unwrap().len(), seconds.len());
    assert!((3..=4).contains(&seconds.len()), "{seconds:?}");
    for (number, second) in seconds.iter().take(2).enumerate() {
        let at = (number + 1) as f64;
        assert!((at..at + 0.1).contains(&second.elapsed_s), "{second:?}");
        assert!((second.sent as f64 / (30_000.0 * at) - 1.0).abs() < 0.05, "{second:?}");
    }
    // A target of the 45,000th position was probed after 1.5 s: in the second that ended after 2.
    assert!((1.9..2.2).contains(&status::when(&seconds, 45_000).unwrap()));
    assert_eq!(status::when(&seconds, 65_536), None);
    assert!(watched.lines.len() >= 3 && watched.lines.last().unwrap().contains("send: 65536 done"));
    let columns = status::CSV_HEADER.split(',').count();
    assert!(watched.rows.iter().all(|row| row.split(',').count() == columns));
}
