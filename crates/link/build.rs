//! Compiles the filter with clang and hands its object file to the crate.
//!
//! Without clang, or for another system than Linux, everything else still builds: `cfg(irl_bpf)` is then not set,
//! `filter::FILTER_BUILT` is false and `doctor` says so. `CLANG` names another compiler.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(irl_bpf)");
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts")).join("filter.bpf.o");
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb",
        _ => "bpfel",
    };
    let compiled = Command::new(&clang)
        .args([
            "-O2",
            "-g",
            "-Wall",
            "-Wextra",
            "-Wno-unused-function",
            "-fno-stack-protector",
            "-mcpu=v3",
            "-target",
            target,
        ])
        .args(["-c", "bpf/filter.bpf.c", "-o"])
        .arg(&out)
        .output();
    match compiled {
        Ok(output) if output.status.success() => println!("cargo::rustc-cfg=irl_bpf"),
        Ok(output) => {
            panic!("{clang} could not compile bpf/filter.bpf.c:\n{}", String::from_utf8_lossy(&output.stderr))
        }
        Err(error) => println!(
            "cargo::warning={clang} does not run ({error}): building without the kernel filter. Install clang and build \
             again to have it."
        ),
    }
}
