//! Compiles a BPF program with clang and hands its object file to the crate whose build script asks.
//!
//! Without clang, or for another system than Linux, everything else still builds: `cfg(irl_bpf)` is then not set and
//! `doctor` says what is missing. `CLANG` names another compiler.
#![forbid(unsafe_code)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `source` (relative to the crate) into `OUT_DIR/<name>.o`, with `includes` as further folders of headers, and
/// sets `cfg(irl_bpf)` when it did.
///
/// # Panics
/// When clang is there and refuses the program.
pub fn compile(source: &str, name: &str, includes: &[&str]) {
    println!("cargo::rustc-check-cfg=cfg(irl_bpf)");
    println!("cargo::rerun-if-changed=bpf");
    for folder in includes {
        println!("cargo::rerun-if-changed={folder}");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let folder = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let out = PathBuf::from(folder).join(format!("{name}.o"));
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb",
        _ => "bpfel",
    };
    let compiled = Command::new(&clang)
        .args(["-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-function", "-fno-stack-protector", "-mcpu=v3"])
        .args(["-target", target])
        .args(includes.iter().map(|folder| format!("-I{folder}")))
        .args(["-c", source, "-o"])
        .arg(&out)
        .output();
    match compiled {
        Ok(output) if output.status.success() => println!("cargo::rustc-cfg=irl_bpf"),
        Ok(output) => panic!("{clang} could not compile {source}:\n{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!(
                "cargo::warning={clang} does not run ({error}): building without {name}. Install clang and build again \
                 to have it."
            );
            // Where clang would appear: cargo looks for changes there before it calls this build up to date.
            for folder in ["/usr/bin", "/usr/local/bin"].into_iter().filter(|folder| Path::new(folder).is_dir()) {
                println!("cargo::rerun-if-changed={folder}");
            }
        }
    }
}
