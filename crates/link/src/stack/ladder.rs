//! Which engine, and why: every one that was passed over has its reason.

use std::str::FromStr;

use crate::error::LinkError;

/// The engine asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best that works here.
    #[default]
    Auto,
    /// AF_PACKET; also beside another XDP program.
    Packet,
}

impl FromStr for EngineChoice {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        match text {
            "auto" => Ok(Self::Auto),
            "packet" => Ok(Self::Packet),
            _ => Err(LinkError::config(format!("there is no engine {text:?} for an interface: use auto or packet"))),
        }
    }
}

/// The record of a choice, from the best engine down.
#[derive(Clone, Debug, Default)]
pub(super) struct Ladder {
    reasons: Vec<String>,
}

impl Ladder {
    /// Notes why something better is not used.
    pub(super) fn pass_over(&mut self, what: &str, reason: impl std::fmt::Display) {
        self.reasons.push(format!("not {what}, because {reason}"));
    }

    /// Ends the choice: the text for `EngineInfo::why`.
    pub(super) fn choose(mut self, reason: impl Into<String>) -> String {
        self.reasons.push(reason.into());
        self.reasons.join("; ")
    }
}
