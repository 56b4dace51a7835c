//! Compiles the eBPF programs.

fn main() {
    irl_bpf_build::compile("bpf/filter.bpf.c", "filter.bpf", &[]);
    irl_bpf_build::compile("bpf/transmit.bpf.c", "transmit.bpf", &[]);
    irl_bpf_build::compile("bpf/left.bpf.c", "left.bpf", &[]);
}
