//! Probes as values: a template of the transport header, what is patched into it, and what counts as an answer.

mod answer;
mod dns;
mod error;
mod icmp;
mod names;
mod ntp;
mod own;
mod patch;
mod ports;
mod tcp;
mod template;
mod udp;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use answer::{AnswerClass, Base, Expect, MatchRule};
pub use error::ProbeError;
pub use names::NAMES;
pub use own::{Field, FieldType};
pub use patch::{Patch, PatchSource};
pub use ports::PortRange;
pub(crate) use tcp::MSS_OFFSET;
pub(crate) use template::Values;
pub use template::{FIELDS, Template};

/// The longest payload of a UDP probe: what fits an Ethernet frame over IPv6.
pub const MAX_PAYLOAD: usize = 1500 - 40 - 8;

/// The transport a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP over IPv4, ICMPv6 over IPv6.
    Icmp,
}

/// A declarative probe: plain data that can be stored, sent and compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Probe {
    name: String,
    protocol: Protocol,
    template: Vec<u8>,
    patches: Vec<Patch>,
    answers: Vec<AnswerClass>,
    fields: Vec<Field>,
    /// Answers are known by match rules and handed over whole.
    #[serde(default)]
    by_rules: bool,
    /// A payload that has to be written anew for each target.
    #[serde(default)]
    filling: Option<Template>,
}

impl Probe {
    /// The probe of this name with these arguments.
    ///
    /// `tcp_synscan` takes `layout` (`linux`, the default, or `smallest`); `udp` one of `text`, `hex` (an even number of
    /// digits), `payload` (as `hex`), `template` or `template_hex`; `dns` takes `question`; `own` is declared by its
    /// arguments (`docs/probes.md`); the others take nothing.
    ///
    /// # Errors
    /// [`ProbeError`], in words for the person who typed it.
    pub fn resolve(name: &str, args: &BTreeMap<String, String>) -> Result<Self, ProbeError> {
        names::resolve(name, args)
    }

    /// One that sends and expects nothing yet.
    fn named(name: &str, protocol: Protocol) -> Self {
        Self {
            name: name.to_owned(),
            protocol,
            template: Vec::new(),
            patches: Vec::new(),
            answers: Vec::new(),
            fields: Vec::new(),
            by_rules: false,
            filling: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its transport.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The transport header and payload, with zeros where patches go.
    pub fn template(&self) -> &[u8] {
        &self.template
    }

    /// What differs from target to target.
    pub fn patches(&self) -> &[Patch] {
        &self.patches
    }

    /// What counts as an answer.
    pub fn answers(&self) -> &[AnswerClass] {
        &self.answers
    }

    /// Columns of its own, beside those of every scan: what a program in Python makes of its answers.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether its answers are known by their match rules, and handed over whole, instead of by the check that is built
    /// in for the protocol.
    pub fn by_rules(&self) -> bool {
        self.by_rules
    }

    /// The payload that is written anew for each target, if there is one: it follows the template.
    pub fn filling(&self) -> Option<&Template> {
        self.filling.as_ref()
    }

    /// Whether an answer tells when its probe was sent.
    pub fn carries_time(&self) -> bool {
        self.patches.iter().any(|p| matches!(p.source, PatchSource::Microseconds | PatchSource::Nanoseconds))
    }

    /// Whether targets have ports.
    pub fn needs_port(&self) -> bool {
        self.protocol != Protocol::Icmp
    }
}
