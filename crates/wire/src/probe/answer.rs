//! What counts as an answer: conditions on fields, as data that the kernel's filter and its twin understand alike.

use serde::{Deserialize, Serialize};

use super::Protocol;

/// Where a match rule counts its offset from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// The IP header.
    Network,
    /// The transport header.
    Transport,
    /// What follows the transport header.
    Payload,
    /// The transport header of the packet that an ICMP error quotes.
    Quoted,
}

/// What a match rule wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// This value.
    Value(u32),
    /// The cookie shifted right by `shift` bits, plus `add` (wrapping at the field's width).
    Cookie {
        /// Bits to shift by.
        shift: u8,
        /// What the answer adds, as an acknowledgement adds 1.
        add: u32,
    },
}

/// A condition on one field of an answer: `field & mask == expected & mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MatchRule {
    /// Where the offset counts from.
    pub base: Base,
    /// Offset in bytes.
    pub offset: u16,
    /// Width in bytes: 1, 2 or 4; network byte order.
    pub width: u8,
    /// The bits that count.
    pub mask: u32,
    /// What they must be.
    pub expect: Expect,
}

/// A kind of answer: its name in the `classification` column, and when it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AnswerClass {
    /// ZMap's word for it, such as `synack`.
    pub name: String,
    /// Whether it is what the probe hoped for.
    pub success: bool,
    /// The transport of the answer.
    pub protocol: Protocol,
    /// All of them must hold.
    pub rules: Vec<MatchRule>,
}

/// A flag byte, or part of one, of the transport header.
pub(super) fn value(offset: u16, mask: u32, value: u32) -> MatchRule {
    MatchRule { base: Base::Transport, offset, width: 1, mask, expect: Expect::Value(value) }
}

/// A part of the cookie, and what the answer adds to it.
pub(super) fn cookie(base: Base, offset: u16, width: u8, shift: u8, add: u32) -> MatchRule {
    MatchRule { base, offset, width, mask: u32::MAX, expect: Expect::Cookie { shift, add } }
}

/// A class of answers.
pub(super) fn class(name: &str, success: bool, protocol: Protocol, rules: Vec<MatchRule>) -> AnswerClass {
    AnswerClass { name: name.to_owned(), success, protocol, rules }
}
