//! The state machine alone, in memory: whole connections a second on one core while millions are alive.
//!
//!     cargo bench -p irl-tcp --bench alone [-- LIVE [CONNECTIONS]]
//!
//! Each connection is a SYN-ACK in, an acknowledgement with a request of 100 bytes out, 100 bytes in, and a RST out. Between
//! a connection's two segments as many others begin and end as are alive, so that each finds its memory cold.

use std::hint::black_box;
use std::time::Instant;

use irl_tcp::{Batch, Call, Clients, Close, Config, Ended, Flow, Options, Segment, Upper};
use irl_wire::packet::tcp_flags;

const REQUEST: u32 = 100;
const RESPONSE: [u8; 100] = [b'x'; 100];

/// Sends a request and resets once it has the response.
#[derive(Default)]
struct Exchange {
    opened: u64,
    complete: u64,
}

impl Upper for Exchange {
    type State = [u64; 2];

    fn accepts(&mut self, _: &Segment, now_ns: u64) -> Option<[u64; 2]> {
        Some([now_ns, 0])
    }

    fn on_connect(&mut self, call: &mut Call<'_, [u64; 2]>) {
        self.opened += 1;
        call.send(REQUEST);
        call.within(60_000);
    }

    fn on_data(&mut self, call: &mut Call<'_, [u64; 2]>, data: &[u8]) {
        if call.received() as usize >= RESPONSE.len() {
            black_box(data);
            call.close(Close::Reset);
        }
    }

    fn on_finish(&mut self, _: &mut Call<'_, [u64; 2]>) {}

    fn on_timeout(&mut self, _: &mut Call<'_, [u64; 2]>) {}

    fn on_close(&mut self, ended: &Ended<'_, [u64; 2]>) {
        self.complete += u64::from(ended.received as usize == RESPONSE.len() && ended.acknowledged == REQUEST);
    }
}

/// The connection of a number: addresses in no order, as a permutation gives them.
fn flow(number: u64) -> Flow {
    let theirs = (number as u32).wrapping_mul(0x9e37_79b1);
    Flow { ours: 0, our_port: 61_000 + (theirs >> 7) as u16 % 4000, theirs: u128::from(theirs), their_port: 80 }
}

fn numbers(number: u64) -> (u32, u32) {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed as u32, (mixed >> 32) as u32)
}

fn segment(number: u64, answer: bool, now_us: u32) -> Segment {
    let (iss, irs) = numbers(number);
    let timestamps = Some((now_us, now_us.wrapping_sub(300)));
    let options = match answer {
        false => {
            Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, timestamps, ..Options::default() }
        }
        true => Options { timestamps, ..Options::default() },
    };
    let (seq, ack, flags) = match answer {
        false => (irs, iss.wrapping_add(1), tcp_flags::SYN | tcp_flags::ACK),
        true => (irs.wrapping_add(1), iss.wrapping_add(1 + REQUEST), tcp_flags::PSH | tcp_flags::ACK),
    };
    Segment { flow: flow(number), seq, ack, flags, window: 512, options }
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|each| each.parse().ok()).collect();
    let live = numbers.first().copied().unwrap_or(4_000_000);
    let connections = numbers.get(1).copied().unwrap_or(8_000_000);
    let mut clients = Clients::new(Config::new([3, 5], false, 0), 0);
    let mut upper = Exchange::default();
    let mut batch = Batch::new();
    let (mut sent, mut now_us) = (0_u64, 1_000_u32);
    let mut turn = |clients: &mut Clients<Exchange>, first: u64, begin: bool, end: bool| {
        // So fast that the answer comes before anything is sent again.
        now_us += 1;
        let now_ns = u64::from(now_us) * 1000;
        for number in first..first + 32 {
            if begin {
                batch.push(segment(number, false, now_us), &[]);
            }
            if end {
                batch.push(segment(number - live, true, now_us), &RESPONSE);
            }
        }
        clients.receive(now_ns, &mut batch, &mut upper);
        while let Some(outgoing) = clients.transmit(now_ns) {
            black_box(&outgoing);
            sent += 1;
        }
        clients.expire(now_ns, &mut upper);
    };
    let before = Instant::now();
    for first in (0..live).step_by(32) {
        turn(&mut clients, first, true, false);
    }
    let filling = before.elapsed();
    let memory = clients.memory();
    let before = Instant::now();
    for first in (live..live + connections).step_by(32) {
        turn(&mut clients, first, true, true);
    }
    let elapsed = before.elapsed();
    assert_eq!((upper.complete, clients.len() as u64), (connections, live), "every connection is complete");
    assert_eq!(sent, live + 2 * connections);
    println!(
        "{live} alive at {:.1} bytes each, opened in {:.2} s; {connections} connections in {:.2} s: {:.2} M/s, {:.0} ns each",
        memory as f64 / live as f64,
        filling.as_secs_f64(),
        elapsed.as_secs_f64(),
        connections as f64 / elapsed.as_secs_f64() / 1e6,
        elapsed.as_secs_f64() * 1e9 / connections as f64,
    );
}
