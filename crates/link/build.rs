//! Compiles the filter.

fn main() {
    irl_bpf_build::compile("bpf/filter.bpf.c", "filter.bpf", &[]);
}
