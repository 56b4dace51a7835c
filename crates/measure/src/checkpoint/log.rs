//! The checkpoint file: records one after another, each with a checksum, so that what a crash left half is passed over.
//!
//! ```text
//! "irlstack checkpoint 1\n"
//! record*:  kind (1 byte), length (4 bytes, little endian), content, FNV-1a of all before it in the record (8 bytes)
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use irl_targets::replace_private;

/// How every checkpoint begins; the number is the version of the form.
const MAGIC: &[u8] = b"irlstack checkpoint 1\n";
/// The same without the version.
const MAGIC_OF_ANY: &[u8] = b"irlstack checkpoint ";

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// What the run is: the first record, once. JSON.
    Header = 1,
    /// A session began. JSON.
    Session,
    /// Where the run was after some seconds. JSON.
    Seconds,
    /// What became known of targets. It counts once a commit follows.
    Marks,
    /// Everything until here holds together. JSON.
    Commit,
    /// The run is done: there is nothing to go on with.
    Finished,
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        use Kind::*;
        [Header, Session, Seconds, Marks, Commit, Finished].into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A checkpoint file that grows.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Bytes that are whole records.
    length: u64,
}

impl Log {
    /// A new file with its first record, put in place by a rename. It holds the plan's key: only its owner reads it.
    pub(super) fn create(path: &Path, header: &[u8]) -> io::Result<Self> {
        let log = replace_private(path, |file| {
            let mut log = Self { path: path.to_owned(), file, length: 0 };
            log.write(MAGIC)?;
            log.append(Kind::Header, header)?;
            log.sync()?;
            Ok(log)
        })?;
        sync_folder(path);
        Ok(log)
    }

    /// A file to go on with, after so many bytes of whole records.
    pub(super) fn open(path: &Path, length: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record.
    pub(super) fn append(&mut self, kind: Kind, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut record = Vec::with_capacity(content.len() + 13);
        record.push(kind as u8);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(content);
        let sum = checksum(&record);
        record.extend_from_slice(&sum.to_le_bytes());
        self.write(&record)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).inspect_err(|_| {
            // Records are found one after another: nothing can follow half a one.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::End(0));
        })?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Makes sure that all records survive a loss of power.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The records of a file.
pub(super) struct Records {
    file: BufReader<File>,
    /// Where the next one begins.
    at: u64,
    length: u64,
}

/// Why a file is no checkpoint.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// What the system said.
    Io(io::Error),
    /// It is something else.
    Other,
    /// It is one of this version.
    Version(String),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Records {
    pub(super) fn open(path: &Path) -> Result<Self, Unreadable> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let mut start = Vec::new();
        file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut start)?;
        if start != MAGIC {
            let version = start.strip_prefix(MAGIC_OF_ANY).ok_or(Unreadable::Other)?;
            return Err(Unreadable::Version(String::from_utf8_lossy(version).trim().to_owned()));
        }
        Ok(Self { file, at: MAGIC.len() as u64, length })
    }

    /// Where the next record begins, and so the last one ended.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Goes to where a record begins.
    pub(super) fn seek(&mut self, at: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.at = at;
        Ok(())
    }

    /// The next record; `None` at the end, and where one is not whole.
    pub(super) fn next(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let mut head = [0; 5];
        let room = self.length.saturating_sub(self.at);
        if room < 13 {
            return Ok(None);
        }
        self.file.read_exact(&mut head)?;
        let length = u64::from(u32::from_le_bytes([head[1], head[2], head[3], head[4]]));
        if length > room - 13 {
            return Ok(None);
        }
        let mut record = head.to_vec();
        self.file.by_ref().take(length + 8).read_to_end(&mut record)?;
        let sum = record.split_off(record.len() - 8);
        let Some(kind) = Kind::of(head[0]).filter(|_| sum == checksum(&record).to_le_bytes()) else { return Ok(None) };
        self.at += length + 13;
        Ok(Some((kind, record.split_off(5))))
    }
}

/// FNV-1a over 64 bits: it is for what a crash leaves, not for what somebody forges.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A rename survives a loss of power once its folder is written. Where folders cannot be opened nothing is lost by it.
pub(crate) fn sync_folder(of: &Path) {
    let folder = of.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("irl-log-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn contents(path: &Path) -> Vec<(Kind, Vec<u8>)> {
        let mut records = Records::open(path).unwrap();
        std::iter::from_fn(|| records.next().unwrap()).collect()
    }

    #[test]
    fn wherever_a_file_is_cut_and_whatever_bit_is_wrong_the_records_before_are_read() {
        let folder = folder("cut");
        let path = folder.join("x.checkpoint");
        let mut log = Log::create(&path, b"{}").unwrap();
        let mut ends = vec![log.length];
        for (kind, content) in [(Kind::Marks, &b"abc"[..]), (Kind::Commit, b""), (Kind::Seconds, b"later")] {
            log.append(kind, content).unwrap();
            ends.push(log.length);
        }
        let (whole, all) = (fs::read(&path).unwrap(), contents(&path));
        assert_eq!(all[1], (Kind::Marks, b"abc".to_vec()));
        assert_eq!((all.len(), whole.len() as u64), (4, ends[3]));
        let before = |at: usize| ends.iter().filter(|end| **end <= at as u64).count();
        for at in MAGIC.len()..whole.len() {
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(contents(&path), all[..before(at)], "cut at {at}");
            let mut wrong = whole.clone();
            wrong[at] ^= 0x10;
            fs::write(&path, &wrong).unwrap();
            assert_eq!(contents(&path), all[..before(at)], "wrong at {at}");
        }
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        Log::open(&path, ends[2]).unwrap().append(Kind::Finished, b"").unwrap();
        assert_eq!(contents(&path).last(), Some(&(Kind::Finished, Vec::new())), "it goes on after the whole ones");
        fs::remove_dir_all(folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn nobody_but_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder("mode");
        let path = folder.join("x.checkpoint");
        Log::create(&path, b"{}").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "and nothing is left beside it");
        fs::remove_dir_all(folder).unwrap();
    }
}
