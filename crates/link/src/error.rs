//! What can go wrong between us and the operating system, said in full sentences.

use std::io;
use std::net::IpAddr;

use irl_wire::Mac;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A system call failed in a way that has no name of its own.
    #[error("{what} failed: {source}")]
    Os {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },

    /// The interface was deleted or taken down, or its namespace is gone.
    #[error("the interface {name} is gone: it was deleted or taken down while it was in use")]
    InterfaceGone {
        /// Its name.
        name: String,
    },

    /// No interface has this name.
    #[error("there is no interface {name} in this network namespace; there are: {}", list(known))]
    UnknownInterface {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },

    /// The process lacks a capability.
    #[error("{what} needs {capability}: run as root, or grant it to this process")]
    Privilege {
        /// The capability, as `CAP_NET_RAW`.
        capability: &'static str,
        /// What needs it.
        what: String,
    },

    /// Another XDP program sits on the interface.
    #[error(
        "the interface {interface} already runs the XDP program {program} (id {id}), which is left alone: stop what \
         attached it, or use the packet engine on a spare address, which works beside it"
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// The program's name.
        program: String,
        /// The program's id in the kernel.
        id: u32,
    },

    /// The kernel refused to load a program of ours.
    #[error("the kernel refused our XDP program: {reason}\n{log}")]
    Load {
        /// What the loader said.
        reason: String,
        /// The verifier's log; may be empty.
        log: String,
    },

    /// This kernel, device or platform can't do it.
    #[error("{0}")]
    Unsupported(String),

    /// What was asked for contradicts itself or the state of the machine.
    #[error("{0}")]
    Config(String),

    /// An address that we were to use belongs to somebody else on the link.
    #[error("the address {address} is in use by {mac} on this link: choose another source address")]
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// Who has it.
        mac: Mac,
    },
}

impl LinkError {
    /// Wraps a system call's error.
    pub fn os(what: impl Into<String>, source: io::Error) -> Self {
        Self::Os { what: what.into(), source }
    }

    /// A shorthand for [`LinkError::Config`].
    pub fn config(text: impl Into<String>) -> Self {
        Self::Config(text.into())
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
