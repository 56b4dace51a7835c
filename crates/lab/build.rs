//! Compiles the responder and the sink.

fn main() {
    irl_bpf_build::compile("bpf/sink.bpf.c", "sink.bpf", &["../link/bpf"]);
    irl_bpf_build::compile("bpf/responder.bpf.c", "responder.bpf", &["../link/bpf"]);
}
