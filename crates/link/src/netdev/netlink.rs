//! Questions to rtnetlink, answered whole.

use std::io;
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::error::LinkError;

/// A socket to the network namespace of the thread that opened it; it stays with that namespace wherever it is used.
pub(super) struct Netlink {
    socket: Mutex<Socket>,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, LinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket: Mutex::new(socket) })
        };
        open().map_err(|source| LinkError::os("opening a route socket", source))
    }

    /// Every object of a kind.
    pub(super) fn dump(&self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(question, NLM_F_REQUEST | NLM_F_DUMP)
    }

    /// One object.
    pub(super) fn get(&self, question: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        Ok(self.ask(question, NLM_F_REQUEST)?.into_iter().next())
    }

    fn ask(&self, question: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = flags;
        message.header.sequence_number = 1;
        message.finalize();
        let mut request = vec![0; message.buffer_len()];
        message.serialize(&mut request);

        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.send(&request, 0)?;
        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                // Messages begin at multiples of four bytes.
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(object) => answers.push(object),
                    _ => {}
                }
            }
            if !dump {
                return Ok(answers);
            }
        }
    }
}
