//! The client TCP under packetdrill, where there is one: a cross-check by somebody else's idea of TCP. The gate is the
//! script runner of `irl-tcp`, which needs nothing.
//!
//! packetdrill is looked for in `PEERS_DIR` and on the path; build it from its repository (`gtests/net/packetdrill`). The
//! scripts are ours. Its own are not run: nearly all of them open a socket to listen, which this TCP does not do, and those
//! of a client try what is Linux's own (Fast Open, `tcp_info`, zero copy, socket options, sysctls).

use std::path::{Path, PathBuf};
use std::process::Command;

/// A script with this line in it knows addresses of IPv4 only.
const IPV4_ONLY: &str = "// IPv4 only";

fn packetdrill() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::var_os("PEERS_DIR").map(PathBuf::from).into_iter().chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join("packetdrill")).find(|file| file.is_file())
}

/// The shared object, which cargo builds beside this test's folder.
fn shared_object() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    folder.join("libirl_packetdrill.so")
}

/// Runs a script; what packetdrill said when it did not hold.
fn run(packetdrill: &Path, script: &Path, version: &str, ours: &str, theirs: &str) -> Result<(), String> {
    let output = Command::new(packetdrill)
        .arg(format!("--so_filename={}", shared_object().display()))
        .args([format!("--so_flags={ours}"), format!("--local_ip={ours}"), format!("--remote_ip={theirs}")])
        .arg(format!("--ip_version={version}"))
        .arg(script)
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{} over {version}: {said}", script.display())) }
}

#[test]
fn packetdrill_agrees() {
    let Some(packetdrill) = packetdrill() else {
        println!("SKIPPED: no packetdrill in PEERS_DIR or on the path");
        return;
    };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(scripts).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    let mut results = Vec::new();
    for script in &scripts {
        results.push(run(&packetdrill, script, "ipv4", "198.18.0.10", "10.0.0.1"));
        if !std::fs::read_to_string(script).unwrap().contains(IPV4_ONLY) {
            results.push(run(&packetdrill, script, "ipv6", "fd00::10", "fd00::1"));
        }
    }
    let failed: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    println!(
        "packetdrill: {} of {} runs of {} scripts hold",
        results.len() - failed.len(),
        results.len(),
        scripts.len()
    );
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(results.len() > scripts.len(), "some run over IPv6, too");
}

#[test]
fn a_script_that_does_not_hold_is_noticed() {
    let Some(packetdrill) = packetdrill() else {
        println!("SKIPPED: no packetdrill in PEERS_DIR or on the path");
        return;
    };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let wrong = std::fs::read_to_string(scripts.join("abort.pkt")).unwrap().replace("> R. 1:1(0)", "> R. 2:2(0)");
    let file = std::env::temp_dir().join(format!("irl-packetdrill-{}.pkt", std::process::id()));
    std::fs::write(&file, wrong).unwrap();
    let result = run(&packetdrill, &file, "ipv4", "198.18.0.10", "10.0.0.1");
    std::fs::remove_file(&file).unwrap();
    assert!(result.unwrap_err().contains("2:2"), "it names what was expected");
}
