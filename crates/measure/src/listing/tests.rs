use std::io::Cursor;
use std::time::Instant;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt32Type};
use arrow_array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, LargeStringArray, RecordBatch,
    RecordBatchIterator, StringArray, UInt16Array, UInt32Array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use irl_targets::{Plan, PortSet, parse_target};
use irl_wire::PortRange;

use super::*;
use crate::exchange::request::Request;
use crate::exchange::rows::{Row, RowBuilder};
use crate::exchange::schema::Column;

fn config(targets: &str, ports: &str) -> ListConfig {
    let ports: PortSet = ports.parse().expect("ports");
    let plan = Plan::builder().target(targets).ports(ports.clone()).build().expect("a plan");
    ListConfig {
        family: plan.family,
        plan: plan.compile(0).expect("it compiles"),
        ports: ports.as_slice().to_vec(),
        our_ports: PortRange::DEFAULT.len(),
        attempts: 1,
        timeout: Duration::from_secs(1),
        max_memory: 1 << 30,
        request: None,
    }
}

fn text(list: &str, config: &ListConfig) -> Result<Listing, MeasureError> {
    Listing::open(Input::Text("the list".to_owned(), Box::new(Cursor::new(list.to_owned()))), config)
}

fn table(columns: Vec<(&str, ArrayRef)>, config: &ListConfig) -> Result<Listing, MeasureError> {
    let batch = RecordBatch::try_from_iter(columns).expect("equal lengths");
    let schema = batch.schema();
    let reader = RecordBatchIterator::new([Ok::<_, ArrowError>(batch)], schema);
    Listing::open(Input::Table(Box::new(reader)), config)
}

/// Reads a list to its end, every target answering at once: the targets, as text, and the rows beside them.
fn all(listing: &Listing) -> Result<(Vec<String>, RecordBatch), MeasureError> {
    let mut builder = RowBuilder::new(listing.family, &[Column::Saddr, Column::Sport], listing.columns());
    let mut targets = Vec::new();
    let until = Instant::now() + Duration::from_secs(60);
    while !listing.is_done() {
        assert!(Instant::now() < until, "it ends");
        let mut due = Vec::new();
        listing.take(clock::now_ns(), 100, &mut due)?;
        for Due { target, number } in due {
            targets.push(format!("{}:{}", listing.family.address(target.address), target.port));
            let row = listing.connect(target, number).expect("it was asked");
            let at = Row { saddr: target.address, sport: target.port, ..Row::default() };
            listing.finish(row, |source| builder.push(at, None, Some(source)));
        }
        std::thread::yield_now();
    }
    Ok((targets, builder.take().expect("it fits")))
}

fn column(rows: &RecordBatch, name: &str) -> Vec<String> {
    let array = rows.column_by_name(name).expect("it is there").as_string::<i32>();
    array.iter().map(|value| value.unwrap_or("-").to_owned()).collect()
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.columns().iter().map(|field| field.name().as_str()).collect()
}

#[test]
fn a_header_names_the_columns_and_the_others_pass_through() {
    let list = "tag,SAddr,note,sport,domain\nx,10.0.0.1,\"a, \"\"b\"\"\",443,one.test\n,10.0.0.2, c ,,\n";
    let listing = text(list, &config("10.0.0.0/8", "80")).expect("it opens");
    assert_eq!(names(&listing), ["tag", "note", "domain"]);
    let (targets, rows) = all(&listing).expect("it is read");
    assert_eq!(targets, ["10.0.0.1:443", "10.0.0.2:80"]);
    assert_eq!(column(&rows, "tag"), ["x", "-"]);
    assert_eq!(column(&rows, "note"), ["a, \"b\"", " c "]);
    assert_eq!(column(&rows, "domain"), ["one.test", "-"]);
    let ListCounts { rows, targets, bad, left, .. } = listing.counts();
    assert_eq!((rows, targets, bad, left), (2, 2, 0, 0));
}

#[test]
fn lines_without_header_are_targets_or_zgrab2s() {
    let config4 = config("10.0.0.0/8", "80,81");
    let (targets, _) = all(&text("10.0.0.1\n# no\n\n10.0.0.2:22\n", &config4).unwrap()).unwrap();
    assert_eq!(targets, ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:22"]);
    let listing = text("10.0.0.1,one.test\n10.0.0.2,,x\n10.0.0.3,three.test,y,22\n10.0.0.4\n", &config4).unwrap();
    assert_eq!(names(&listing), ["domain", "tag"]);
    let (targets, rows) = all(&listing).unwrap();
    assert_eq!(targets.len(), 7);
    assert_eq!(targets[4], "10.0.0.3:22");
    assert_eq!(column(&rows, "domain")[..4], ["one.test", "one.test", "-", "-"]);
    assert_eq!(column(&rows, "tag")[2..], ["x", "x", "y", "-", "-"]);
    let (targets, _) = all(&text("2001:db8::1\n[2001:db8::2]:22\n", &config("2001:db8::/32", "80")).unwrap()).unwrap();
    assert_eq!(targets, ["2001:db8::1:80", "2001:db8::2:22"]);
}

#[test]
fn bad_lines_are_counted_and_the_first_told_of_with_their_numbers() {
    let mut list = "ip,port,tag\n".to_owned();
    list +=
        "10.0.0.1,80,good\n10.0.0,80,x\n10.0.0.2,65536,x\n10.0.0.3,80\n,80,x\n\"10.0.0.4\"x,80,x\n192.0.2.1,80,out\n";
    list += &"nonsense,80,x\n".repeat(20);
    list += "10.0.0.5,0080,good\n";
    let listing = text(&list, &config("10.0.0.0/8", "80")).expect("it opens");
    let (targets, rows) = all(&listing).expect("it is read");
    assert_eq!(targets, ["10.0.0.1:80", "10.0.0.5:80"]);
    assert_eq!(column(&rows, "tag"), ["good", "good"]);
    let counts = listing.counts();
    assert_eq!((counts.rows, counts.targets, counts.bad, counts.outside), (28, 2, 25, 1));
    assert_eq!(counts.first_bad.len(), 10);
    for (number, (line, what)) in [
        (3, "is not a target"),
        (4, "\"65536\" is no port"),
        (5, "2 fields where the header has 3"),
        (6, "names no address"),
        (7, "follows a closing quote"),
    ]
    .into_iter()
    .enumerate()
    {
        let told = &counts.first_bad[number];
        assert!(told.starts_with(&format!("the list line {line}: ")) && told.contains(what), "{told}");
    }
}

#[test]
fn a_list_that_cannot_be_one_says_what_to_do() {
    let config4 = config("10.0.0.0/8", "80");
    for (list, what) in [
        ("", "is empty"),
        ("name,value\n", "neither a target nor a header"),
        ("a,b,c,d,e\n", "192.0.2.7:80 or ip,domain,tag,port"),
    ] {
        let error = text(list, &config4).expect_err("it is refused").to_string();
        assert!(error.contains(what), "{error}");
    }
    let with_request = ListConfig { request: Some("ask".to_owned()), ..config4.clone() };
    let error = text("ip,tag\n", &with_request).expect_err("there is none").to_string();
    assert!(error.contains("no column ask of requests; its columns are ip, tag"), "{error}");
    let mixed = text("10.0.0.1\n2001:db8::1\n10.0.0.2\n", &config4).expect("its first line is good");
    let error = all(&mixed).expect_err("it is mixed").to_string();
    assert!(error.contains("split the list in two"), "{error}");
    let error = Listing::open(Input::Path("/nonexistent.csv".into()), &config4).expect_err("it is not there");
    assert!(error.to_string().starts_with("/nonexistent.csv cannot be read"), "{error}");
}

#[test]
fn tables_hold_addresses_in_any_form_and_pass_other_columns_through_as_they_are() {
    let config4 = config("10.0.0.0/8", "80");
    let tags: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(9)]));
    let expected = ["10.0.0.1:22", "10.0.0.2:80", "10.0.0.3:443"];
    let texts = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let bits = |text: &str| parse_target(text).expect("an address").1.address;
    let integers: Vec<u32> = texts.iter().map(|text| bits(text) as u32).collect();
    let addresses: [ArrayRef; 4] = [
        Arc::new(StringArray::from(texts.to_vec())),
        Arc::new(LargeStringArray::from(texts.to_vec())),
        Arc::new(UInt32Array::from(integers.clone())),
        Arc::new(Int64Array::from(integers.iter().map(|address| i64::from(*address)).collect::<Vec<_>>())),
    ];
    let ports: [ArrayRef; 3] = [
        Arc::new(UInt16Array::from(vec![Some(22), None, Some(443)])),
        Arc::new(Int64Array::from(vec![22, 0, 443])),
        Arc::new(StringArray::from(vec!["22", "", "443"])),
    ];
    for address in &addresses {
        for port in &ports {
            let columns = vec![("sport", port.clone()), ("tag", tags.clone()), ("saddr", address.clone())];
            let listing = table(columns, &config4).expect("it opens");
            assert_eq!(listing.columns().to_vec(), [Arc::new(Field::new("tag", DataType::Int64, true))]);
            let (targets, rows) = all(&listing).expect("it is read");
            assert_eq!(targets, expected);
            assert_eq!(rows["tag"].as_primitive::<Int64Type>(), tags.as_primitive::<Int64Type>());
        }
    }
    let octets = bits("2001:db8::1").to_be_bytes();
    let fixed: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([octets].into_iter()).expect("one"));
    let binary: ArrayRef = Arc::new(BinaryArray::from(vec![&octets[..]]));
    for address in [fixed, binary] {
        let listing = table(vec![("ip", address)], &config("2001:db8::/32", "80")).expect("it opens");
        assert_eq!(all(&listing).expect("it is read").0, ["2001:db8::1:80"]);
    }
    let floats: ArrayRef = Arc::new(arrow_array::Float64Array::from(vec![1.0]));
    let error = table(vec![("ip", floats)], &config4).expect_err("no address").to_string();
    assert!(error.contains("column ip of the table is of type Float64: it has to be text, integers"), "{error}");
}

#[test]
fn rows_of_tables_that_are_no_targets_are_left_out_and_those_beside_them_keep_their_columns() {
    let addresses = StringArray::from(vec![None, Some("10.0.0.1"), Some("x"), Some("192.0.2.1"), Some("10.0.0.2")]);
    let ports = Int32Array::from(vec![Some(1), Some(2), Some(3), Some(4), Some(70000)]);
    let tags = Int64Array::from(vec![0, 1, 2, 3, 4]);
    let columns: Vec<(&str, ArrayRef)> =
        vec![("address", Arc::new(addresses)), ("port", Arc::new(ports)), ("tag", Arc::new(tags))];
    let listing = table(columns, &config("10.0.0.0/8", "80")).expect("it opens");
    let (targets, rows) = all(&listing).expect("it is read");
    assert_eq!(targets, ["10.0.0.1:2"]);
    assert_eq!(rows["tag"].as_primitive::<Int64Type>().values(), &[1]);
    let counts = listing.counts();
    assert_eq!((counts.rows, counts.bad, counts.outside), (5, 3, 1));
    assert!(counts.first_bad[0].starts_with("the table row 1: it names no address"), "{:?}", counts.first_bad);
}

#[test]
fn large_tables_are_cut_and_every_row_comes_out_once_with_what_is_beside_it() {
    let rows = 50_000_u32;
    let base = 10 << 24;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("tag", Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("tag {row}"))))),
        ("ip", Arc::new(UInt32Array::from_iter_values((0..rows).map(|row| base + row)))),
    ];
    let listing = table(columns, &config("10.0.0.0/8", "1-9")).expect("it opens");
    let (targets, out) = all(&listing).expect("it is read");
    assert_eq!((targets.len(), out.num_rows()), (450_000, 450_000));
    let saddr = out["saddr"].as_primitive::<UInt32Type>();
    for (place, tag) in out["tag"].as_string::<i32>().iter().enumerate() {
        assert_eq!(saddr.value(place), base + place as u32 / 9);
        assert_eq!(tag, Some(format!("tag {}", place / 9).as_str()));
    }
    assert_eq!(listing.memory().1, 0);
}

#[test]
fn a_request_is_made_of_what_the_row_says() {
    let mut config = config("10.0.0.0/8", "80");
    config.request = Some("ask".to_owned());
    let listing = text("ip,ask,host\n10.0.0.1,one?,a.test\n10.0.0.2,,\n", &config).expect("it opens");
    let template = Request::template(b"Host: {host}").expect("a template");
    let mut due = Vec::new();
    while due.len() < 2 {
        listing.take(clock::now_ns(), 9, &mut due).expect("it is read");
    }
    let asked: Vec<_> = due
        .iter()
        .map(|due| {
            let row = listing.connect(due.target, due.number).expect("it was asked");
            listing.recipient(row, due.target, |to| {
                [Request::Column, template.clone()].map(|request| {
                    let mut bytes = vec![0; request.len(to) as usize];
                    request.bytes(to, 0, &mut bytes);
                    String::from_utf8(bytes).expect("text")
                })
            })
        })
        .collect();
    assert_eq!(asked, [["one?", "Host: a.test"], ["", "Host: 10.0.0.2"]]);
}

#[test]
fn what_has_come_goes_on_its_way_before_the_rest_is_there() {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let config = config("10.0.0.0/8", "80");
    io::Write::write_all(&mut writer, b"ip,tag\n10.0.0.1,x\n").expect("it is open");
    let listing = Listing::open(Input::Text("a pipe".to_owned(), Box::new(reader)), &config).expect("it opens");
    let until = Instant::now() + Duration::from_secs(60);
    for target in ["10.0.0.1", "10.0.0.2"] {
        let mut due = Vec::new();
        while due.is_empty() {
            assert!(Instant::now() < until, "{target} does not wait for what follows it");
            listing.take(clock::now_ns(), 9, &mut due).expect("it is read");
            std::thread::yield_now();
        }
        assert_eq!(listing.family.address(due[0].target.address).to_string(), target);
        assert!(!listing.is_done());
        io::Write::write_all(&mut writer, b"10.0.0.2,y\n").expect("it is open");
    }
}

#[test]
fn parquet_of_other_programs_is_read() {
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;
    let path = std::env::temp_dir().join(format!("irl-measure-list-{}.parquet", std::process::id()));
    let schema =
        Arc::new(Schema::new(vec![Field::new("ip", DataType::Utf8, false), Field::new("tag", DataType::Utf8, true)]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["10.0.0.1", "10.0.0.2"])),
        Arc::new(StringArray::from(vec![None, Some("x")])),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("a batch");
    // As pyarrow, pandas and DuckDB write unless told otherwise, and as polars and we do.
    for compression in [Compression::SNAPPY, Compression::ZSTD(Default::default()), Compression::UNCOMPRESSED] {
        let properties = WriterProperties::builder().set_compression(compression).build();
        let file = File::create(&path).expect("a file");
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).expect("it opens");
        writer.write(&batch).expect("it is written");
        writer.close().expect("it is written");
        let listing = Listing::open(Input::Path(path.clone()), &config("10.0.0.0/8", "80")).expect("it opens");
        let (targets, rows) = all(&listing).expect("it is read");
        assert_eq!(targets, ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(column(&rows, "tag"), ["-", "x"]);
    }
    std::fs::remove_file(path).expect("it was there");
}
