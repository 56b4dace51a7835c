//! Target lists: files of addresses or address:port lines, kept compact for 10^8 entries.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Origin, Result, TargetsError};
use crate::family::{Family, address_bits};
use crate::hex;
use crate::target_set::Target;

/// A list as it was read: an address (and port, where the lines have one) per line, identified by path and SHA-256.
///
/// An IPv4 entry takes 4 bytes (6 with a port), an IPv6 entry 16 (18).
#[derive(Clone, Debug)]
pub struct TargetList {
    path: PathBuf,
    sha256: String,
    family: Family,
    entries: Entries,
}

impl TargetList {
    /// Reads a file of one target a line: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::7` or `[2001:db8::7]:80`; either all
    /// lines name a port or none does. `#` starts a comment; blank lines are skipped.
    ///
    /// # Errors
    /// [`TargetsError::ListLine`] and [`TargetsError::MixedFamilies`] with file and line, [`TargetsError::ListTooLong`],
    /// [`TargetsError::Io`], and [`TargetsError::Value`] for a list without any target.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(TargetsError::read(path))?;
        Self::from_reader(path, BufReader::with_capacity(1 << 18, file))
    }

    /// The same from any reader, line by line (standard input: give `-` as the path).
    ///
    /// # Errors
    /// As [`TargetList::from_file`].
    pub fn from_reader(path: impl Into<PathBuf>, mut reader: impl BufRead) -> Result<Self> {
        let path = path.into();
        let mut hasher = Sha256::new();
        let mut parser = ListParser { origin: Origin::line(&path, 0), list: None };
        // The beginning of a line that a piece of the file cut.
        let mut cut = Vec::new();
        loop {
            let piece = match reader.fill_buf() {
                Ok([]) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                piece => piece.map_err(TargetsError::read(&path))?,
            };
            hasher.update(piece);
            let mut rest = piece;
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let (line, after) = rest.split_at(end + 1);
                if cut.is_empty() {
                    parser.line(line)?;
                } else {
                    cut.extend_from_slice(line);
                    parser.line(&cut)?;
                    cut.clear();
                }
                rest = after;
            }
            cut.extend_from_slice(rest);
            let read = piece.len();
            reader.consume(read);
        }
        if !cut.is_empty() {
            parser.line(&cut)?;
        }
        let (family, entries) = parser
            .list
            .ok_or_else(|| TargetsError::value("list", path.display(), "it has no target in it; name one a line"))?;
        Ok(Self { path, sha256: hex::encode(&hasher.finalize()), family, entries })
    }

    /// The path it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of what was read, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        self.family
    }

    /// How many entries, duplicates included; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether its lines name a port each.
    pub fn has_ports(&self) -> bool {
        !self.entries.ports.is_empty()
    }

    pub(crate) fn into_entries(self) -> Entries {
        self.entries
    }
}

/// Addresses and, where the lines have them, ports: two columns, so that no byte is padding.
#[derive(Clone, Debug)]
pub(crate) struct Entries {
    addresses: Addresses,
    /// Empty, or as long as the addresses.
    ports: Vec<u16>,
}

#[derive(Clone, Debug)]
enum Addresses {
    V4(Vec<u32>),
    /// High half, low half: a `u128` would be aligned to 16 and is no smaller.
    V6(Vec<[u64; 2]>),
}

impl Entries {
    fn new(family: Family) -> Self {
        let addresses = match family {
            Family::V4 => Addresses::V4(Vec::new()),
            Family::V6 => Addresses::V6(Vec::new()),
        };
        Self { addresses, ports: Vec::new() }
    }

    fn push(&mut self, address: u128, port: Option<u16>) {
        match &mut self.addresses {
            Addresses::V4(addresses) => addresses.push(address as u32),
            Addresses::V6(addresses) => addresses.push([(address >> 64) as u64, address as u64]),
        }
        self.ports.extend(port);
    }

    pub(crate) fn len(&self) -> usize {
        match &self.addresses {
            Addresses::V4(addresses) => addresses.len(),
            Addresses::V6(addresses) => addresses.len(),
        }
    }

    #[inline]
    pub(crate) fn address(&self, entry: usize) -> u128 {
        match &self.addresses {
            Addresses::V4(addresses) => u128::from(addresses[entry]),
            Addresses::V6(addresses) => {
                let [high, low] = addresses[entry];
                u128::from(high) << 64 | u128::from(low)
            }
        }
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = u128> + '_ {
        (0..self.len()).map(|entry| self.address(entry))
    }

    /// The entry's port; 0 when the lines have none.
    #[inline]
    pub(crate) fn port(&self, entry: usize) -> u16 {
        self.ports.get(entry).copied().unwrap_or(0)
    }

    pub(crate) fn has_ports(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Orders the entries by address, then port.
    pub(crate) fn sort(&mut self) {
        let ports = &mut self.ports;
        match &mut self.addresses {
            Addresses::V4(addresses) => sort_columns(addresses, ports),
            Addresses::V6(addresses) => sort_columns(addresses, ports),
        }
    }

    /// Moves entry `from` down to `to`.
    fn shift(&mut self, from: usize, to: usize) {
        match &mut self.addresses {
            Addresses::V4(addresses) => addresses[to] = addresses[from],
            Addresses::V6(addresses) => addresses[to] = addresses[from],
        }
        if self.has_ports() {
            self.ports[to] = self.ports[from];
        }
    }

    fn truncate(&mut self, len: usize) {
        match &mut self.addresses {
            Addresses::V4(addresses) => addresses.truncate(len),
            Addresses::V6(addresses) => addresses.truncate(len),
        }
        self.ports.truncate(len);
    }
}

fn sort_columns<A: Copy + Ord>(addresses: &mut [A], ports: &mut [u16]) {
    if ports.is_empty() {
        return addresses.sort_unstable();
    }
    let mut rows: Vec<(A, u16)> = addresses.iter().copied().zip(ports.iter().copied()).collect();
    rows.sort_unstable();
    for ((address, port), row) in addresses.iter_mut().zip(ports).zip(rows) {
        (*address, *port) = row;
    }
}

struct ListParser {
    origin: Origin,
    list: Option<(Family, Entries)>,
}

impl ListParser {
    fn line(&mut self, line: &[u8]) -> Result<()> {
        self.origin.line += 1;
        let line = if self.origin.line == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let origin = &self.origin;
        let wrong = |reason| TargetsError::ListLine {
            origin: origin.clone(),
            text: String::from_utf8_lossy(line).into_owned(),
            reason,
        };
        let quick = parse_ipv4(line).map(|(address, port)| (IpAddr::V4(Ipv4Addr::from_bits(address)), port));
        let quick = quick.or_else(|| Some((IpAddr::V6(Ipv6Addr::from_bits(parse_ipv6(line)?)), None)));
        let (address, port) = match quick {
            Some(target) => target,
            None => {
                let text = std::str::from_utf8(line).map_err(|_| wrong("the line is not text"))?;
                parse_target(text).map_err(wrong)?
            }
        };
        let found = Family::of(address);
        let (expected, entries) = self.list.get_or_insert_with(|| (found, Entries::new(found)));
        if *expected != found {
            let text = String::from_utf8_lossy(line).into_owned();
            return Err(TargetsError::MixedFamilies { origin: origin.clone(), text, expected: *expected, found });
        }
        if entries.len() > 0 && entries.has_ports() != port.is_some() {
            return Err(wrong(match port {
                Some(_) => "the lines before it have no port, so this one cannot have one",
                None => "the lines before it have a port, so this one needs one",
            }));
        }
        // The table of `Lookup` numbers entries with 32 bits and keeps the highest for "empty".
        if entries.len() >= u32::MAX as usize {
            return Err(TargetsError::ListTooLong { path: origin.file.clone().unwrap_or_default() });
        }
        entries.push(address_bits(address), port);
        Ok(())
    }
}

/// Reads the lines that most lists are made of, in a third of the time of [`parse_target`], which has the last word on
/// what this does not take.
fn parse_ipv4(line: &[u8]) -> Option<(u32, Option<u16>)> {
    let (mut address, mut dots, mut part, mut digits) = (0u32, 0, 0u32, 0);
    let mut rest = line.iter();
    for &byte in rest.by_ref() {
        match byte {
            // A part that begins with 0 and goes on, or has four digits, is for the strict reader to refuse.
            b'0'..=b'9' if digits < 3 && !(digits > 0 && part == 0) => {
                part = part * 10 + u32::from(byte - b'0');
                digits += 1;
            }
            b'.' if dots < 3 && digits > 0 && part < 256 => {
                address = address << 8 | part;
                (dots, part, digits) = (dots + 1, 0, 0);
            }
            b':' => return Some((finish(address, dots, part, digits)?, Some(parse_port(rest.as_slice())?))),
            _ => return None,
        }
    }
    Some((finish(address, dots, part, digits)?, None))
}

/// The same for IPv6 addresses without a port and without dots.
fn parse_ipv6(line: &[u8]) -> Option<u128> {
    let (mut address, mut count, mut gap) = (0u128, 0, None);
    let mut rest = line;
    if let Some(after) = rest.strip_prefix(b"::") {
        (gap, rest) = (Some(0), after);
    }
    while !rest.is_empty() {
        let digits = rest.iter().take(5).take_while(|byte| byte.is_ascii_hexdigit()).count();
        if !(1..=4).contains(&digits) || count == 8 {
            return None;
        }
        let group =
            rest[..digits].iter().fold(0, |group, &byte| group << 4 | char::from(byte).to_digit(16).unwrap_or(0));
        address = address << 16 | u128::from(group);
        count += 1;
        rest = match &rest[digits..] {
            [] => break,
            [b':', b':', after @ ..] if gap.is_none() => {
                gap = Some(count);
                after
            }
            [b':', after @ ..] if !after.is_empty() => after,
            _ => return None,
        };
    }
    match gap {
        None => (count == 8).then_some(address),
        Some(_) if count == 0 => Some(0),
        // What stands behind the gap stays at the low end; what stands before it moves up.
        Some(before) if count < 8 => {
            let behind = 16 * (count - before);
            let low = address & ((1 << behind) - 1);
            Some(address.checked_shr(behind).unwrap_or(0).checked_shl(128 - 16 * before).unwrap_or(0) | low)
        }
        Some(_) => None,
    }
}

fn finish(address: u32, dots: u32, part: u32, digits: u32) -> Option<u32> {
    (dots == 3 && digits > 0 && part < 256).then_some(address << 8 | part)
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    let plain = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let port = plain.then(|| digits.iter().fold(0u32, |port, &digit| port * 10 + u32::from(digit - b'0')))?;
    u16::try_from(port).ok()
}

/// Reads `address` or `address:port`.
pub(crate) fn parse_target(text: &str) -> std::result::Result<(IpAddr, Option<u16>), &'static str> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    if let Ok(both) = text.parse::<SocketAddr>() {
        return match both {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Err("an address with a zone cannot be a target"),
            _ => Ok((both.ip(), Some(both.port()))),
        };
    }
    let port = text.rsplit_once(':').map(|(_, port)| port).unwrap_or_default();
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_err() {
        return Err("ports end at 65535");
    }
    Err("it is neither an address nor address:port")
}

/// Entries without duplicates, and which of them holds a given target.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub(crate) entries: Entries,
    /// Open addressing with linear probing: entry numbers, [`EMPTY`] where there is none.
    table: Vec<u32>,
    pub(crate) duplicates: u64,
}

const EMPTY: u32 = u32::MAX;

impl Lookup {
    /// Keeps the entries that `keep` admits, each once, in their order.
    pub(crate) fn new(mut entries: Entries, keep: impl Fn(u128) -> bool) -> Self {
        let len = entries.len();
        let table = vec![EMPTY; len + len / 2 + 1];
        let mut kept = 0;
        let mut lookup = Self { entries: Entries::new(Family::V4), table, duplicates: 0 };
        for first in (0..len).step_by(AHEAD) {
            let batch = first..len.min(first + AHEAD);
            lookup.touch(&entries, batch.clone());
            for entry in batch {
                let target = Target { address: entries.address(entry), port: entries.port(entry) };
                if !keep(target.address) {
                    continue;
                }
                match lookup.slot(&entries, target) {
                    Ok(_) => lookup.duplicates += 1,
                    Err(empty) => {
                        // Lists are shorter than u32::MAX, which the parser has checked.
                        lookup.table[empty] = kept as u32;
                        entries.shift(entry, kept);
                        kept += 1;
                    }
                }
            }
        }
        entries.truncate(kept);
        lookup.entries = entries;
        lookup
    }

    /// Reads what looking up these entries will read. Tables of long lists are larger than any cache, and loads that do
    /// not depend on each other wait for memory together.
    fn touch(&self, entries: &Entries, batch: Range<usize>) {
        let mut slots = [0; AHEAD];
        let mut read = 0;
        for (slot, entry) in slots.iter_mut().zip(batch.clone()) {
            *slot = self.first_slot(Target { address: entries.address(entry), port: entries.port(entry) });
            read ^= self.table[*slot];
        }
        black_box(read);
        let mut read = 0;
        for (&slot, _) in slots.iter().zip(batch) {
            let run = self.table[slot..].iter().take(RUN).take_while(|&&entry| entry != EMPTY);
            read = run.fold(read, |read, &entry| read ^ entries.address(entry as usize));
        }
        black_box(read);
    }

    /// The entry of this target, if it is in the list.
    pub(crate) fn find(&self, target: Target) -> Option<usize> {
        self.slot(&self.entries, target).ok()
    }

    fn first_slot(&self, target: Target) -> usize {
        ((u128::from(hash(target)) * self.table.len() as u128) >> 64) as usize
    }

    /// The entry that equals the target, or the free slot where it belongs. A third of the table is free, so it ends.
    fn slot(&self, entries: &Entries, target: Target) -> std::result::Result<usize, usize> {
        let mut slot = self.first_slot(target);
        loop {
            let entry = self.table[slot];
            if entry == EMPTY {
                return Err(slot);
            }
            let entry = entry as usize;
            if entries.address(entry) == target.address && entries.port(entry) == target.port {
                return Ok(entry);
            }
            slot = if slot + 1 == self.table.len() { 0 } else { slot + 1 };
        }
    }
}

/// How many entries are looked up at a time.
const AHEAD: usize = 64;
/// How many taken slots in a row are looked at ahead of time; few runs are longer.
const RUN: usize = 16;

/// Spreads targets over the table. Lists are the user's own, so nobody chooses them against it.
fn hash(target: Target) -> u64 {
    let high = (target.address >> 64) as u64 ^ u64::from(target.port) << 48;
    let mixed = (target.address as u64 ^ high.rotate_left(32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ mixed >> 29).wrapping_add(high)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quick reader takes nothing that the strict one does not take, and reads it alike.
    #[test]
    fn the_quick_reader_agrees_with_the_strict_one() {
        let parts = ["", "0", "00", "1", "01", "9", "25", "255", "256", "1000", "x", "+1", " 1"];
        let ends = ["", ".", ":", ":80", ":0", ":65535", ":65536", ":080", ":+80", ":00080", ":000080", ":8x", "/24"];
        let mut taken = 0;
        for a in parts {
            for b in parts {
                for d in parts {
                    for end in ends {
                        let text = format!("{a}.{b}.7.{d}{end}");
                        let strict = parse_target(&text).ok();
                        if let Some((address, port)) = parse_ipv4(text.as_bytes()) {
                            let found = (IpAddr::V4(Ipv4Addr::from_bits(address)), port);
                            assert_eq!(Some(found), strict, "{text}");
                            taken += 1;
                        } else {
                            assert!(strict.is_none() || end.len() > 6, "{text} is plain, and was left");
                        }
                    }
                }
            }
        }
        assert!(taken > 500);
        for text in ["1.2.3", "1.2.3.4.5", "1.2.3.4:", "::1", "1.2.3.4 ", ""] {
            assert!(parse_ipv4(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn the_quick_reader_of_ipv6_agrees_with_the_strict_one() {
        let groups = ["", "0", "1", "ffff", "2001", "00ab", "12345", "g", "DB8"];
        let (mut taken, mut state) = (0, 1u64);
        for _ in 0..200_000 {
            let mut next = |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((state >> 33) % bound) as usize
            };
            // Mostly plain groups, so that many of the texts are addresses.
            let count = 1 + next(9);
            let text: Vec<&str> =
                (0..count).map(|_| if next(4) > 0 { groups[1 + next(5)] } else { groups[next(9)] }).collect();
            let text = text.join(":");
            let text = [text.clone(), format!("::{text}"), format!("{text}::")][next(3)].clone();
            if let Some(address) = parse_ipv6(text.as_bytes()) {
                assert_eq!(text.parse(), Ok(Ipv6Addr::from_bits(address)), "{text}");
                taken += 1;
            } else {
                assert!(text.parse::<Ipv6Addr>().is_err(), "{text} is plain, and was left");
            }
        }
        assert!(taken > 10_000, "{taken}");
        assert_eq!(parse_ipv6(b"::"), Some(0));
        for text in ["", ":", ":::", "1:2:3:4:5:6:7:", "::1.2.3.4", "[::1]:80"] {
            assert_eq!(parse_ipv6(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn pieces_of_any_size_make_the_same_list() {
        let text = b"\xef\xbb\xbf10.0.0.1:80\r\n# nothing\n\n  10.0.0.2:81 # two\n10.0.0.3:82";
        let whole = TargetList::from_reader("-", &text[..]).unwrap();
        assert_eq!(whole.len(), 3);
        for size in 1..text.len() {
            let list = TargetList::from_reader("-", BufReader::with_capacity(size, &text[..])).unwrap();
            assert_eq!(list.sha256(), whole.sha256());
            assert!((0..3).all(|entry| list.entries.address(entry) == whole.entries.address(entry)));
            assert_eq!(list.entries.ports, whole.entries.ports);
        }
    }
}
