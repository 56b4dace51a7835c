//! The filter's twin on any frame: no panic, and every record can be read.
#![no_main]

use irl_link::filter::{AddressKind, FilterConfig, Frames, OwnAddress, OwnerConfig, TwinFilter, Verdict};
use irl_link::record::Record;
use irl_wire::probe::Protocol;
use irl_wire::{Key, PortRange};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let own = |text: &str, kind| OwnAddress { address: text.parse().expect("an address"), kind };
    let addresses = vec![own("198.18.0.10", AddressKind::Spare), own("fd00::10", AddressKind::Host)];
    let mut filter = TwinFilter::new(&FilterConfig { addresses }).expect("two addresses");
    let owner = OwnerConfig::new(0, Protocol::Tcp, PortRange::DEFAULT, Key::new([1; 16]));
    filter.add_owner(&OwnerConfig { max_data: u32::MAX, frames: Frames::Payload, ..owner }).expect("the first owner");
    let mut record = Vec::new();
    if let Verdict::Record { .. } | Verdict::Copied { .. } = filter.judge(frame, 1, &mut record) {
        assert!(Record::parse(&record).is_some());
    }
});
