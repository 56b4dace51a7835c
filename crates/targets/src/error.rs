//! What can be wrong with a target, a plan or a file, in full sentences that say what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a piece of text came from: a file and line, or an argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file, if it came from one.
    pub file: Option<PathBuf>,
    /// The line, counted from 1; 0 without a file.
    pub line: u64,
}

impl Origin {
    /// A line of a file.
    pub fn line(file: impl Into<PathBuf>, line: u64) -> Self {
        Self { file: Some(file.into()), line }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}:{}: ", file.display(), self.line),
            None => Ok(()),
        }
    }
}

/// An error of this crate. Its text is meant for the person who typed the input.
#[derive(Debug, thiserror::Error)]
pub enum TargetsError {
    /// A text that is no CIDR prefix, address or range.
    #[error(
        "{origin}{text:?} is not a prefix ({reason}); write 192.0.2.0/24, 192.0.2.7, 192.0.2.1-192.0.2.9 or the same in IPv6"
    )]
    Prefix {
        /// File and line, if any.
        origin: Origin,
        /// What was read.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A line of a target list that is neither an address nor address:port.
    #[error(
        "{origin}{text:?} is not a target ({reason}); a line is 192.0.2.7, 192.0.2.7:80, 2001:db8::7 or [2001:db8::7]:80"
    )]
    ListLine {
        /// File and line.
        origin: Origin,
        /// What was read.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// IPv4 and IPv6 in one plan or set.
    #[error(
        "{origin}{text:?} is {found}, but the targets before it are {expected}; a plan has one address family, so split it in two"
    )]
    MixedFamilies {
        /// File and line, if any.
        origin: Origin,
        /// What was read.
        text: String,
        /// The family so far.
        expected: crate::Family,
        /// The family of `text`.
        found: crate::Family,
    },
    /// A text that is no port list.
    #[error("{text:?} is not a port or range of ports ({reason}); write 80, 80,443, 8000-8010 or *")]
    Port {
        /// What was read.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing is left to probe.
    #[error(
        "there is no target left: {asked} addresses were asked for, the blocklist holds {denied} of them and special-purpose space {special}; name other targets or another blocklist"
    )]
    NoTargets {
        /// Addresses asked for.
        asked: u128,
        /// Cut by the blocklist.
        denied: u128,
        /// Cut as special-purpose space.
        special: u128,
    },
    /// A shard number that is not below the number of shards.
    #[error("shard {shard} of {shards} does not exist: shards are numbered from 0, so use 0 to {}", shards.saturating_sub(1))]
    Shard {
        /// The number given.
        shard: u32,
        /// How many there are.
        shards: u32,
    },
    /// More targets than positions.
    #[error(
        "the plan has {size} targets, more than the 2^64 - 1 a run can number; give max_targets (--max-targets) to probe a random sample of them"
    )]
    TooManyTargets {
        /// How many targets; saturates at 2^128 - 1.
        size: u128,
    },
    /// A target set larger than a spread order can number.
    #[error(
        "the plan has {size} targets, and order spread takes 2^63 at most; name longer prefixes or a list, or use order random"
    )]
    TooManyToSpread {
        /// How many targets.
        size: u128,
    },
    /// A target list of more than 2^32 - 1 entries.
    #[error("{}: a target list holds at most 4294967295 entries; split it or name prefixes instead", path.display())]
    ListTooLong {
        /// The list.
        path: PathBuf,
    },
    /// A file of the plan whose contents are not those the plan was made with.
    #[error("{} has changed since the plan was made: its SHA-256 is {found}, the plan says {expected}; restore the file or make a new plan", path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
        /// The hash in the plan.
        expected: String,
        /// The hash of the file.
        found: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// "read" or "write".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A plan that does not parse.
    #[error("the plan is not valid: {0}")]
    Toml(String),
    /// A plan made for another version of what fixes its meaning.
    #[error(
        "the plan was made with {what} version {found}, this program has {expected}; use the program it was made with, or make a new plan"
    )]
    Version {
        /// Plan format, permutation, cookie or registry.
        what: &'static str,
        /// In the plan.
        found: String,
        /// Here.
        expected: String,
    },
    /// A value of a plan outside its bounds.
    #[error("{name} = {value} cannot be: {reason}")]
    Value {
        /// The field.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        reason: String,
    },
    /// A list read from elsewhere (standard input) that must be handed to `compile_with`.
    #[error("the targets of this plan were read from {}, which cannot be read again; save them as a file and name that", path.display())]
    ListNotFile {
        /// The name the list was given.
        path: PathBuf,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes for the plan's key: {0}")]
    Random(String),
}

impl TargetsError {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what: "read", path, source }
    }

    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what: "write", path, source }
    }

    pub(crate) fn value(name: &'static str, value: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::Value { name, value: value.to_string(), reason: reason.into() }
    }
}

/// The result of this crate.
pub type Result<T> = std::result::Result<T, TargetsError>;
