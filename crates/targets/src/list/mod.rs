//! Target lists: files of addresses or address:port lines, kept compact for 10^8 entries.

mod entries;
mod lines;
mod lookup;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Result, TargetsError};
use crate::family::Family;
use crate::hex;
use lines::ListParser;

pub(crate) use entries::Entries;
pub(crate) use lines::parse_target;
pub(crate) use lookup::Lookup;

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
        let mut parser = ListParser::new(&path);
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
        self.entries.has_ports()
    }

    pub(crate) fn into_entries(self) -> Entries {
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_make_the_same_list() {
        let text = b"\xef\xbb\xbf10.0.0.1:80\r\n# nothing\n\n  10.0.0.2:81 # two\n10.0.0.3:82";
        let whole = TargetList::from_reader("-", &text[..]).unwrap();
        assert_eq!(whole.len(), 3);
        for size in 1..text.len() {
            let list = TargetList::from_reader("-", BufReader::with_capacity(size, &text[..])).unwrap();
            assert_eq!((list.len(), list.sha256()), (3, whole.sha256()));
            let target = |list: &TargetList, entry| (list.entries.address(entry), list.entries.port(entry));
            assert!((0..3).all(|entry| target(&list, entry) == target(&whole, entry)));
        }
    }
}
