//! Compiles the responder.

fn main() {
    irl_bpf_build::compile("bpf/responder.bpf.c", "responder.bpf", &["../link/bpf"]);
}
