//! `docs/tcp.md` and the tests say the same: each rule has the tests that name it, and each MUST of RFC 9293 its place.
//!
//! A test names its rules in a comment above it: `Rule: RFC 9293 MUST-40, RFC 5681 4.2`. `IRL_WRITE_RULES=1` writes the
//! page's table anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FROM: &str = "<!-- rules: written by crates/tcp/tests/rules.rs -->\n";
const TO: &str = "<!-- end of rules -->\n";

/// The last MUST of RFC 9293.
const LAST_MUST: u32 = 69;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// By what is sorted: the numbers of a rule's name, and its words.
type Order = Vec<(u32, String)>;

/// Rules and the tests that name them, in the order of their numbers.
fn rules() -> BTreeMap<Order, (String, Vec<String>)> {
    let mut rules: BTreeMap<_, (String, Vec<String>)> = BTreeMap::new();
    for folder in ["tests", "tests/scripts", "src", "src/clients"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for path in files.iter().filter(|path| path.is_file() && !path.ends_with("rules.rs")) {
            let text = fs::read_to_string(path).unwrap();
            for (named, test) in tagged(&text, path) {
                for rule in named {
                    let (_, tests) = rules.entry(order(&rule)).or_insert_with(|| (rule.clone(), Vec::new()));
                    if !tests.contains(&test) {
                        tests.push(test.clone());
                    }
                }
            }
        }
    }
    rules
}

/// What each tag of a file names, and the test that it stands at: behind it in Rust, before it in a script.
fn tagged(text: &str, path: &Path) -> Vec<(Vec<String>, String)> {
    let file = path.file_name().unwrap().to_str().unwrap();
    let script = file.ends_with(".txt");
    let (mut out, mut case, mut open) = (Vec::new(), None, Vec::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("===") {
            case = Some(name.trim().to_string());
        }
        let comment = line.trim_start().starts_with(if script { "# " } else { "///" });
        if comment && let Some((_, names)) = line.split_once("Rule: ") {
            let named: Vec<_> = names.trim_end_matches('.').split(", ").map(|rule| rule.trim().to_string()).collect();
            match &case {
                Some(case) if script => out.push((named, format!("{file}: {case}"))),
                _ if script => panic!("{file}: a rule before any case"),
                _ => open.extend(named),
            }
        }
        if !script
            && let Some((_, rest)) = line.split_once("fn ")
            && !open.is_empty()
        {
            let name = rest.split('(').next().unwrap();
            out.push((std::mem::take(&mut open), format!("{file}: {name}")));
        }
    }
    assert!(open.is_empty(), "{file}: a rule behind the last test");
    out
}

/// Sorts `RFC 9293 MUST-4` before `MUST-10`, and sections among themselves.
fn order(rule: &str) -> Order {
    let parts = rule.split(['.', '-', ' ']);
    parts.map(|part| part.parse().map_or((0, part.to_string()), |number: u32| (number, String::new()))).collect()
}

fn table() -> String {
    let mut text = String::from("| rule | tests |\n|---|---|\n");
    for (rule, tests) in rules().values() {
        text += &format!("| {rule} | {} |\n", tests.join("; "));
    }
    text
}

#[test]
fn the_page_has_a_row_for_each_rule_that_a_test_names() {
    let path = root().join("docs/tcp.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(FROM).expect("the page has a place for the table");
    let (there, after) = rest.split_once(TO).expect("and an end of it");
    if std::env::var_os("IRL_WRITE_RULES").is_some() {
        fs::write(&path, format!("{before}{FROM}{}{TO}{after}", table())).unwrap();
    } else {
        assert!(there == table(), "docs/tcp.md is old: IRL_WRITE_RULES=1 cargo test -p irl-tcp --test rules");
    }
}

#[test]
fn every_must_of_rfc_9293_is_tested_or_has_its_reason() {
    let page = fs::read_to_string(root().join("docs/tcp.md")).unwrap();
    let named = |number: &u32| {
        let name = format!("MUST-{number}");
        page.match_indices(&name)
            .any(|(at, _)| !page[at + name.len()..].starts_with(|next: char| next.is_ascii_digit()))
    };
    let missing: Vec<_> = (1..=LAST_MUST).filter(|number| !named(number)).collect();
    assert!(missing.is_empty(), "docs/tcp.md does not speak of MUST {missing:?}");
}

/// What the page refers to by a path in back quotes, and by a name behind it, is there.
#[test]
fn what_the_page_refers_to_exists() {
    let page = fs::read_to_string(root().join("docs/tcp.md")).unwrap();
    let mut references = 0;
    for line in page.lines() {
        let quoted: Vec<_> = line.split('`').skip(1).step_by(2).collect();
        for (place, path) in quoted.iter().enumerate().filter(|(_, path)| path.contains('/') && !path.contains(' ')) {
            let path = root().join(path);
            assert!(path.exists(), "{line}\nnames {}, which is not there", path.display());
            let name = quoted.get(place + 1).filter(|name| name.contains('_') && path.is_file());
            if let Some(name) = name.filter(|name| name.chars().all(|each| each.is_alphanumeric() || each == '_')) {
                assert!(fs::read_to_string(&path).unwrap().contains(name), "{line}\nnames {name}, which is not there");
            }
            references += 1;
        }
    }
    assert!(references > 5, "{references} references");
}
