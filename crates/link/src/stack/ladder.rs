//! Which engine, and why: every one that was passed over has its reason.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use super::StackConfig;
use crate::engine::Sender;
use crate::error::LinkError;
use crate::live::{Left, LiveSender};
use crate::netdev::{Interface, Namespace};
use crate::packet::PacketSender;

/// The engine asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best that works here at the rate asked for.
    #[default]
    Auto,
    /// Live XDP frames from a mapped ring.
    Live,
    /// AF_PACKET; also beside another XDP program.
    Packet,
}

impl FromStr for EngineChoice {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        match text {
            "auto" => Ok(Self::Auto),
            "live" => Ok(Self::Live),
            "packet" => Ok(Self::Packet),
            _ => Err(LinkError::config(format!(
                "there is no engine {text:?} for an interface: use auto, live or packet"
            ))),
        }
    }
}

/// From so many frames a second on, a core for sending is well spent: the engine `packet` needs most of one then, and
/// reaches little more.
const LIVE_FROM: f64 = 300_000.0;

/// What sends.
#[derive(Clone, Debug)]
pub(super) enum Transmit {
    /// Live XDP frames; `required` when nothing else was allowed.
    Live { left: Arc<Left>, required: bool },
    /// AF_PACKET.
    Packet,
}

impl Transmit {
    /// The best way of sending for what was asked, when answers come by the filter (`filtered`) or not; the ladder gets the
    /// reasons.
    ///
    /// # Errors
    /// Why the engine `live` cannot be, when it was asked for by name.
    pub(super) fn choose(
        interface: &Interface,
        namespace: &Namespace,
        config: &StackConfig,
        filtered: bool,
        ladder: &mut Ladder,
    ) -> Result<Self, LinkError> {
        let required = config.engine == EngineChoice::Live;
        let unsuitable = match (config.engine, config.rate) {
            (EngineChoice::Live, _) => None,
            (EngineChoice::Packet, _) => Some("packet was asked for".to_owned()),
            (EngineChoice::Auto, _) if !interface.ethernet => Some("it sends Ethernet frames".to_owned()),
            (EngineChoice::Auto, _) if !filtered => Some("answers come without the filter, and slowly".to_owned()),
            (EngineChoice::Auto, Some(rate)) if rate > 0.0 && rate < LIVE_FROM => Some(format!(
                "{rate:.0} frames a second are not worth a core of its own; from {LIVE_FROM:.0} on they are"
            )),
            (EngineChoice::Auto, _) => None,
        };
        let reason = match unsuitable {
            Some(reason) => reason,
            None => match LiveSender::check().and_then(|()| Left::of(interface, namespace)) {
                Ok(left) => {
                    ladder.take("live XDP frames from a mapped ring send");
                    return Ok(Self::Live { left: Arc::new(left), required });
                }
                Err(error) if required => return Err(error),
                Err(error) => error.to_string(),
            },
        };
        ladder.pass_over("live", reason);
        ladder.take("AF_PACKET sends");
        Ok(Self::Packet)
    }

    /// The engine's name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Live { .. } => "live",
            Self::Packet => "packet",
        }
    }

    /// What it counts beside frames.
    pub(super) fn counters(&self) -> BTreeMap<String, u64> {
        match self {
            Self::Live { left, .. } => left.counters(),
            Self::Packet => BTreeMap::new(),
        }
    }

    /// A sender; one a worker.
    pub(super) fn sender(
        &self,
        interface: &Interface,
        frame_len: usize,
        batch: u32,
    ) -> Result<Box<dyn Sender>, LinkError> {
        Ok(match self {
            Self::Live { left, required } => {
                Box::new(LiveSender::open(interface, Arc::clone(left), frame_len, batch, *required)?)
            }
            Self::Packet => Box::new(PacketSender::open(interface, frame_len)?),
        })
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

    /// Notes what is used.
    pub(super) fn take(&mut self, reason: impl Into<String>) {
        self.reasons.push(reason.into());
    }

    /// The text for `EngineInfo::why`.
    pub(super) fn text(&self) -> String {
        self.reasons.join("; ")
    }
}
