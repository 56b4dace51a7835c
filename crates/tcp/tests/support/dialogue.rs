//! A dialogue that writes down what it saw, checks every byte, and does what it was told to do next.

use std::collections::VecDeque;

use irl_tcp::{Call, Close, Ended, Segment, Upper, Why};

use super::segments::byte_at;

/// What the dialogue was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Connect,
    Data(u64),
    Finish,
    Timeout,
    Close(Why),
}

/// When the dialogue acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Connect,
    Data,
    Finish,
    Timeout,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Send(u32),
    Finish,
    Reset,
    Limit(u32),
    Within(u32),
}

/// The dialogue. Its peer's stream is number `stream` of [`byte_at`].
#[derive(Debug, Default)]
pub struct Dialogue {
    pub stream: u64,
    pub events: VecDeque<(u64, Event)>,
    /// What it does at the next moment of a kind, one entry a moment, first come first served.
    pub plans: Vec<(Moment, Vec<Act>)>,
    /// SYN-ACKs that it wants no connection for.
    pub refuses: bool,
    /// Bytes that it has asked to be sent.
    pub asked: u64,
    pub received: u64,
    pub ended: Option<Finished>,
    /// What should never be, in words.
    pub faults: Vec<String>,
}

/// What [`Ended`] said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    pub why: Why,
    pub received: u32,
    pub acknowledged: u32,
    pub retransmits: u16,
    pub peer_finished: bool,
}

impl Dialogue {
    fn note(&mut self, call: &Call<'_, u64>, event: Event) {
        self.events.push_back((call.now_ns(), event));
        if self.ended.is_some() {
            self.faults.push(format!("{event:?} after the end"));
        }
    }

    /// Does the first of the things planned for such a moment.
    fn act(&mut self, call: &mut Call<'_, u64>, moment: Moment) {
        let Some(at) = self.plans.iter().position(|(planned, _)| *planned == moment) else { return };
        for act in self.plans.remove(at).1 {
            match act {
                Act::Send(bytes) => self.asked += u64::from(call.send(bytes)),
                Act::Finish => call.close(Close::Finish),
                Act::Reset => call.close(Close::Reset),
                Act::Limit(total) => call.limit(total),
                Act::Within(ms) => call.within(ms),
            }
        }
    }
}

impl Upper for Dialogue {
    type State = u64;

    fn accepts(&mut self, _synack: &Segment, _now_ns: u64) -> Option<u64> {
        (!self.refuses).then_some(self.stream)
    }

    fn on_connect(&mut self, call: &mut Call<'_, u64>) {
        self.note(call, Event::Connect);
        self.act(call, Moment::Connect);
    }

    fn on_data(&mut self, call: &mut Call<'_, u64>, data: &[u8]) {
        if data.is_empty() {
            self.faults.push("an arrival of no bytes".into());
        }
        for (at, byte) in data.iter().enumerate() {
            let offset = self.received + at as u64;
            if *byte != byte_at(self.stream, offset) {
                self.faults.push(format!("byte {offset} of the stream is wrong"));
                break;
            }
        }
        self.received += data.len() as u64;
        if u64::from(call.received()) != self.received {
            self.faults.push(format!("received() is {} after {} bytes", call.received(), self.received));
        }
        self.note(call, Event::Data(data.len() as u64));
        self.act(call, Moment::Data);
    }

    fn on_finish(&mut self, call: &mut Call<'_, u64>) {
        self.note(call, Event::Finish);
        self.act(call, Moment::Finish);
    }

    fn on_timeout(&mut self, call: &mut Call<'_, u64>) {
        self.note(call, Event::Timeout);
        self.act(call, Moment::Timeout);
    }

    fn on_close(&mut self, ended: &Ended<'_, u64>) {
        self.events.push_back((ended.now_ns, Event::Close(ended.why)));
        if self.ended.is_some() {
            self.faults.push("a second end".into());
        }
        if u64::from(ended.received) != self.received {
            self.faults.push(format!("the end speaks of {} bytes, {} came", ended.received, self.received));
        }
        self.ended = Some(Finished {
            why: ended.why,
            received: ended.received,
            acknowledged: ended.acknowledged,
            retransmits: ended.retransmits,
            peer_finished: ended.peer_finished,
        });
    }
}
