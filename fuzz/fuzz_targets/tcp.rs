//! Segments, time, ICMP errors and an owner's whims into a table of connections: see `properties.rs` of the tcp crate.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/tcp/tests/support/bare.rs"]
mod support;

fuzz_target!(|bytes: &[u8]| {
    let Some((seed, rest)) = bytes.split_first_chunk() else { return };
    let mut scene = support::wild::Scene::new(u64::from_le_bytes(*seed));
    let (steps, _) = rest.as_chunks::<24>();
    for step in steps.iter().take(200) {
        let (numbers, _) = step.as_chunks::<4>();
        scene.step(std::array::from_fn(|at| u32::from_le_bytes(numbers[at])));
    }
    if let Err(fault) = scene.end() {
        panic!("{fault}");
    }
});
