//! Attaching the filter to a real interface: what sits there, what leaves with us, what is refused and how it is said.

mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use irl_link::cores::{check, pin};
use irl_link::filter::{AddressKind, FilterConfig, Frames, KernelFilter, OwnAddress, OwnerConfig, Reason};
use irl_link::netdev::Interface;
use irl_link::record::{Kind, flags};
use irl_link::{LinkError, Receiver};
use irl_wire::cookie::Key;
use irl_wire::probe::{PortRange, Protocol};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, sendto, socket,
};
use support::{cookie, frame, in_own_namespace, ip, ip_frame, ip_packet, octets, root, tcp};

fn spare(address: &str) -> FilterConfig {
    let address = address.parse().expect("an address in a test is well formed");
    FilterConfig { addresses: vec![OwnAddress { address, kind: AddressKind::Spare }] }
}

fn owner(number: u16) -> OwnerConfig {
    OwnerConfig::new(number, Protocol::Tcp, PortRange { first: 61_000, last: 61_099 }, Key::new([3; 16]))
}

fn pair() {
    ip("link add va type veth peer name vb");
    ip("link set va up");
    ip("link set vb up");
}

fn program_on(interface: &str) -> Option<(u32, String)> {
    let device = Interface::by_name(interface).expect("the interface exists");
    device.xdp_program().expect("the interface is still there").map(|program| (program.id, program.name))
}

fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).expect("the interface exists")
}

/// A packet socket that sends whole frames out of an interface.
struct Wire {
    socket: OwnedFd,
    address: LinkAddr,
}

impl Wire {
    fn new(interface: &str) -> Self {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None::<SockProtocol>)
            .expect("root may open packet sockets");
        let mut raw = [0u8; 20];
        raw[..2].copy_from_slice(&17u16.to_ne_bytes());
        raw[4..8].copy_from_slice(&index(interface).to_ne_bytes());
        raw[11] = 6;
        // SAFETY: `raw` is a sockaddr_ll: family AF_PACKET, the interface's index, a six-byte hardware address.
        let address = unsafe { LinkAddr::from_raw(raw.as_ptr().cast(), Some(20)) }.expect("a link-layer address");
        Self { socket, address }
    }

    fn send(&self, frame: &[u8]) {
        use std::os::fd::AsRawFd;
        let sent = sendto(self.socket.as_fd().as_raw_fd(), frame, &self.address, MsgFlags::empty())
            .expect("veth takes frames");
        assert_eq!(sent, frame.len());
    }
}

/// A segment that acknowledges so many bytes.
fn segment(acknowledged: u32, flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let (target, ours) = (octets("10.0.0.7"), octets("198.18.0.10"));
    let ack = cookie(&Key::new([3; 16]), &ours, &target, 80).seq().wrapping_add(acknowledged);
    ip_frame(false, &ip_packet(&target, &ours, 6, &[], tcp(80, 61_005, 1, ack, flags, options, data), Some(16)))
}

fn syn_ack(right: bool) -> Vec<u8> {
    segment(if right { 1 } else { 2 }, 0x12, &[2, 4, 5, 0xb4], &[])
}

fn data() -> Vec<u8> {
    segment(101, 0x18, &[], b"some data")
}

/// Asks for the spare address.
fn arp_request() -> Vec<u8> {
    let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9];
    request.extend(octets("198.18.0.99"));
    request.extend([0; 6]);
    request.extend(octets("198.18.0.10"));
    frame(false, 0x0806, &request)
}

/// Polls until `wanted` records have come or a second has passed.
fn drain(receiver: &mut dyn Receiver, wanted: usize) -> Vec<(Kind, u16)> {
    let (mut found, start) = (Vec::new(), Instant::now());
    while found.len() < wanted && start.elapsed() < Duration::from_secs(1) {
        receiver.wait(Duration::from_millis(100)).expect("waiting does not fail");
        receiver
            .poll(usize::MAX, &mut |record| found.push((record.kind, record.flags)))
            .expect("polling does not fail");
    }
    found
}

fn answers_arrive() {
    pair();
    let mut filter = KernelFilter::attach("va", &spare("198.18.0.10")).expect("veth takes XDP programs");
    let mode = filter.mode().expect("it is attached");
    assert_eq!(mode.to_string(), "native-frags");
    let mut receiver = filter.add_owner(owner(0)).expect("the ports are free");
    let wire = Wire::new("vb");
    for _ in 0..3 {
        wire.send(&syn_ack(true));
        wire.send(&syn_ack(false));
    }
    wire.send(&arp_request());
    let records = drain(&mut receiver, 4);
    let expected = [(Kind::Tcp4, flags::COOKIE), (Kind::Frame, flags::NEIGHBOUR)];
    assert_eq!(records, [expected[0], expected[0], expected[0], expected[1]]);
    let counters = filter.counters().expect("counters can be read");
    assert_eq!(counters.get(Reason::Delivered), 3);
    assert_eq!(counters.get(Reason::BadCookie), 3);
    assert_eq!(counters.get(Reason::Neighbour), 1);
    assert_eq!(counters.dropped(), 3);

    filter.remove_owner(0).expect("removing does not fail");
    wire.send(&syn_ack(true));
    assert!(drain(&mut receiver, 1).is_empty(), "a removed owner gets nothing");
    assert_eq!(filter.counters().expect("counters can be read").get(Reason::NoOwner), 1);
    filter.add_owner(owner(0)).expect("the ports are free again");

    assert!(program_on("va").is_some_and(|(_, name)| name.starts_with("irl_filter")));
    drop(filter);
    assert_eq!(program_on("va"), None, "nothing stays attached");
}

#[test]
fn answers_arrive_and_nothing_stays_attached() {
    if root("answers_arrive_and_nothing_stays_attached") {
        in_own_namespace(answers_arrive);
    }
}

#[test]
fn an_occupied_interface_is_named_and_left_alone() {
    if root("an_occupied_interface_is_named_and_left_alone") {
        in_own_namespace(|| {
            pair();
            let first = KernelFilter::attach("va", &spare("198.18.0.10")).expect("veth takes XDP programs");
            let before = program_on("va");
            match KernelFilter::attach("va", &spare("198.18.0.11")) {
                Err(LinkError::Occupied { interface, program, id }) => {
                    assert_eq!((interface.as_str(), Some((id, program))), ("va", before.clone()));
                }
                other => panic!("expected an error that names the program there, got {other:?}"),
            }
            assert_eq!(program_on("va"), before);
            drop(first);
        });
    }
}

#[test]
fn an_unknown_interface_is_refused_with_the_names_there_are() {
    if root("an_unknown_interface_is_refused_with_the_names_there_are") {
        in_own_namespace(|| {
            let error = KernelFilter::attach("nope0", &spare("198.18.0.10")).expect_err("there is no such interface");
            assert!(matches!(error, LinkError::UnknownInterface { .. }), "{error:?}");
            assert!(error.to_string().contains("lo"), "{error}");
        });
    }
}

#[test]
fn a_large_mtu_still_gets_a_filter() {
    if root("a_large_mtu_still_gets_a_filter") {
        in_own_namespace(|| {
            pair();
            ip("link set va mtu 9000");
            ip("link set vb mtu 9000");
            let filter = KernelFilter::attach("va", &spare("198.18.0.10")).expect("frames in pieces, or generic mode");
            assert!(filter.mode().is_some());
        });
    }
}

#[test]
fn a_sleeping_receiver_is_woken_by_a_record() {
    if root("a_sleeping_receiver_is_woken_by_a_record") {
        in_own_namespace(|| {
            let mut filter = KernelFilter::load(&spare("198.18.0.10")).expect("the filter loads");
            let mut receiver = filter.add_owner(owner(0)).expect("the ports are free");
            for _ in 0..200 {
                let sleeper = std::thread::spawn(move || {
                    let start = Instant::now();
                    let mut found = 0;
                    while found == 0 {
                        receiver.wait(Duration::from_secs(5)).expect("waiting does not fail");
                        found = receiver.poll(usize::MAX, &mut |_| ()).expect("polling does not fail");
                    }
                    (receiver, start.elapsed())
                });
                filter.rehearse(&syn_ack(true), 1).expect("the program runs");
                let (back, elapsed) = sleeper.join().expect("the receiver does not panic");
                assert!(elapsed < Duration::from_secs(2), "woken after {elapsed:?}");
                receiver = back;
            }
        });
    }
}

/// More than a lane and a ring buffer of a page hold.
const TOO_MANY: u64 = 3000;

#[test]
fn a_ring_that_is_not_drained_counts_what_it_loses() {
    if root("a_ring_that_is_not_drained_counts_what_it_loses") {
        in_own_namespace(|| {
            let mut filter = KernelFilter::load(&spare("198.18.0.10")).expect("the filter loads");
            let mut receiver =
                filter.add_owner(OwnerConfig { ring_bytes: 4096, ..owner(0) }).expect("the ports are free");
            filter.rehearse(&syn_ack(true), TOO_MANY as u32).expect("the program runs");
            let mut times = Vec::new();
            let kept = receiver
                .poll(usize::MAX, &mut |record| times.push(record.time_ns))
                .expect("polling does not fail") as u64;
            assert!(kept > 1024, "{kept}: more than the lane holds, so that the ring buffer holds some");
            assert!(times.is_sorted(), "what found no room in the lane is younger");
            let counters = filter.counters().expect("counters can be read");
            assert_eq!(counters.get(Reason::Delivered), kept);
            assert_eq!(counters.get(Reason::RingFull), TOO_MANY - kept);
            assert_eq!(receiver.overruns(), TOO_MANY - kept);
            assert_eq!(counters.overruns.get(&0), Some(&(TOO_MANY - kept)));
            filter.rehearse(&syn_ack(true), 1).expect("the program runs");
            assert_eq!(
                receiver.poll(usize::MAX, &mut |_| ()).expect("polling does not fail"),
                1,
                "there is room again"
            );
        });
    }
}

#[test]
fn answers_of_every_cpu_are_read_once() {
    if root("answers_of_every_cpu_are_read_once") {
        in_own_namespace(|| {
            let mut filter = KernelFilter::load(&spare("198.18.0.10")).expect("the filter loads");
            let mut receiver = filter.add_owner(owner(0)).expect("the ports are free");
            let cores: Vec<usize> = (0..4096).filter(|core| check(&[*core]).is_ok()).collect();
            // Often enough for each lane to be gone round several times.
            for round in 0..20 {
                for core in &cores {
                    pin(*core).expect("a thread may be bound to a CPU that it may run on");
                    filter.rehearse(&syn_ack(true), 300).expect("the program runs");
                }
                let mut times = Vec::new();
                // In pieces, as a worker reads.
                while receiver.poll(64, &mut |record| times.push(record.time_ns)).expect("polling does not fail") > 0 {}
                assert_eq!(times.len(), 300 * cores.len(), "round {round}");
                times.sort_unstable();
                assert!(times.windows(2).all(|pair| pair[0] != pair[1]), "round {round}: one was read twice");
            }
            assert_eq!(receiver.overruns(), 0);
        });
    }
}

#[test]
fn what_is_not_plain_is_read_although_lanes_are_never_empty() {
    if root("what_is_not_plain_is_read_although_lanes_are_never_empty") {
        in_own_namespace(|| {
            let mut filter = KernelFilter::load(&spare("198.18.0.10")).expect("the filter loads");
            let mut receiver = filter.add_owner(owner(0)).expect("the ports are free");
            filter.rehearse(&arp_request(), 1).expect("the program runs");
            filter.rehearse(&syn_ack(true), 1000).expect("the program runs");
            let mut kinds = Vec::new();
            receiver.poll(8, &mut |record| kinds.push(record.kind)).expect("polling does not fail");
            assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Frame).count(), 1, "{kinds:?}");
            assert_eq!(kinds.len(), 8, "as many as were asked for");
        });
    }
}

#[test]
fn an_exchange_gets_its_segments_in_the_order_they_came() {
    if root("an_exchange_gets_its_segments_in_the_order_they_came") {
        in_own_namespace(|| {
            let mut filter = KernelFilter::load(&spare("198.18.0.10")).expect("the filter loads");
            let exchange = OwnerConfig { max_data: 1000, frames: Frames::Payload, ..owner(0) };
            let mut receiver = filter.add_owner(exchange).expect("the ports are free");
            for frame in [syn_ack(true), data(), syn_ack(true), data()] {
                filter.rehearse(&frame, 1).expect("the program runs");
            }
            let mut kinds = Vec::new();
            receiver.poll(8, &mut |record| kinds.push(record.kind)).expect("polling does not fail");
            assert_eq!(kinds, [Kind::Tcp4, Kind::Frame, Kind::Tcp4, Kind::Frame]);
        });
    }
}

#[test]
fn bpf_and_net_admin_suffice_and_what_is_missing_is_named() {
    if !root("bpf_and_net_admin_suffice_and_what_is_missing_is_named") {
        return;
    }
    // The capabilities belong to the thread, which ends with them.
    let attach = |keep: &'static [u32]| {
        in_own_namespace(move || {
            pair();
            keep_capabilities(keep);
            KernelFilter::attach("va", &spare("198.18.0.10")).map(|_| ())
        })
    };
    const NET_ADMIN: u32 = 12;
    const BPF: u32 = 39;
    attach(&[NET_ADMIN, BPF]).expect("CAP_BPF and CAP_NET_ADMIN suffice");
    for (keep, missing) in [(&[NET_ADMIN][..], "CAP_BPF"), (&[BPF][..], "CAP_NET_ADMIN")] {
        match attach(keep) {
            Err(LinkError::Privilege { capability, .. }) => assert_eq!(capability, missing),
            other => panic!("expected an error that names {missing}, got {other:?}"),
        }
    }
}

/// Drops every effective and permitted capability of this thread but these.
fn keep_capabilities(keep: &[u32]) {
    let set = keep.iter().fold(0u64, |set, capability| set | 1 << capability);
    let (low, high) = (set as u32, (set >> 32) as u32);
    let header: [u32; 2] = [0x2008_0522, 0];
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: capset(2) reads a version-3 header of two words and two triples of words, and changes this thread alone.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(result, 0, "a thread may drop capabilities");
}
