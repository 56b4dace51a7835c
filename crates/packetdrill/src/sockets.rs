//! Non-blocking sockets over the client TCP, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use irl_tcp::{Batch, Call, Clients, Close, Config, Ended, Flow, IcmpError, Options, Segment, Upper, Why};
use irl_wire::packet::{Ethernet, Icmp, Packet, Tcp, protocol, tcp_flags};
use irl_wire::segment::{SegmentBuilder, SegmentHeader};
use irl_wire::{Endpoint, FrameBuilder, Key, Mac, PortRange, Probe};

/// An errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SystemError(pub(crate) i32);

/// When the clock starts: packetdrill takes zero for no time.
const START_NS: u64 = 1_000_000_000_000;
/// A SYN that is not answered is sent again after a second, and then each time after twice as long, so often.
const SYN_RETRIES: u32 = 5;
/// Nobody is waited for longer.
const PATIENCE_NS: u64 = 300_000_000_000;
const ETHERNET: usize = 14;

/// One socket.
#[derive(Debug, Default)]
struct Socket {
    flow: Option<Flow>,
    connected: bool,
    /// Everything that was written: what is sent is read from here, again where it has to be.
    written: Vec<u8>,
    received: VecDeque<u8>,
    finished: bool,
    error: i32,
    reset_on_close: bool,
    /// Its program has closed it, and it goes with its connection.
    closed: bool,
    /// The SYN, when it is due again, and how often it was sent.
    syn: Option<(Vec<u8>, u64, u32)>,
}

/// The owner of the connections: what it is told ends in the sockets.
#[derive(Debug, Default)]
struct Owner {
    sockets: BTreeMap<i32, Socket>,
}

impl Owner {
    fn by_flow(&self, flow: &Flow) -> Option<i32> {
        self.sockets.iter().find(|(_, socket)| socket.flow == Some(*flow)).map(|(number, _)| *number)
    }
}

impl Upper for Owner {
    type State = [u64; 2];

    fn accepts(&mut self, synack: &Segment, _: u64) -> Option<[u64; 2]> {
        let number = self.by_flow(&synack.flow)?;
        let socket = self.sockets.get_mut(&number)?;
        socket.syn.take()?;
        Some([number as u64, 0])
    }

    fn on_connect(&mut self, call: &mut Call<'_, [u64; 2]>) {
        let number = call.state()[0] as i32;
        if let Some(socket) = self.sockets.get_mut(&number) {
            socket.connected = true;
            call.send(socket.written.len() as u32);
        }
        call.within(PATIENCE_NS.div_ceil(1_000_000) as u32);
    }

    fn on_data(&mut self, call: &mut Call<'_, [u64; 2]>, data: &[u8]) {
        let number = call.state()[0] as i32;
        if let Some(socket) = self.sockets.get_mut(&number) {
            socket.received.extend(data);
        }
    }

    fn on_finish(&mut self, call: &mut Call<'_, [u64; 2]>) {
        let number = call.state()[0] as i32;
        if let Some(socket) = self.sockets.get_mut(&number) {
            socket.finished = true;
        }
    }

    fn on_timeout(&mut self, _: &mut Call<'_, [u64; 2]>) {}

    fn on_close(&mut self, ended: &Ended<'_, [u64; 2]>) {
        let number = ended.state[0] as i32;
        if self.sockets.get(&number).is_some_and(|socket| socket.closed) {
            self.sockets.remove(&number);
        } else if let Some(socket) = self.sockets.get_mut(&number) {
            socket.connected = false;
            socket.finished = true;
            socket.error = match ended.why {
                Why::ResetByPeer => libc::ECONNRESET,
                Why::TimedOut => libc::ETIMEDOUT,
                Why::Unreachable => libc::ECONNREFUSED,
                Why::Reset | Why::Finished | Why::Aborted => 0,
            };
        }
    }
}

/// All sockets, the machine under them, and the packets that have left it.
pub(crate) struct Sockets {
    now_ns: u64,
    v6: bool,
    syns: FrameBuilder,
    segments: SegmentBuilder,
    clients: Clients<Owner>,
    owner: Owner,
    batch: Batch,
    sent: VecDeque<(Vec<u8>, u64)>,
    next: i32,
}

impl Sockets {
    /// No socket yet; packets leave from `address`.
    pub(crate) fn new(address: IpAddr) -> Self {
        let key = Key::new(*b"0123456789abcdef");
        let ports = PortRange::DEFAULT;
        let from = Endpoint { mac: Mac([2; 6]), address, ports, ttl: 64, vlan: None };
        let probe = Probe::resolve("tcp_synscan", &BTreeMap::new()).expect("it is a probe of ours");
        let config = Config::new(key.halves(), address.is_ipv6(), key.timestamp_offset());
        Self {
            now_ns: START_NS,
            v6: address.is_ipv6(),
            syns: FrameBuilder::new(&probe, &from, &key).expect("its template is right"),
            segments: SegmentBuilder::new(&from),
            clients: Clients::new(config, START_NS),
            owner: Owner::default(),
            batch: Batch::new(),
            sent: VecDeque::new(),
            next: 3,
        }
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.now_ns / 1000
    }

    pub(crate) fn socket(&mut self) -> i32 {
        let number = self.next;
        self.next += 1;
        self.owner.sockets.insert(number, Socket::default());
        number
    }

    pub(crate) fn connect(&mut self, number: i32, address: IpAddr, port: u16) -> Result<usize, SystemError> {
        let theirs = match address {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        let socket = self.owner.sockets.get_mut(&number).ok_or(SystemError(libc::EBADF))?;
        if socket.connected {
            return Err(SystemError(libc::EISCONN));
        }
        if socket.error != 0 {
            return Err(SystemError(std::mem::take(&mut socket.error)));
        }
        if socket.syn.is_some() {
            return Err(SystemError(libc::EALREADY));
        }
        let mut frame = vec![0; self.syns.frame_len()];
        self.syns.build(&mut frame, Mac([4; 6]), theirs, port, 0, self.now_ns);
        let tcp =
            Ethernet::parse(&frame).as_ref().and_then(Packet::parse).and_then(|packet| Tcp::parse(packet.payload));
        let our_port = tcp.expect("what the builder writes can be read").source_port;
        socket.flow = Some(Flow { ours: 0, our_port, theirs, their_port: port });
        let packet = frame.split_off(ETHERNET);
        self.sent.push_back((packet.clone(), self.now_us()));
        let socket = self.owner.sockets.get_mut(&number).ok_or(SystemError(libc::EBADF))?;
        socket.syn = Some((packet, self.now_ns + 1_000_000_000, 1));
        Err(SystemError(libc::EINPROGRESS))
    }

    pub(crate) fn read(&mut self, number: i32, into: &mut [u8]) -> Result<usize, SystemError> {
        let socket = self.owner.sockets.get_mut(&number).ok_or(SystemError(libc::EBADF))?;
        let count = into.len().min(socket.received.len());
        for (place, byte) in into.iter_mut().zip(socket.received.drain(..count)) {
            *place = byte;
        }
        match count {
            0 if socket.error != 0 => Err(SystemError(std::mem::take(&mut socket.error))),
            0 if !socket.finished && !into.is_empty() => Err(SystemError(libc::EAGAIN)),
            count => Ok(count),
        }
    }

    pub(crate) fn write(&mut self, number: i32, data: &[u8]) -> Result<usize, SystemError> {
        let socket = self.owner.sockets.get_mut(&number).ok_or(SystemError(libc::EBADF))?;
        if socket.error != 0 {
            return Err(SystemError(std::mem::take(&mut socket.error)));
        }
        // Before the connection stands, what is written goes with the acknowledgement that makes it stand.
        if !socket.connected && socket.syn.is_none() {
            return Err(SystemError(libc::EPIPE));
        }
        socket.written.extend_from_slice(data);
        let flow = socket.flow.filter(|_| socket.connected);
        let mut taken = data.len() as u32;
        if let Some(flow) = flow {
            self.clients.visit(self.now_ns, &flow, &mut self.owner, |_, call| taken = call.send(data.len() as u32));
        }
        self.flush();
        if taken as usize == data.len() { Ok(data.len()) } else { Err(SystemError(libc::EPIPE)) }
    }

    /// The end of what we send.
    pub(crate) fn shutdown(&mut self, number: i32) -> Result<usize, SystemError> {
        self.ends(number, Close::Finish)
    }

    pub(crate) fn close(&mut self, number: i32) -> Result<usize, SystemError> {
        let socket = self.owner.sockets.get(&number).ok_or(SystemError(libc::EBADF))?;
        // What nobody will read is a reason to reset (RFC 9293, MUST-17's SHOULD; RFC 2525, 2.17).
        let unread = !socket.received.is_empty();
        let how = if socket.reset_on_close || unread { Close::Reset } else { Close::Finish };
        let result = self.ends(number, how);
        // What was written is read until the connection is over.
        match self.owner.sockets.get_mut(&number) {
            Some(socket) if socket.connected => socket.closed = true,
            _ => drop(self.owner.sockets.remove(&number)),
        }
        // Closing what was reset by the peer is no error.
        result.or(Ok(0))
    }

    fn ends(&mut self, number: i32, how: Close) -> Result<usize, SystemError> {
        let socket = self.owner.sockets.get(&number).ok_or(SystemError(libc::EBADF))?;
        let flow = socket.flow.filter(|_| socket.connected).ok_or(SystemError(libc::ENOTCONN))?;
        self.clients.visit(self.now_ns, &flow, &mut self.owner, |_, call| call.close(how));
        self.flush();
        Ok(0)
    }

    pub(crate) fn reset_on_close(&mut self, number: i32, reset: bool) {
        if let Some(socket) = self.owner.sockets.get_mut(&number) {
            socket.reset_on_close = reset;
        }
    }

    pub(crate) fn take_error(&mut self, number: i32) -> i32 {
        self.owner.sockets.get_mut(&number).map_or(libc::EBADF, |socket| std::mem::take(&mut socket.error))
    }

    pub(crate) fn poll(&self, number: i32) -> i16 {
        let Some(socket) = self.owner.sockets.get(&number) else { return libc::POLLNVAL };
        let mut events = 0;
        if socket.connected {
            events |= libc::POLLOUT;
        }
        if !socket.received.is_empty() || socket.finished {
            events |= libc::POLLIN;
        }
        if socket.error != 0 {
            events |= libc::POLLERR;
        }
        events
    }

    /// A packet arrives.
    pub(crate) fn packet(&mut self, bytes: &[u8]) {
        let mut frame = vec![0; ETHERNET];
        frame[12..].copy_from_slice(if self.v6 { &[0x86, 0xdd] } else { &[8, 0] });
        frame.extend_from_slice(bytes);
        let Some(ethernet) = Ethernet::parse(&frame) else { return };
        let Some(packet) = Packet::parse(&ethernet) else { return };
        if !packet.header_intact() || !packet.payload_intact() {
            return;
        }
        match packet.protocol {
            protocol::TCP => self.segment(&packet),
            protocol::ICMP => self.icmp(&packet),
            _ => {}
        }
        self.flush();
    }

    fn segment(&mut self, packet: &Packet<'_>) {
        let Some(tcp) = Tcp::parse(packet.payload) else { return };
        let flow = Flow { ours: 0, our_port: tcp.destination_port, theirs: packet.source, their_port: tcp.source_port };
        // Whether an answer belongs to a SYN of ours is checked before the machine sees it, here as in a scan.
        let refused = tcp_flags::RST | tcp_flags::ACK;
        let pending = self.owner.by_flow(&flow).and_then(|number| self.owner.sockets.get_mut(&number));
        if let Some(socket) = pending.filter(|socket| socket.syn.is_some()) {
            let cookie = self.syns.cookie(flow.theirs, flow.their_port);
            let acknowledges = tcp.flags & tcp_flags::ACK != 0 && tcp.ack.wrapping_sub(1) == cookie.seq();
            if tcp.flags & refused == refused && acknowledges {
                (socket.syn, socket.error, socket.finished) = (None, libc::ECONNREFUSED, true);
                return;
            }
            if !acknowledges && tcp.flags & tcp_flags::RST != 0 {
                return;
            }
            if !acknowledges {
                // Nothing that we would open: as if there were no socket.
                let syn = socket.syn.take();
                self.arrive(flow, &tcp);
                if let Some(socket) = self.owner.by_flow(&flow).and_then(|each| self.owner.sockets.get_mut(&each)) {
                    socket.syn = syn;
                }
                return;
            }
        }
        self.arrive(flow, &tcp);
    }

    fn arrive(&mut self, flow: Flow, tcp: &Tcp<'_>) {
        let options = Options::parse(tcp.options);
        let Tcp { seq, ack, flags, window, .. } = *tcp;
        self.batch.push(Segment { flow, seq, ack, flags, window, options }, tcp.payload);
        self.clients.receive(self.now_ns, &mut self.batch, &mut self.owner);
    }

    fn icmp(&mut self, packet: &Packet<'_>) {
        let Some(icmp) = Icmp::parse(packet.payload) else { return };
        // The quoted IPv4 header, and eight bytes of what it carried.
        let Some(quoted) = packet.payload.get(8..) else { return };
        let header = usize::from(quoted.first().copied().unwrap_or(0) & 15) * 4;
        let (Some(theirs), Some(ports)) = (quoted.get(16..20), quoted.get(header..header + 8)) else { return };
        let word = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
        let theirs = theirs.iter().fold(0_u128, |address, byte| address << 8 | u128::from(*byte));
        let flow = Flow { ours: 0, our_port: word(0), theirs, their_port: word(2) };
        let seq = u32::from(word(4)) << 16 | u32::from(word(6));
        let mtu = u16::from_be_bytes([packet.payload[6], packet.payload[7]]);
        let error = match (icmp.kind, icmp.code) {
            (3, 4) => IcmpError::TooBig(mtu),
            (3, 2 | 3) => IcmpError::Hard,
            (3 | 11 | 12, _) => IcmpError::Soft,
            _ => return,
        };
        self.clients.icmp(self.now_ns, flow, seq, error, &mut self.owner);
    }

    /// The next packet that leaves, and when it did; time passes until there is one. `None` when none ever will.
    pub(crate) fn next_packet(&mut self) -> Option<(Vec<u8>, u64)> {
        let until = self.now_ns + PATIENCE_NS;
        while self.sent.is_empty() {
            let next = self.next_event().filter(|next| *next <= until)?;
            self.pass_until(next.max(self.now_ns + 1));
        }
        self.sent.pop_front()
    }

    /// So many microseconds pass.
    pub(crate) fn pass(&mut self, microseconds: u64) {
        self.pass_until(self.now_ns + microseconds * 1000);
    }

    fn pass_until(&mut self, until: u64) {
        while let Some(next) = self.next_event().filter(|next| *next <= until) {
            self.now_ns = self.now_ns.max(next);
            let now_us = self.now_us();
            for socket in self.owner.sockets.values_mut() {
                match &mut socket.syn {
                    Some((packet, due, tries)) if *due <= self.now_ns => {
                        if *tries > SYN_RETRIES {
                            (socket.syn, socket.error, socket.finished) = (None, libc::ETIMEDOUT, true);
                            continue;
                        }
                        self.sent.push_back((packet.clone(), now_us));
                        *due += 1_000_000_000 << *tries;
                        *tries += 1;
                    }
                    _ => {}
                }
            }
            self.clients.expire(self.now_ns, &mut self.owner);
            self.flush();
            if self.now_ns == until {
                break;
            }
            // A place in the queues may come up early, and another at once: time goes on all the same.
            self.now_ns += 1;
        }
        self.now_ns = self.now_ns.max(until);
    }

    fn next_event(&self) -> Option<u64> {
        let syns = self.owner.sockets.values().filter_map(|socket| socket.syn.as_ref().map(|(_, due, _)| *due));
        syns.chain(self.clients.next_expiry_ns()).min()
    }

    /// Lets out what is to be sent.
    fn flush(&mut self) {
        while let Some(outgoing) = self.clients.transmit(self.now_ns) {
            let header = SegmentHeader {
                next_hop: Mac([4; 6]),
                target: outgoing.flow.theirs,
                port: outgoing.flow.their_port,
                source_port: outgoing.flow.our_port,
                seq: outgoing.seq,
                ack: outgoing.ack,
                flags: outgoing.flags,
                window: outgoing.window,
                options: &outgoing.options,
            };
            let (offset, len) = (outgoing.offset as usize, usize::from(outgoing.len));
            let written = self.owner.sockets.get(&(outgoing.state[0] as i32)).map(|socket| socket.written.as_slice());
            let mut frame = vec![0; self.segments.frame_len(outgoing.options.len(), len)];
            self.segments.build(&mut frame, &header, len, |payload| {
                if let Some(bytes) = written.and_then(|written| written.get(offset..offset + len)) {
                    payload.copy_from_slice(bytes);
                }
            });
            self.sent.push_back((frame.split_off(ETHERNET), self.now_us()));
        }
    }
}
