//! Many dialogues with one table, and their other ends as programs on smoltcp's sockets.

use irl_tcp::{Call, Close, Ended, Flow, Segment, Upper};

use super::dialogue::Finished;
use super::segments::{byte_at, bytes_at};

/// Our ports begin here, one a dialogue.
pub const FIRST_PORT: u16 = 40_000;

/// Who ends a dialogue, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// We finish when all has come; the peer when it sees that.
    WeFinish,
    /// We finish at once, behind our data: the peer's come over a half-closed connection.
    WeFinishAtOnce,
    /// The peer finishes behind its data; we when we see that.
    TheyFinish,
    /// The peer finishes behind its data; we a while after we have seen that, and send something before.
    TheyFinishEarly,
    /// Both finish behind their data, without waiting for each other.
    BothFinish,
    /// We reset when all has come.
    WeReset,
    /// We want only a part of it, and reset then.
    Limit(u32),
    /// The peer resets when it has all of ours.
    TheyReset,
    /// The peer takes our data and says nothing: we lose patience.
    Silence,
}

/// One dialogue: so much up, so much down.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub up: u32,
    pub down: u32,
    pub ending: Ending,
    /// Our SYN's number.
    pub first: u32,
}

/// Our side of one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ours {
    pub opened: u32,
    pub asked: u64,
    pub received: u64,
    pub finishes: u32,
    pub ended: Option<Finished>,
}

/// Our side of all.
#[derive(Debug, Default)]
pub struct Farm {
    pub plans: Vec<Plan>,
    pub ours: Vec<Ours>,
    pub faults: Vec<String>,
    /// Data may be anything: somebody changes them on their way.
    pub hostile: bool,
}

impl Farm {
    pub fn new(plans: Vec<Plan>) -> Self {
        let ours = vec![Ours::default(); plans.len()];
        Self { plans, ours, faults: Vec::new(), hostile: false }
    }

    pub fn asked(&self, flow: Flow) -> u64 {
        self.number(flow).map_or(0, |number| self.ours[number].asked)
    }

    pub fn number(&self, flow: Flow) -> Option<usize> {
        let number = usize::from(flow.our_port.checked_sub(FIRST_PORT)?);
        (number < self.plans.len()).then_some(number)
    }

    fn fault(&mut self, number: u64, what: &str) {
        if self.faults.len() < 10 {
            self.faults.push(format!("dialogue {number}: {what}"));
        }
    }

    fn send(&mut self, call: &mut Call<'_, u64>, number: usize, bytes: u32) {
        self.ours[number].asked += u64::from(call.send(bytes));
    }
}

/// The peer's stream of a dialogue, as [`byte_at`] counts them.
pub fn down_stream(number: usize) -> u64 {
    number as u64 * 2
}

/// Ours.
pub fn up_stream(number: usize) -> u64 {
    number as u64 * 2 + 1
}

/// What a peer that finishes early still gets.
pub const AFTERWARDS: u32 = 3000;

impl Upper for Farm {
    type State = u64;

    fn accepts(&mut self, synack: &Segment, _now_ns: u64) -> Option<u64> {
        let number = self.number(synack.flow)?;
        let answers = synack.ack == self.plans[number].first.wrapping_add(1);
        (answers && self.ours[number].opened == 0).then_some(number as u64)
    }

    fn on_connect(&mut self, call: &mut Call<'_, u64>) {
        let number = *call.state() as usize;
        self.ours[number].opened += 1;
        let patient = !self.hostile && self.plans[number].ending != Ending::TheyReset;
        call.within(if patient { 100_000_000 } else { 600_000 });
        let plan = self.plans[number];
        if plan.up > 0 {
            self.send(call, number, plan.up);
        }
        match plan.ending {
            Ending::WeFinishAtOnce | Ending::BothFinish => call.close(Close::Finish),
            Ending::Limit(bytes) => call.limit(bytes),
            Ending::Silence => call.within(30_000),
            Ending::WeReset if plan.down == 0 => call.close(Close::Reset),
            Ending::WeFinish if plan.down == 0 => call.close(Close::Finish),
            _ => {}
        }
    }

    fn on_data(&mut self, call: &mut Call<'_, u64>, data: &[u8]) {
        let number = *call.state() as usize;
        let offset = self.ours[number].received;
        let stream = down_stream(number);
        if self.hostile {
            self.ours[number].received += data.len() as u64;
            return;
        }
        if let Some(at) = (0..data.len()).find(|at| data[*at] != byte_at(stream, offset + *at as u64)) {
            self.fault(number as u64, &format!("byte {} of what came is wrong", offset + at as u64));
        }
        self.ours[number].received += data.len() as u64;
        let (received, plan) = (self.ours[number].received, self.plans[number]);
        if received > u64::from(plan.down) || data.is_empty() || self.ours[number].finishes > 0 {
            self.fault(number as u64, "more came than was sent");
        }
        match plan.ending {
            Ending::WeFinish if received == u64::from(plan.down) => call.close(Close::Finish),
            Ending::WeReset if received == u64::from(plan.down) => call.close(Close::Reset),
            Ending::Limit(bytes) if received >= u64::from(bytes.min(plan.down)) => call.close(Close::Reset),
            _ => {}
        }
    }

    fn on_finish(&mut self, call: &mut Call<'_, u64>) {
        let number = *call.state() as usize;
        self.ours[number].finishes += 1;
        if self.hostile {
            call.close(Close::Finish);
            return;
        }
        if self.ours[number].finishes > 1 || self.ours[number].received != u64::from(self.plans[number].down) {
            self.fault(number as u64, "the peer's finish came twice or too early");
        }
        match self.plans[number].ending {
            Ending::TheyFinishEarly => {
                self.send(call, number, AFTERWARDS);
                call.within(700);
            }
            _ => call.close(Close::Finish),
        }
    }

    fn on_timeout(&mut self, call: &mut Call<'_, u64>) {
        let number = *call.state() as usize;
        match self.plans[number].ending {
            Ending::TheyFinishEarly if self.ours[number].finishes > 0 => call.close(Close::Finish),
            _ => call.close(Close::Reset),
        }
    }

    fn on_close(&mut self, ended: &Ended<'_, u64>) {
        let number = *ended.state as usize;
        if self.ours[number].ended.is_some() || u64::from(ended.received) != self.ours[number].received {
            self.fault(number as u64, "two ends, or one that speaks of other data");
        }
        self.ours[number].ended = Some(Finished {
            why: ended.why,
            received: ended.received,
            acknowledged: ended.acknowledged,
            retransmits: ended.retransmits,
            peer_finished: ended.peer_finished,
        });
    }
}

/// The peer's side of one.
#[derive(Clone, Debug, Default)]
pub struct Theirs {
    pub read: u64,
    pub wrote: u64,
    pub finished: bool,
    /// The socket has seen our FIN.
    pub heard_finish: bool,
}

impl Theirs {
    /// One turn of the peer's program on its socket.
    pub fn turn(
        &mut self,
        socket: &mut smoltcp::socket::tcp::Socket<'_>,
        number: usize,
        plan: &Plan,
        faults: &mut Vec<String>,
    ) {
        let stream = up_stream(number);
        while socket.can_recv() {
            let read = &mut self.read;
            let outcome = socket.recv(|data| {
                if let Some(at) = (0..data.len()).find(|at| data[*at] != byte_at(stream, *read + *at as u64)) {
                    faults.push(format!("dialogue {number}: byte {} of what the peer got is wrong", *read + at as u64));
                }
                *read += data.len() as u64;
                (data.len(), ())
            });
            if outcome.is_err() {
                break;
            }
        }
        let most = u64::from(plan.up) + if plan.ending == Ending::TheyFinishEarly { u64::from(AFTERWARDS) } else { 0 };
        if self.read > most {
            faults.push(format!("dialogue {number}: the peer got more than was sent"));
        }
        self.heard_finish |= !socket.may_recv();
        if plan.ending == Ending::Silence {
            return;
        }
        // An answer needs a question.
        if self.read < u64::from(plan.up) {
            return;
        }
        if plan.ending == Ending::TheyReset {
            socket.abort();
            return;
        }
        while self.wrote < u64::from(plan.down) && socket.can_send() {
            let left = (u64::from(plan.down) - self.wrote).min(5000) as usize;
            let bytes = bytes_at(down_stream(number), self.wrote, left);
            match socket.send_slice(&bytes) {
                Ok(0) | Err(_) => break,
                Ok(taken) => self.wrote += taken as u64,
            }
        }
        if self.wrote == u64::from(plan.down) && !self.finished {
            let waits = matches!(plan.ending, Ending::WeFinish | Ending::WeReset | Ending::Limit(_));
            if !waits || self.heard_finish {
                socket.close();
                self.finished = true;
            }
        }
    }
}
