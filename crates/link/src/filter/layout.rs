//! The values of the kernel filter's maps: Rust twin of `bpf/filter.h`. A test compares sizes and offsets.

use std::net::IpAddr;

use irl_wire::probe::{Base, Expect, Protocol};

use super::config::{Accept, AddressKind, Frames, MAX_RULES, OwnerConfig};
use super::registry::{NO_OWNER, Registry};

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Box4 {
    first: u32,
    last: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Box6 {
    high_first: u64,
    high_last: u64,
    low_first: u64,
    low_last: u64,
}

impl Box4 {
    const EMPTY: Self = Self { first: u32::MAX, last: 0 };

    fn include(&mut self, address: u32) {
        self.first = self.first.min(address);
        self.last = self.last.max(address);
    }

    /// How many addresses it spans.
    fn size(&self) -> u64 {
        (u64::from(self.last) + 1).saturating_sub(u64::from(self.first))
    }
}

impl Box6 {
    const EMPTY: Self = Self { high_first: u64::MAX, high_last: 0, low_first: u64::MAX, low_last: 0 };

    fn include(&mut self, address: u128) {
        let (high, low) = ((address >> 64) as u64, address as u64);
        self.high_first = self.high_first.min(high);
        self.high_last = self.high_last.max(high);
        self.low_first = self.low_first.min(low);
        self.low_last = self.low_last.max(low);
    }
}

const WHOLE_SPARE: u32 = 1;
const WHOLE_HOST: u32 = 2;

/// `struct settings`: what the program looks at before any map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    spare6: Box6,
    host6: Box6,
    spare4: Box4,
    host4: Box4,
    port_first: u16,
    port_last: u16,
    neighbour_owner: u16,
    stray_owner: u16,
    echo_owned: u32,
    /// The boxes of which every address is ours: [`WHOLE_SPARE`] and [`WHOLE_HOST`].
    whole4: u32,
}

// SAFETY: made of integers alone, without padding, so any bytes are a value of it.
unsafe impl aya::Pod for Settings {}

impl Settings {
    pub(super) fn of(registry: &Registry) -> Self {
        let (mut spare6, mut host6, mut spare4, mut host4) = (Box6::EMPTY, Box6::EMPTY, Box4::EMPTY, Box4::EMPTY);
        for (address, kind) in registry.addresses() {
            match (address, kind) {
                (IpAddr::V4(v4), AddressKind::Spare) => spare4.include(v4.to_bits()),
                (IpAddr::V4(v4), AddressKind::Host) => host4.include(v4.to_bits()),
                (IpAddr::V6(v6), AddressKind::Spare) => spare6.include(v6.to_bits()),
                (IpAddr::V6(v6), AddressKind::Host) => host6.include(v6.to_bits()),
            }
        }
        let v4 = |wanted: AddressKind| {
            registry.addresses().filter(|(address, kind)| address.is_ipv4() && *kind == wanted).count() as u64
        };
        let whole4 = u32::from(spare4.size() == v4(AddressKind::Spare)) * WHOLE_SPARE
            + u32::from(host4.size() == v4(AddressKind::Host)) * WHOLE_HOST;
        let (port_first, port_last) = registry.port_bounds().unwrap_or((u16::MAX, 0));
        Self {
            spare6,
            host6,
            spare4,
            host4,
            port_first,
            port_last,
            neighbour_owner: registry.neighbour_owner().unwrap_or(NO_OWNER),
            stray_owner: registry.stray_owner().unwrap_or(NO_OWNER),
            echo_owned: u32::from(registry.echo_owned()),
            whole4,
        }
    }
}

/// `struct rule`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    class_index: u8,
    protocol: u8,
    base: u8,
    width: u8,
    offset: u16,
    flags: u8,
    shift: u8,
    mask: u32,
    value: u32,
}

const RULE_COOKIE: u8 = 1;
const RULE_LAST: u8 = 2;

/// `struct owner`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    key: [u64; 2],
    max_data: u32,
    port_count: u32,
    port_first: u16,
    probes: u16,
    protocol: u8,
    accept: u8,
    frames: u8,
    zero0: u8,
    rule_count: u32,
    zero1: u32,
    rules: [Rule; MAX_RULES],
}

// SAFETY: made of integers alone, without padding, so any bytes are a value of it.
unsafe impl aya::Pod for Owner {}

/// IP's number of a protocol; ICMPv6 goes under ICMP's.
fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Icmp => 1,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

impl Owner {
    /// The registry has checked the bounds of classes and rules.
    pub(super) fn of(config: &OwnerConfig) -> Self {
        let mut rules = [Rule::default(); MAX_RULES];
        let mut rule_count = 0;
        for (index, class) in config.classes.iter().enumerate() {
            // A class without rules always holds: one rule of width 0 says so.
            let count = class.rules.len().max(1);
            for position in 0..count {
                let rule = class.rules.get(position);
                let (flags, shift, value) = match rule.map(|rule| rule.expect) {
                    Some(Expect::Cookie { shift, add }) => (RULE_COOKIE, shift, add),
                    Some(Expect::Value(value)) => (0, 0, value),
                    None => (0, 0, 0),
                };
                rules[rule_count] = Rule {
                    class_index: index as u8,
                    protocol: protocol_number(class.protocol),
                    base: rule.map_or(0, |rule| match rule.base {
                        Base::Network => 0,
                        Base::Transport => 1,
                        Base::Payload => 2,
                        Base::Quoted => 3,
                    }),
                    width: rule.map_or(0, |rule| rule.width),
                    offset: rule.map_or(0, |rule| rule.offset),
                    flags: flags | if position + 1 == count { RULE_LAST } else { 0 },
                    shift,
                    mask: rule.map_or(0, |rule| rule.mask),
                    value,
                };
                rule_count += 1;
            }
        }
        Self {
            key: config.key.halves(),
            max_data: config.max_data,
            port_count: u32::from(config.ports.last - config.ports.first) + 1,
            port_first: config.ports.first,
            probes: config.probes,
            protocol: protocol_number(config.protocol),
            accept: match config.accept {
                Accept::Cookie => 0,
                Accept::Any => 1,
            },
            frames: match config.frames {
                Frames::Never => 0,
                Frames::Payload => 1,
                Frames::Always => 2,
            },
            zero0: 0,
            rule_count: rule_count as u32,
            zero1: 0,
            rules,
        }
    }
}

/// `enum address_kind`.
pub(super) fn address_kind(kind: AddressKind) -> u32 {
    match kind {
        AddressKind::Spare => 1,
        AddressKind::Host => 2,
    }
}

/// `struct counters`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) count: [u64; 16],
}

// SAFETY: an array of integers, so any bytes are a value of it.
unsafe impl aya::Pod for Counters {}

/// Bytes of `struct steering`: an owner for each port, then one for each echo identifier.
pub(super) const STEERING_LEN: usize = 2 * 65_536 * 2;
/// Bytes of `struct owner_state`: a waiting flag at 0, an overrun counter at 8.
pub(super) const STATE_LEN: usize = 64;
/// Records of a lane.
pub(super) const LANE_RECORDS: usize = 1024;
/// Bytes of each.
pub(super) const LANE_SLOT: usize = 64;
/// Where the counts of `struct lane` are: of records taken, and of those written.
pub(super) const LANE_TAKEN: usize = 0;
pub(super) const LANE_WRITTEN: usize = 64;
/// Where its records begin.
pub(super) const LANE_SLOTS: usize = 128;
/// Bytes of `struct lane`.
pub(super) const LANE_LEN: usize = LANE_SLOTS + LANE_RECORDS * LANE_SLOT;

#[cfg(test)]
mod tests {
    use std::mem::offset_of;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::super::config::{HEAD_LEN, MAX_ADDRESSES, MAX_OWNERS, Reason};
    use super::*;

    #[test]
    fn the_maps_values_are_filter_h_in_rust() {
        let mut expected = vec![
            ("sizeof(struct settings)", size_of::<Settings>()),
            ("offsetof(struct settings, host6)", offset_of!(Settings, host6)),
            ("offsetof(struct settings, spare4)", offset_of!(Settings, spare4)),
            ("offsetof(struct settings, host4)", offset_of!(Settings, host4)),
            ("offsetof(struct settings, port_first)", offset_of!(Settings, port_first)),
            ("offsetof(struct settings, neighbour_owner)", offset_of!(Settings, neighbour_owner)),
            ("offsetof(struct settings, stray_owner)", offset_of!(Settings, stray_owner)),
            ("offsetof(struct settings, echo_owned)", offset_of!(Settings, echo_owned)),
            ("sizeof(struct rule)", size_of::<Rule>()),
            ("offsetof(struct rule, offset)", offset_of!(Rule, offset)),
            ("offsetof(struct rule, flags)", offset_of!(Rule, flags)),
            ("offsetof(struct rule, shift)", offset_of!(Rule, shift)),
            ("offsetof(struct rule, mask)", offset_of!(Rule, mask)),
            ("offsetof(struct rule, value)", offset_of!(Rule, value)),
            ("sizeof(struct owner)", size_of::<Owner>()),
            ("offsetof(struct owner, max_data)", offset_of!(Owner, max_data)),
            ("offsetof(struct owner, port_count)", offset_of!(Owner, port_count)),
            ("offsetof(struct owner, port_first)", offset_of!(Owner, port_first)),
            ("offsetof(struct owner, probes)", offset_of!(Owner, probes)),
            ("offsetof(struct owner, accept)", offset_of!(Owner, accept)),
            ("offsetof(struct owner, frames)", offset_of!(Owner, frames)),
            ("offsetof(struct owner, rule_count)", offset_of!(Owner, rule_count)),
            ("offsetof(struct owner, rules)", offset_of!(Owner, rules)),
            ("sizeof(struct counters)", size_of::<Counters>()),
            ("sizeof(struct steering)", STEERING_LEN),
            ("offsetof(struct steering, echo)", STEERING_LEN / 2),
            ("sizeof(struct owner_state)", STATE_LEN),
            ("offsetof(struct owner_state, waiting)", 0),
            ("offsetof(struct owner_state, overruns)", 8),
            ("LANE_RECORDS", LANE_RECORDS),
            ("LANE_SLOT", LANE_SLOT),
            ("offsetof(struct lane, taken)", LANE_TAKEN),
            ("offsetof(struct lane, written)", LANE_WRITTEN),
            ("offsetof(struct lane, slots)", LANE_SLOTS),
            ("sizeof(struct lane)", LANE_LEN),
            ("MAX_OWNERS", usize::from(MAX_OWNERS)),
            ("MAX_ADDRESSES", MAX_ADDRESSES),
            ("MAX_RULES", MAX_RULES),
            ("HEAD_LEN", HEAD_LEN),
            ("NO_OWNER", usize::from(NO_OWNER)),
            ("REASONS", Reason::ALL.len()),
        ];
        let names: Vec<String> = Reason::ALL.iter().map(|r| format!("REASON_{}", r.name().to_uppercase())).collect();
        expected.extend(names.iter().map(String::as_str).zip(0..));
        let prints: String =
            expected.iter().map(|(what, _)| format!("printf(\"%zu\\n\", (size_t)({what}));\n")).collect();
        let folder = PathBuf::from(env!("OUT_DIR"));
        let (file, program) = (folder.join("layout.c"), folder.join("layout"));
        let source = format!(
            "#include <stddef.h>\n#include <stdio.h>\n#include \"kernel.h\"\n#include \"filter.h\"\nint main(void)\n{{\n{prints}}}\n"
        );
        std::fs::write(&file, source).expect("the build's own folder is writable");
        let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
        let compile = Command::new("cc").arg("-I").arg(headers).arg(&file).arg("-o").arg(&program).output();
        let Ok(compiled) = compile else {
            eprintln!("SKIPPED the_maps_values_are_filter_h_in_rust: needs a C compiler");
            return;
        };
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let output = Command::new(&program).output().expect("it was just compiled");
        let printed = String::from_utf8(output.stdout).expect("it prints ASCII");
        let found: Vec<usize> = printed.lines().map(|line| line.parse().expect("a number a line")).collect();
        assert_eq!(found.len(), expected.len());
        for ((what, value), found) in expected.iter().zip(found) {
            assert_eq!(found, *value, "{what}");
        }
    }
}
