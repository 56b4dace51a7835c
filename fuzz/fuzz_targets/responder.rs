//! The World's responder on any frame.
#![no_main]

use irl_lab::{Responder, World, WorldConfig, sim};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let world = World::new(WorldConfig { seed: 1, everything_open: true });
    Responder::new(world, sim::GATEWAY_MAC).respond(frame, &mut |answer| assert!(answer.len() <= 2048));
});
