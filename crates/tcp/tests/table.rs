//! Many connections at once, and what belongs to no connection.

mod support;

use irl_tcp::{Config, Flow, IcmpError, Options, Segment, Why};
use irl_wire::packet::tcp_flags::{ACK, FIN, PSH, RST, SYN};
use support::farm::{Ending, FIRST_PORT, Farm, Plan};
use support::machine::Machine;
use support::packets::{Header, flow, packet, segment};
use support::segments::bytes_at;
use support::{MS, SECOND};

const START_NS: u64 = 77 * SECOND;

/// A table whose owner begins so many dialogues of a kind.
fn table(count: usize, plan: Plan, change: impl FnOnce(&mut Config)) -> Machine<Farm> {
    let mut config = Config::new([3, 4], false, 5);
    change(&mut config);
    Machine::new(config, START_NS, Farm::new(vec![plan; count]), |farm, flow| farm.asked(flow))
}

fn plan(up: u32, down: u32, ending: Ending) -> Plan {
    Plan { up, down, ending, first: 1000 }
}

fn nth(number: usize) -> Flow {
    flow(FIRST_PORT + number as u16)
}

fn synack(flow: Flow) -> Segment {
    let options = Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..Options::default() };
    Segment { flow, seq: 5000, ack: 1001, flags: SYN | ACK, window: 65_535, options }
}

/// A segment of the peer's, counted from its SYN and ours.
fn from_peer(flow: Flow, flags: u8, seq: u32, ack: u32) -> Segment {
    Segment { flow, seq: 5000 + seq, ack: 1000 + ack, flags, window: 500, options: Options::default() }
}

fn open(machine: &mut Machine<Farm>, count: usize) {
    for number in 0..count {
        machine.receive(synack(nth(number)), &[]);
    }
    assert_eq!(machine.clients.len(), count);
    machine.out.clear();
}

fn sound(machine: &Machine<Farm>) {
    assert!(machine.faults.is_empty() && machine.upper.faults.is_empty(), "{:?}", machine.faults);
}

/// Rule: RFC 5961 7
#[test]
fn challenges_are_limited_over_all_connections() {
    let mut machine = table(1500, plan(0, 1, Ending::TheyFinish), |_| {});
    open(&mut machine, 1500);
    let storm = |machine: &mut Machine<Farm>| {
        machine.out.clear();
        for number in 0..1500 {
            machine.receive(from_peer(nth(number), RST, 7, 0), &[]);
        }
        machine.out.len()
    };
    assert_eq!(storm(&mut machine), 1000);
    assert_eq!(storm(&mut machine), 0);
    machine.advance_to(START_NS + SECOND);
    assert_eq!(storm(&mut machine), 1000);
    assert_eq!((machine.clients.len(), machine.clients.counters().challenges_skipped), (1500, 2500));
    sound(&machine);
}

/// Rule: RFC 5961 3.2, RFC 5961 7
#[test]
fn a_storm_of_resets_at_one_connection_neither_ends_it_nor_draws_more_than_it_sends() {
    let mut machine = table(1, plan(0, 5, Ending::TheyFinish), |_| {});
    open(&mut machine, 1);
    for seq in 0..20_000_u32 {
        let spread = seq.wrapping_mul(0x9e37_79b9) | 2;
        machine.receive(from_peer(nth(0), RST, spread, 0), &[]);
    }
    assert!(machine.out.len() <= 1000, "{} answers", machine.out.len());
    machine.receive(from_peer(nth(0), ACK, 1, 1), &bytes_at(0, 0, 5));
    assert_eq!((machine.clients.len(), machine.upper.ours[0].received), (1, 5));
    sound(&machine);
}

/// Rule: RFC 9293 3.10.7.3
#[test]
fn a_full_table_says_nothing_and_takes_the_next_syn_ack_when_there_is_room() {
    let mut machine = table(3, plan(0, 0, Ending::TheyFinish), |config| config.max_connections = 2);
    open(&mut machine, 2);
    assert!(machine.clients.is_full());
    machine.receive(synack(nth(2)), &[]);
    assert_eq!((machine.out.len(), machine.clients.len(), machine.clients.counters().table_full), (0, 2, 1));
    machine.receive(from_peer(nth(0), RST, 1, 0), &[]);
    machine.receive(synack(nth(2)), &[]);
    assert_eq!((machine.out.len(), machine.clients.len()), (1, 2));
    sound(&machine);
}

/// Rule: RFC 9293 3.10.5
#[test]
fn with_the_whole_table_each_connection_is_reset_once() {
    let mut machine = table(5000, plan(10, 1, Ending::WeFinish), |_| {});
    open(&mut machine, 5000);
    machine.clients.reset_all(START_NS, &mut machine.upper);
    machine.drain();
    let mut resets: Vec<_> =
        machine.out.iter().filter(|(_, sent)| sent.has(RST)).map(|(flow, _)| flow.our_port).collect();
    resets.sort_unstable();
    resets.dedup();
    let aborted = |ours: &support::farm::Ours| ours.ended.is_some_and(|ended| ended.why == Why::Aborted);
    assert_eq!((resets.len(), machine.out.len(), machine.clients.len()), (5000, 5000, 0));
    assert!(machine.upper.ours.iter().all(aborted));
    assert_eq!((machine.clients.next_expiry_ns(), machine.clients.counters().closed()), (None, 5000));
}

/// Rule: RFC 9293 MUST-58, RFC 9293 MUST-59
#[test]
fn a_whole_dialogue_may_come_in_one_batch() {
    let mut machine = table(1, plan(3, 30, Ending::TheyFinish), |_| {});
    machine.receive_all(&[
        (synack(nth(0)), Vec::new()),
        (from_peer(nth(0), ACK | PSH, 1, 1), bytes_at(0, 0, 20)),
        (from_peer(nth(0), ACK | PSH | FIN, 21, 1), bytes_at(0, 20, 10)),
    ]);
    assert_eq!((machine.upper.ours[0].received, machine.upper.ours[0].finishes), (30, 1));
    let (_, only) = &machine.out[0];
    assert_eq!((machine.out.len(), only.len, only.ack, only.has(FIN)), (1, 3, 32, true));
    machine.receive(from_peer(nth(0), ACK, 32, 5), &[]);
    assert_eq!(machine.upper.ours[0].ended.map(|ended| ended.why), Some(Why::Finished));
    sound(&machine);
}

/// Rule: RFC 9293 3.10.7.1
#[test]
fn what_belongs_to_no_connection_draws_one_reset_and_a_reset_draws_none() {
    let mut machine = table(0, plan(0, 0, Ending::WeFinish), |_| {});
    for (flags, data, answer) in [
        (ACK, 0, Some((RST, 1009, 0))),
        (ACK | FIN, 10, Some((RST, 1009, 0))),
        (SYN | ACK, 0, Some((RST, 1009, 0))),
        // What acknowledges nothing is told what it took of the number space.
        (SYN, 0, Some((RST | ACK, 0, 5008))),
        (FIN, 10, Some((RST | ACK, 0, 5018))),
        (0, 10, Some((RST | ACK, 0, 5017))),
        (RST, 0, None),
        (RST | ACK, 0, None),
        (RST | SYN, 0, None),
    ] {
        machine.raw.clear();
        machine.receive(from_peer(nth(0), flags, 7, 9), &vec![0; data]);
        let sent = machine.raw.front().map(|(_, sent)| (sent.flags, sent.seq, sent.ack));
        assert_eq!((sent, machine.raw.len()), (answer, usize::from(answer.is_some())), "flags {flags:#x}");
    }
    machine.icmp(nth(0), 1, IcmpError::Hard);
    assert!(machine.clients.is_empty() && machine.clients.next_expiry_ns().is_none());
}

/// A million strays that nobody asks the answers of fill no memory.
#[test]
fn answers_that_nobody_sends_are_bounded() {
    let config = Config::new([3, 4], false, 5);
    let mut clients = irl_tcp::Clients::<Farm>::new(config, 0);
    let mut farm = Farm::new(Vec::new());
    let mut batch = irl_tcp::Batch::new();
    for number in 0..1_000_000_u32 {
        batch.push(from_peer(nth(number as usize % 20_000), ACK, number, 9), &[]);
        if batch.is_full() {
            clients.receive(1, &mut batch, &mut farm);
        }
    }
    clients.receive(1, &mut batch, &mut farm);
    let answers = std::iter::from_fn(|| clients.transmit(1)).count();
    assert!((1..=1 << 16).contains(&answers), "{answers}");
    assert_eq!(clients.counters().replies_dropped as usize + answers, 1_000_000);
    assert!(clients.memory() < 16 << 20, "{} bytes", clients.memory());
}

/// Rule: RFC 9293 MUST-4, RFC 9293 MUST-5, RFC 9293 MUST-6, RFC 9293 MUST-7, RFC 9293 MUST-64, RFC 9293 MUST-68
#[test]
fn options_of_any_shape_are_read_or_skipped() {
    let shapes: [&[u8]; 9] = [
        &[],
        &[0, 0, 0, 0],
        &[1, 1, 1, 1],
        // Unknown ones, of each length that fits.
        &[254, 2, 253, 4, 0, 0, 252, 2],
        &[254, 8, 1, 2, 3, 4, 5, 6],
        // SACK and timestamps that begin at an odd place.
        &[1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0],
        // Lengths of 0 and 1, and beyond the header.
        &[254, 0, 1, 1],
        &[5, 1, 1, 1],
        &[8, 40, 1, 1],
    ];
    for options in shapes {
        let mut machine = table(1, plan(0, 5, Ending::TheyFinish), |_| {});
        open(&mut machine, 1);
        let header = Header { seq: 5001, ack: 1001, flags: ACK | PSH, window: 500, options };
        let bytes = packet(false, FIRST_PORT, &header, &bytes_at(0, 0, 5));
        let (segment, data) = segment(&bytes).expect("its checksums are right");
        machine.receive(segment, &data);
        assert_eq!(machine.upper.ours[0].received, 5, "{options:?}");
        sound(&machine);
    }
    let unaligned = [1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 4, 2, 0, 0, 0];
    let read = Options::parse(&unaligned);
    assert_eq!((read.timestamps, read.sack_permitted), (Some((7, 9)), true));
}

/// Rule: RFC 9293 MUST-2, RFC 9293 MUST-3
#[test]
fn a_wrong_checksum_ends_before_the_table() {
    let header = Header { seq: 5001, ack: 1001, flags: ACK, window: 500, options: &[] };
    let right = packet(false, FIRST_PORT, &header, b"data");
    assert!(segment(&right).is_some());
    for bit in 0..right.len() * 8 {
        let mut wrong = right.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(segment(&wrong).is_none(), "bit {bit}");
    }
}

#[test]
fn connections_with_the_same_ports_are_told_apart_by_address() {
    let mut machine = table(1, plan(0, 500, Ending::TheyReset), |_| {});
    let of = |address: u16| Flow { ours: address % 5, theirs: 7 + u128::from(address / 5), ..nth(0) };
    for address in 0..500 {
        // Each of them is the owner's only dialogue as far as that knows.
        machine.upper.ours[0].opened = 0;
        machine.receive(synack(of(address)), &[]);
    }
    assert_eq!(machine.clients.len(), 500);
    for address in (0..500).step_by(2) {
        machine.upper.ours[0].ended = None;
        machine.receive(from_peer(of(address), RST, 1, 0), &[]);
    }
    assert_eq!(machine.clients.len(), 250);
    assert!((0..500).all(|address| machine.clients.contains(&of(address)) == (address % 2 == 1)));
}

#[test]
fn memory_does_not_grow_with_the_connections_that_were() {
    let mut machine = table(20_000, plan(1, 5, Ending::WeReset), |_| {});
    let mut sizes = Vec::new();
    for round in 0..4 {
        machine.upper = Farm::new(vec![plan(1, 5, Ending::WeReset); 20_000]);
        open(&mut machine, 20_000);
        for number in 0..20_000 {
            // Something out of order first, so that the rarer parts are in use too.
            machine.receive(from_peer(nth(number), ACK, 3, 2), &bytes_at(number as u64 * 2, 2, 3));
            machine.receive(from_peer(nth(number), ACK, 1, 2), &bytes_at(number as u64 * 2, 0, 2));
        }
        assert_eq!(machine.clients.len(), 0, "round {round}");
        sizes.push(machine.clients.memory());
    }
    assert!(sizes[1..].iter().all(|size| *size == sizes[1]), "{sizes:?}");
    sound(&machine);
}

/// The table counts milliseconds in 32 bits; they wrap after 49 days.
#[test]
fn a_connection_lives_over_the_end_of_the_clock() {
    let mut machine = table(1, plan(10, 5, Ending::WeFinish), |_| {});
    let wrap_ns = START_NS + (u64::from(u32::MAX) + 1) * MS;
    machine.advance_to(wrap_ns - 2500 * MS);
    machine.receive(synack(nth(0)), &[]);
    machine.advance_to(wrap_ns + 10 * SECOND);
    let times: Vec<_> = machine.out.iter().map(|(_, sent)| (sent.at_ns + 2500 * MS - wrap_ns) / (100 * MS)).collect();
    assert_eq!(times, [0, 10, 30, 70], "sent, and again after 1, 2 and 4 seconds");
    machine.receive(from_peer(nth(0), ACK, 1, 11), &bytes_at(0, 0, 5));
    machine.receive(from_peer(nth(0), ACK | FIN, 6, 12), &[]);
    assert_eq!(machine.upper.ours[0].ended.map(|ended| ended.why), Some(Why::Finished));
    sound(&machine);
}
