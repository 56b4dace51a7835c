//! Compiles the eBPF programs.

fn main() {
    irl_bpf_build::compile("bpf/filter.bpf.c", "filter.bpf", &[]);
    irl_bpf_build::compile("bpf/transmit.bpf.c", "transmit.bpf", &[]);
    irl_bpf_build::compile("bpf/left.bpf.c", "left.bpf", &[]);
    // For a test. It costs nothing where no test asks for it.
    irl_bpf_build::compile("tests/refused.bpf.c", "refused.bpf", &["bpf"]);
    println!("cargo::rerun-if-changed=tests/refused.bpf.c");
}
