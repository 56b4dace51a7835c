//! Whole exchanges by the kernel's sockets, blocking, one after the other: connect, ask, read the answer, close.
#![allow(unsafe_code, reason = "asks for a reset at close, which the standard library has no stable call for")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use irl_link::LinkError;

use super::syn::host;
use super::{Left, only_in_a_lab};

const PORT: u16 = 80;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// By a RST (SO_LINGER with no time), which leaves nothing behind.
    Rst,
    /// By a FIN; the kernel waits for the other side's on its own.
    Fin,
}

impl FromStr for Close {
    type Err = LinkError;

    fn from_str(name: &str) -> Result<Self, LinkError> {
        match name {
            "rst" => Ok(Self::Rst),
            "fin" => Ok(Self::Fin),
            _ => Err(LinkError::config(format!("a connection ends by rst or fin, not by {name:?}"))),
        }
    }
}

/// What is asked of whom.
#[derive(Clone, Debug)]
pub struct Questions {
    /// What is sent.
    pub request: Vec<u8>,
    /// How many bytes answer it.
    pub reply: usize,
    /// How each connection ends.
    pub close: Close,
    /// Which of the hosts of 10.0.0.0/8, in the scattered order of the baselines, is the first.
    pub first: u64,
    /// And which of those after it is the next: the number of processes that share them.
    pub step: u64,
    /// Stop after so many.
    pub exchanges: u64,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Answered to the last byte.
    pub complete: u64,
    /// Refused, reset or cut short.
    pub failed: u64,
}

/// Asks host after host on port 80, each on a connection of its own, until all were asked or `stop` is set.
///
/// # Errors
/// [`LinkError::Config`] outside a lab's network namespace; [`LinkError::Os`] when this host cannot go on, by an error
/// that is not the other side's doing.
pub fn ask(questions: &Questions, stop: &AtomicBool) -> Result<Asked, LinkError> {
    only_in_a_lab()?;
    let mut left = Left { frames: questions.exchanges, stop };
    let mut answer = vec![0; questions.reply];
    let mut asked = Asked::default();
    let mut next = questions.first;
    while left.next(1) == 1 {
        match exchange(host(next), questions, &mut answer) {
            Ok(()) => asked.complete += 1,
            Err(error) if is_theirs(&error) => asked.failed += 1,
            Err(error) => return Err(LinkError::os("a connection by the kernel's sockets", error)),
        }
        next += questions.step;
    }
    Ok(asked)
}

fn exchange(to: u32, questions: &Questions, answer: &mut [u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::from(to), PORT))?;
    if questions.close == Close::Rst {
        reset_at_close(&stream)?;
    }
    stream.write_all(&questions.request)?;
    stream.read_exact(answer)
}

fn reset_at_close(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the pointer and the size describe a live value, which the kernel only reads.
    let done = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether an error is the other side's doing.
fn is_theirs(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut, UnexpectedEof,
    };
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | TimedOut
            | UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_read_by_its_name() {
        assert_eq!(("rst".parse::<Close>().unwrap(), "fin".parse::<Close>().unwrap()), (Close::Rst, Close::Fin));
        assert!("half".parse::<Close>().unwrap_err().to_string().contains("by rst or fin"));
    }

    #[test]
    fn outside_a_lab_nobody_is_asked() {
        let questions =
            Questions { request: b"?".to_vec(), reply: 1, close: Close::Rst, first: 0, step: 1, exchanges: 1 };
        let refused = ask(&questions, &AtomicBool::new(false)).unwrap_err();
        assert!(refused.to_string().contains("of a lab only"), "{refused}");
    }
}
