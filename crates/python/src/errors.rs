//! The one place where errors of the crates below become Python exceptions.

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
    /// Probes.
    Probe(ProbeError),
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
            Error::Targets(TargetsError::Io { path, source, .. }) => {
                // With its number Python raises the right subclass: FileNotFoundError, PermissionError, ...
                let text = source.to_string();
                match source.raw_os_error() {
                    Some(number) => {
                        let text = text.split(" (os error").next().unwrap_or_default().to_owned();
                        PyOSError::new_err((number, text, path.display().to_string()))
                    }
                    None => PyOSError::new_err(format!("{}: {text}", path.display())),
                }
            }
            // These begin with the name of a field.
            Error::Targets(error @ TargetsError::Value { .. }) => ConfigError::new_err(format!("{error}.")),
            Error::Targets(error) => ConfigError::new_err(sentence(&error.to_string())),
            Error::Probe(error) => ConfigError::new_err(sentence(&error.to_string())),
            Error::Config(message) => ConfigError::new_err(message),
            Error::Python(error) => error,
        }
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
    ProbeError => Probe,
    PyErr => Python,
}
