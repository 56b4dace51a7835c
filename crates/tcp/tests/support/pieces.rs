//! One stream in pieces of any order and size, against a model that is a set of bytes.

use irl_tcp::{Config, Flow, Options, Segment};
use irl_wire::packet::tcp_flags::{ACK, SYN};

use super::dialogue::Dialogue;
use super::machine::Machine;
use super::segments::{absolute, bytes_at};

/// The stream is so long.
const LENGTH: usize = 6000;
const THEIRS: u32 = u32::MAX - 3000;

/// Takes in pieces, each from an offset on and so long; then what is missing; and says what was wrong.
pub fn take_in(pieces: &[(u16, u16)]) -> Result<(), String> {
    let mut machine =
        Machine::new(Config::new([7, 8], false, 0), 0, Dialogue::default(), |dialogue: &Dialogue, _| dialogue.asked);
    let flow = Flow { ours: 0, our_port: 9, theirs: 1, their_port: 80 };
    let options = Options { sack_permitted: true, window_scale: Some(7), ..Options::default() };
    let synack = Segment { flow, seq: THEIRS, ack: 1, flags: SYN | ACK, window: 9, options };
    machine.receive(synack, &[]);
    machine.out.clear();
    let mut there = vec![false; LENGTH];
    let mut piece = |machine: &mut Machine<Dialogue>, start: usize, len: usize| {
        let seq = absolute(start as i64 + 1, THEIRS);
        let segment = Segment { flow, seq, ack: 1, flags: ACK, window: 9, options: Options::default() };
        let before = machine.upper.received as usize;
        machine.receive(segment, &bytes_at(0, start as u64, len));
        // A piece that is told as kept is there; what has no place may be dropped, but then it is not told.
        there[start..start + len].fill(true);
        let most = there.iter().position(|there| !there).unwrap_or(LENGTH);
        let received = machine.upper.received as usize;
        if received > most || start <= before && received < (start + len).max(before) {
            return Err(format!("{received} bytes came in order, after {before} and {start}..{}", start + len));
        }
        let Some((_, sent)) = machine.out.pop_back() else { return Ok(()) };
        machine.out.clear();
        let Some(&(left, right)) = sent.sacks.first() else { return Ok(()) };
        let (first, last) = (start as i64 + 1, (start + len) as i64 + 1);
        // The first block names the piece, or the part of it that had come before, unless the piece was in order.
        if received == before && (left > last || right < first) {
            return Err(format!("the first block is {left}:{right}, what came is {first}:{last}"));
        }
        Ok(())
    };
    for (start, len) in pieces {
        let start = usize::from(*start) % (LENGTH - 1);
        let len = 1 + usize::from(*len) % 600;
        piece(&mut machine, start, len.min(LENGTH - start))?;
    }
    // Again from the first to the last: now nothing can be missing.
    for start in (0..LENGTH).step_by(500) {
        piece(&mut machine, start, 500)?;
    }
    let faults = [&machine.faults[..], &machine.upper.faults[..]].concat();
    if machine.upper.received as usize != LENGTH || !faults.is_empty() {
        return Err(format!("{} bytes of {LENGTH} came; {faults:?}", machine.upper.received));
    }
    Ok(())
}
