//! Files that hold a key.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Makes a file of mode 0600, which `write` fills, and puts it in place by a rename: no reader sees half of it, and the
/// key in it is at no moment readable by others.
///
/// # Errors
/// Those of the file system; then what was at `path` is there still.
pub fn replace_private<T>(path: &Path, write: impl FnOnce(File) -> io::Result<T>) -> io::Result<T> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = create_private(&temporary).and_then(|file| {
        let written = write(file)?;
        fs::rename(&temporary, path)?;
        Ok(written)
    });
    written.inspect_err(|_| {
        // What is left of a failed write holds the key; that it cannot be removed matters less than why it failed.
        let _ = fs::remove_file(&temporary);
    })
}

fn create_private(path: &Path) -> io::Result<File> {
    // A leftover of a crash may have another mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
