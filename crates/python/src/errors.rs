//! The one place where errors of the crates below become Python exceptions.

use std::io;
use std::path::{Path, PathBuf};

use irl_link::LinkError;
use irl_link::PolicyRefusal;
use irl_measure::MeasureError;
use irl_targets::TargetsError;
use irl_wire::ProbeError;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

pyo3::import_exception!(irlstack.errors, ConfigError);
pyo3::import_exception!(irlstack.errors, EngineError);
pyo3::import_exception!(irlstack.errors, PolicyError);
pyo3::import_exception!(irlstack.errors, PrivilegeError);

/// Whatever can go wrong in a binding.
#[derive(Debug)]
pub(crate) enum Error {
    /// Targets, plans and their files.
    Targets(TargetsError),
    /// Interfaces and engines.
    Link(LinkError),
    /// The policy said no.
    Refused(PolicyRefusal),
    /// Probes.
    Probe(ProbeError),
    /// A file of results that cannot be written, or a list that cannot be read.
    Output {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A run that could not go on.
    Run(String),
    /// What was asked for makes no sense.
    Config(String),
    /// Raised by Python itself: Ctrl-C, a wrong type.
    Python(PyErr),
}

/// The result of a binding.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::Config(message.into())
    }
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Targets(TargetsError::Io { path, source, .. }) | Error::Output { path, source } => {
                file(&path, &source)
            }
            // These begin with the name of a field.
            Error::Targets(error @ TargetsError::Value { .. }) => ConfigError::new_err(format!("{error}.")),
            Error::Targets(error) => ConfigError::new_err(sentence(&error.to_string())),
            Error::Probe(error) => ConfigError::new_err(sentence(&error.to_string())),
            Error::Link(error) => link(&error),
            Error::Refused(refusal) => PolicyError::new_err(sentence(&refusal.to_string())),
            Error::Run(message) => EngineError::new_err(message),
            Error::Config(message) => ConfigError::new_err(message),
            Error::Python(error) => error,
        }
    }
}

/// With its number Python raises the right subclass: FileNotFoundError, PermissionError, ...
fn file(path: &Path, source: &io::Error) -> PyErr {
    let text = source.to_string();
    match source.raw_os_error() {
        Some(number) => {
            let text = text.split(" (os error").next().unwrap_or_default().to_owned();
            PyOSError::new_err((number, text, path.display().to_string()))
        }
        None => PyOSError::new_err(format!("{}: {text}", path.display())),
    }
}

fn link(error: &LinkError) -> PyErr {
    let text = sentence(&error.to_string());
    match error {
        LinkError::Config(_) => ConfigError::new_err(text),
        // Not ours to take: design decision 4.
        LinkError::AddressConflict { .. } => PolicyError::new_err(text),
        LinkError::Privilege { .. } => PrivilegeError::new_err(text),
        _ => EngineError::new_err(text),
    }
}

/// A message as a sentence of its own: a capital first, a full stop last.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let stop = if text.ends_with(['.', '\n']) { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}

macro_rules! from {
    ($($source:ty => $variant:ident),* $(,)?) => {$(
        impl From<$source> for Error {
            fn from(error: $source) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

from! {
    TargetsError => Targets,
    LinkError => Link,
    PolicyRefusal => Refused,
    ProbeError => Probe,
    PyErr => Python,
}

impl From<MeasureError> for Error {
    fn from(error: MeasureError) -> Self {
        match error {
            MeasureError::Link(error) => Self::Link(error),
            MeasureError::Plan(error) => Self::Targets(error),
            MeasureError::Probe(error) => Self::Probe(error),
            MeasureError::Output { path, source } => Self::Output { path, source },
            MeasureError::Input { list, source } if source.raw_os_error().is_some() => {
                Self::Output { path: list.into(), source }
            }
            error @ MeasureError::Input { .. } => Self::Config(sentence(&error.to_string())),
            error @ (MeasureError::Stuck { .. } | MeasureError::Worker(_) | MeasureError::OneGone(_)) => {
                Self::Run(sentence(&error.to_string()))
            }
            error @ MeasureError::Parse { .. } => Self::Config(sentence(&error.to_string())),
            MeasureError::Config(message) => Self::Config(sentence(&message)),
        }
    }
}
