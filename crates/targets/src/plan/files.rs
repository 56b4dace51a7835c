//! Files a plan names, by path and hash, and the plan file itself.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Result, TargetsError};
use crate::hex;
use crate::private::replace_private;

/// A file by path and contents. The hash decides whether it is the same; the path only says where to look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// Where it was when the plan was made.
    pub path: PathBuf,
    /// SHA-256 of its contents, in hexadecimal.
    pub sha256: String,
}

impl FileRef {
    /// Reads a file and notes its absolute path and hash.
    ///
    /// # Errors
    /// [`TargetsError::Io`].
    pub fn of(path: impl AsRef<Path>) -> Result<(Self, Vec<u8>)> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(TargetsError::read(path))?;
        let sha256 = hex::encode(&Sha256::digest(&bytes));
        let path = std::path::absolute(path).map_err(TargetsError::read(path))?;
        Ok((Self { path, sha256 }, bytes))
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// [`TargetsError::FileChanged`] when its contents are others, [`TargetsError::Io`].
    pub fn read(&self, directory: Option<&Path>) -> Result<Vec<u8>> {
        let path = self.locate(directory);
        let bytes = fs::read(&path).map_err(TargetsError::read(&path))?;
        self.verify(&path, &hex::encode(&Sha256::digest(&bytes)))?;
        Ok(bytes)
    }

    /// Fails when `found` is not the hash in the plan.
    pub(crate) fn verify(&self, path: &Path, found: &str) -> Result<()> {
        if self.sha256.eq_ignore_ascii_case(found) {
            return Ok(());
        }
        let (expected, found) = (self.sha256.clone(), found.to_owned());
        Err(TargetsError::FileChanged { path: path.to_owned(), expected, found })
    }

    /// The path as it is, else the same path or the file's name beside the plan; so a plan can be carried to another
    /// machine together with its files.
    pub(crate) fn locate(&self, directory: Option<&Path>) -> PathBuf {
        let beside = directory.into_iter().flat_map(|directory| {
            [Some(directory.join(&self.path)), self.path.file_name().map(|name| directory.join(name))]
        });
        std::iter::once(Some(self.path.clone()))
            .chain(beside)
            .flatten()
            .find(|path| path.is_file())
            .unwrap_or_else(|| self.path.clone())
    }
}

/// Writes a file that holds a key.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = replace_private(path, |mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(TargetsError::write(path))
}
