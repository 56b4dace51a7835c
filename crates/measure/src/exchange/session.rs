//! The course of a dialogue, without sockets and without a clock: what a session wants when its connection is there, when
//! data comes, when the peer has finished and when time is up; and the one of a request and a response.

use super::status::Status;
use crate::error::MeasureError;

/// How we close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// By a RST, at once.
    Reset,
    /// By a FIN, after what is still to be sent.
    Finish,
}

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Our RST.
    Reset,
    /// Both sides' FINs.
    Finished,
    /// The peer's RST.
    ResetByPeer,
    /// The peer answers no more.
    TimedOut,
    /// ICMP says that there is no way.
    Unreachable,
    /// The run was ended.
    Aborted,
}

/// What a session wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// So many more bytes of the request may go; an answer is expected.
    Send(u32),
    /// More is expected.
    Expect,
    /// The dialogue is done, or cannot be, and ends with this status.
    Close(Close, Status),
}

/// A dialogue's course, the same for all targets. What is remembered of one dialogue is in its memory.
pub trait Session: Send {
    /// What it remembers of a dialogue from the first data on.
    type Memory: Default + Send;

    /// The connection is there, and the request for its target has so many bytes.
    fn on_connect(&self, request_len: u32) -> Action;

    /// The next bytes, of which the second of what is returned belong to the response.
    fn on_data(&self, memory: &mut Self::Memory, data: &[u8]) -> (Action, usize);

    /// The peer will send no more; the response has so many bytes.
    fn on_finish(&self, response_len: usize) -> Action;

    /// Time is up.
    fn on_timeout(&self) -> Action;

    /// How long its response can be, where that is known.
    fn longest(&self) -> Option<u32>;

    /// How we close when the response is cut.
    fn close(&self) -> Close;
}

/// When a response is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// When the peer closes.
    Close,
    /// After so many bytes.
    Bytes(u32),
    /// After these bytes, which belong to it.
    Delimiter(Delimiter),
}

/// Bytes that end a response, and how far to fall back where they don't go on (Knuth, Morris and Pratt, 1977): no byte is
/// looked at twice, wherever segments begin and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delimiter {
    bytes: Vec<u8>,
    /// For each length of a matched prefix, less one: the longest shorter prefix that is its suffix.
    fall_back: Vec<u32>,
}

impl Delimiter {
    /// These bytes.
    ///
    /// # Errors
    /// [`MeasureError::Config`] when there are none.
    pub fn new(bytes: &[u8]) -> Result<Self, MeasureError> {
        if bytes.is_empty() {
            let text = "a delimiter has at least one byte; leave it out to read until the peer closes";
            return Err(MeasureError::Config(text.into()));
        }
        let mut delimiter = Self { bytes: bytes.to_vec(), fall_back: vec![0] };
        let mut matched = 0;
        for byte in &bytes[1..] {
            matched = delimiter.step(matched, *byte);
            delimiter.fall_back.push(matched);
        }
        Ok(delimiter)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes of it are matched after this byte, when so many were before; fewer than all of them were.
    fn step(&self, mut matched: u32, byte: u8) -> u32 {
        loop {
            if self.bytes[matched as usize] == byte {
                return matched + 1;
            }
            match matched {
                0 => return 0,
                _ => matched = self.fall_back[matched as usize - 1],
            }
        }
    }

    /// Where it ends in data that goes on after `matched` bytes of it.
    fn find(&self, matched: &mut u32, data: &[u8]) -> Option<usize> {
        for (at, byte) in data.iter().enumerate() {
            *matched = self.step(*matched, *byte);
            if *matched as usize == self.bytes.len() {
                return Some(at + 1);
            }
        }
        None
    }
}

/// The dialogue of one request and one response.
#[derive(Clone, Debug)]
pub struct Dialogue {
    /// When the response is complete.
    pub until: Until,
    /// How we close then.
    pub close: Close,
}

impl Dialogue {
    fn done(&self) -> Action {
        Action::Close(self.close, Status::Success)
    }
}

impl Session for Dialogue {
    /// Bytes that came, or bytes of the delimiter that are matched.
    type Memory = u32;

    fn on_connect(&self, request_len: u32) -> Action {
        if request_len == 0 { Action::Expect } else { Action::Send(request_len) }
    }

    fn on_data(&self, memory: &mut u32, data: &[u8]) -> (Action, usize) {
        match &self.until {
            Until::Close => (Action::Expect, data.len()),
            Until::Bytes(all) => {
                let keep = data.len().min(all.saturating_sub(*memory) as usize);
                // No more than is left of 32 bits.
                *memory += keep as u32;
                (if *memory == *all { self.done() } else { Action::Expect }, keep)
            }
            Until::Delimiter(delimiter) => match delimiter.find(memory, data) {
                Some(end) => (self.done(), end),
                None => (Action::Expect, data.len()),
            },
        }
    }

    fn on_finish(&self, response_len: usize) -> Action {
        match self.until {
            // A peer that closes without a word has refused the dialogue.
            Until::Close if response_len > 0 => self.done(),
            _ => Action::Close(self.close, Status::ConnectionClosed),
        }
    }

    fn on_timeout(&self) -> Action {
        Action::Close(Close::Reset, Status::IoTimeout)
    }

    fn longest(&self) -> Option<u32> {
        match self.until {
            Until::Bytes(all) => Some(all),
            _ => None,
        }
    }

    fn close(&self) -> Close {
        self.close
    }
}

/// What lies between the bytes of TCP and those of a session. A TLS layer belongs here: it will keep its own memory by the
/// connection's entry, speak first, hold the session back until the handshake is done, and open and seal what passes.
pub trait Layer: Send {
    /// The session's bytes in those that came on an entry's connection.
    fn open<'a>(&'a mut self, entry: u32, wire: &'a [u8]) -> &'a [u8];

    /// How many bytes so many of the session's take on the wire.
    fn sealed_len(&self, plain: u64) -> u64;
}

/// No layer: a session's bytes are those of TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Layer for Plain {
    fn open<'a>(&'a mut self, _: u32, wire: &'a [u8]) -> &'a [u8] {
        wire
    }

    fn sealed_len(&self, plain: u64) -> u64 {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delimiter_has_bytes() {
        assert!(Delimiter::new(b"").unwrap_err().to_string().contains("at least one byte"));
    }
}
