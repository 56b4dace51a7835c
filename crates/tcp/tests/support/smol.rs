//! A host of smoltcp's in virtual time: the peer of simulations, and the other client of comparisons.

use std::cell::Cell;
use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Address};

thread_local! {
    /// What smoltcp's timestamps are taken from: a function without arguments, so it needs a place of its own.
    static CLOCK_MS: Cell<u32> = const { Cell::new(0) };
}

/// Packets in and out.
pub struct Wire {
    pub inbox: VecDeque<Vec<u8>>,
    pub outbox: Vec<Vec<u8>>,
    mtu: usize,
}

pub struct Taken(Vec<u8>);

pub struct Place<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Taken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Place<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut bytes = vec![0; len];
        let result = write(&mut bytes);
        self.0.push(bytes);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Taken;
    type TxToken<'a> = Place<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Taken, Place<'_>)> {
        self.inbox.pop_front().map(|bytes| (Taken(bytes), Place(&mut self.outbox)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Place<'_>> {
        Some(Place(&mut self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// The host.
pub struct Host {
    pub wire: Wire,
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
}

impl Host {
    pub fn new(address: u32, mtu: usize, seed: u64) -> Self {
        let mut wire = Wire { inbox: VecDeque::new(), outbox: Vec::new(), mtu };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let address = IpAddress::Ipv4(Ipv4Address::from_bits(address));
            addresses.push(IpCidr::new(address, 24)).expect("a list of addresses has room for one");
        });
        Self { wire, interface, sockets: SocketSet::new(Vec::new()) }
    }

    /// A socket with buffers of this size.
    pub fn socket(&mut self, buffer: usize, timestamps: bool) -> SocketHandle {
        let mut socket = Socket::new(SocketBuffer::new(vec![0; buffer]), SocketBuffer::new(vec![0; buffer]));
        if timestamps {
            socket.set_tsval_generator(Some(|| CLOCK_MS.with(Cell::get)));
        }
        self.sockets.add(socket)
    }

    /// Takes in what came, and lets out what wants out.
    pub fn poll(&mut self, now_ns: u64) -> Vec<Vec<u8>> {
        let now = instant(now_ns);
        CLOCK_MS.with(|clock| clock.set((now_ns / 1_000_000) as u32));
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        std::mem::take(&mut self.wire.outbox)
    }

    /// When it wants to be polled next.
    pub fn poll_at(&mut self, now_ns: u64) -> Option<u64> {
        let at = self.interface.poll_at(instant(now_ns), &self.sockets)?;
        Some((at.total_micros().max(0) as u64 * 1000).max(now_ns))
    }
}

fn instant(ns: u64) -> Instant {
    Instant::from_micros((ns / 1000) as i64)
}
