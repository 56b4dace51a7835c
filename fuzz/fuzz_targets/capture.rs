//! The reader of captures on any file: no panic, and an end.
#![no_main]

use irl_link::capture::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(mut reader) = Reader::new(file, "it") else { return };
    while let Ok(Some(packet)) = reader.read() {
        assert!(packet.frame.len() <= file.len() + 14);
    }
});
