//! How long the responder in the kernel takes with a frame: `cargo run --release -p irl-lab --example responder_speed`.
//! Needs root. Each frame is given to it again and again without a network; shown is the median. A RST is dropped at once,
//! so that its time is nearly all the test call's: what the others take beyond it is theirs.

#[cfg(target_os = "linux")]
fn main() {
    use irl_lab::xdp::XdpResponder;
    use irl_lab::{World, WorldConfig, sim};
    use irl_targets::PrefixSet;
    use irl_wire::packet::{Envelope, protocol, tcp_flags};

    const RUNS: usize = 20_001;
    const OURS: u128 = 0xc612_000a;
    const TARGET: u128 = 0x0a01_0203;
    let world = World::new(WorldConfig { seed: 1, everything_open: true });
    let ranges = [PrefixSet::parse_items(["10.0.0.0/8"]).expect("a prefix")];
    let service = "exchange:100".parse().expect("a service");
    let mut responder = XdpResponder::load(&world, &ranges, service).expect("root, and a build with clang");
    let isn = world.isn(TARGET, 80, OURS, 61_234);
    let syn_options = [2, 4, 5, 180, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7];
    let timestamps = [1, 1, 8, 10, 0, 1, 2, 3, 9, 9, 9, 9];
    let request = [b'?'; 100];
    for (name, flags, options, data) in [
        ("SYN", tcp_flags::SYN, &syn_options[..], &[][..]),
        ("ACK", tcp_flags::ACK, &timestamps, &[]),
        ("request of 100 bytes", tcp_flags::ACK | tcp_flags::PSH, &timestamps, &request),
        ("the same without timestamps", tcp_flags::ACK | tcp_flags::PSH, &[], &request),
        ("FIN", tcp_flags::ACK | tcp_flags::FIN, &timestamps, &[]),
        ("RST", tcp_flags::RST, &[], &[]),
    ] {
        let envelope = Envelope {
            source_mac: sim::OUR_MAC,
            destination_mac: sim::GATEWAY_MAC,
            vlan: None,
            v6: false,
            source: OURS,
            destination: TARGET,
            ttl: 64,
            id: 7,
        };
        let mut frame = vec![0; envelope.len()];
        frame.extend(61_234_u16.to_be_bytes());
        frame.extend(80_u16.to_be_bytes());
        frame.extend(1000_u32.to_be_bytes());
        frame.extend(if flags == tcp_flags::SYN { 0 } else { isn.wrapping_add(1) }.to_be_bytes());
        frame.extend([((20 + options.len()) << 2) as u8, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        frame.extend(options);
        frame.extend(data);
        envelope.seal(&mut frame, protocol::TCP, 16);
        let mut took: Vec<u128> = (0..RUNS).map(|_| responder.timed(&frame).expect("a run").1.as_nanos()).collect();
        took.sort_unstable();
        println!("{name:<28} {:>4} ns, least {} ns", took[RUNS / 2], took[0]);
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("Only Linux has XDP.");
}
