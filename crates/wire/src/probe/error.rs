//! Why a probe is refused.

use super::names::NAMES;

/// Why a probe is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// There is no probe of that name.
    #[error("there is no probe '{0}'; there are {names}", names = NAMES.map(|(name, _)| name).join(", "))]
    UnknownName(String),
    /// The probe has no such argument.
    #[error("the probe {probe} takes no argument '{argument}'; it takes {takes}")]
    UnknownArgument {
        /// The probe.
        probe: &'static str,
        /// What was given.
        argument: String,
        /// What it does take.
        takes: &'static str,
    },
    /// An argument's value is wrong.
    #[error("the probe {probe} cannot use {argument}={value}: {reason}")]
    BadArgument {
        /// The probe.
        probe: &'static str,
        /// The argument.
        argument: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A template that cannot be built into a frame.
    #[error("the probe's template cannot be sent: {0}")]
    Template(&'static str),
}

impl ProbeError {
    /// That an argument's value is wrong.
    pub(super) fn bad(probe: &'static str, argument: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Self::BadArgument { probe, argument, value: value.to_owned(), reason: reason.into() }
    }
}
