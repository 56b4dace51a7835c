use proptest::prelude::*;

use super::super::session::{Delimiter, Until};
use super::*;

const MS: u64 = 1_000_000;

fn sessions(until: Until) -> Sessions {
    Sessions::new(Dialogue { until, close: Close::Reset }, Plain, 1000, 5000)
}

fn delimiter(bytes: &[u8]) -> Until {
    Until::Delimiter(Delimiter::new(bytes).expect("it has bytes"))
}

/// Its SYN left at 100 ms.
fn connected() -> State {
    State::new(120 * MS, Some(20 * MS), 7)
}

fn end(why: Why, received: u64) -> End {
    End { now_ns: 200 * MS, why, received, acknowledged: true, retransmits: 1 }
}

#[test]
fn the_request_goes_when_the_connection_is_there() {
    let mut sessions = sessions(Until::Close);
    let steps = sessions.on_connect(&mut connected(), 18);
    assert_eq!(steps, Steps { send: 18, within_ms: Some(5000), limit: Some(1001), close: None });
    let steps = sessions.on_connect(&mut connected(), 0);
    assert_eq!(steps.send, 0);
    assert_eq!(sessions.memory(), 0, "nothing is kept while nothing has come");
}

#[test]
fn until_the_peer_closes_all_that_comes_is_the_response() {
    let mut sessions = sessions(Until::Close);
    let mut state = connected();
    sessions.on_connect(&mut state, 4);
    assert_eq!(sessions.on_data(&mut state, 130 * MS, b"one "), Steps::default());
    assert_eq!(sessions.on_data(&mut state, 140 * MS, b"two"), Steps::default());
    assert_eq!(sessions.row(state), 7);
    assert_eq!(sessions.on_finish(&mut state).close, Some(Close::Reset));
    let closed = sessions.on_close(state, end(Why::Reset, 7));
    assert_eq!((closed.row, closed.began_ns, closed.response), (7, 100 * MS, &b"one two"[..]));
    let ending = Ending {
        status: Status::Success,
        stage: Stage::Close,
        closed_by: Some(ClosedBy::Peer),
        connect_ns: Some(20 * MS),
        first_byte_ns: Some(30 * MS),
        close_ns: Some(100 * MS),
        retransmits: 1,
        bytes: 7,
        truncated: false,
    };
    assert_eq!(closed.ending, ending);
}

#[test]
fn without_timestamps_there_is_no_duration_and_the_time_is_the_syn_acks() {
    let mut sessions = sessions(Until::Bytes(1));
    let mut state = State::new(120 * MS, None, State::NO_ROW);
    sessions.on_connect(&mut state, 1);
    sessions.on_data(&mut state, 130 * MS, b"x");
    let closed = sessions.on_close(state, end(Why::Reset, 1));
    assert_eq!((closed.began_ns, closed.row), (120 * MS, State::NO_ROW));
    let Ending { connect_ns, first_byte_ns, close_ns, .. } = closed.ending;
    assert_eq!((connect_ns, first_byte_ns, close_ns), (None, None, None));
}

#[test]
fn a_number_of_bytes_ends_it_and_what_is_beyond_is_dropped() {
    let mut sessions = sessions(Until::Bytes(5));
    let mut state = connected();
    assert_eq!(sessions.on_connect(&mut state, 4).limit, Some(5));
    assert_eq!(sessions.on_data(&mut state, 130 * MS, b"abc").close, None);
    assert_eq!(sessions.on_data(&mut state, 131 * MS, b"defg").close, Some(Close::Reset));
    assert_eq!(sessions.on_data(&mut state, 132 * MS, b"late"), Steps::default());
    let closed = sessions.on_close(state, end(Why::Reset, 11));
    assert_eq!((closed.response, closed.ending.bytes, closed.ending.truncated), (&b"abcde"[..], 11, false));
    assert_eq!((closed.ending.status, closed.ending.closed_by), (Status::Success, Some(ClosedBy::Us)));
}

#[test]
fn a_response_longer_than_is_kept_is_cut_and_says_so() {
    for (len, cut) in [(1000, false), (1001, true)] {
        let mut sessions = sessions(Until::Close);
        let mut state = connected();
        sessions.on_connect(&mut state, 4);
        sessions.on_data(&mut state, 130 * MS, &[b'x'; 999]);
        let steps = sessions.on_data(&mut state, 130 * MS, &vec![b'x'; len - 999]);
        assert_eq!(steps.close.is_some(), cut);
        sessions.on_finish(&mut state);
        let closed = sessions.on_close(state, end(Why::Reset, len as u64));
        assert_eq!((closed.response.len(), closed.ending.truncated), (1000, cut));
        assert_eq!(closed.ending.status, Status::Success);
    }
}

#[test]
fn a_peer_that_closes_too_early_is_told_from_one_that_is_late() {
    for (until, data, why, status, by) in [
        (Until::Close, &b""[..], Why::Finished, Status::ConnectionClosed, Some(ClosedBy::Peer)),
        (Until::Bytes(9), b"short", Why::Finished, Status::ConnectionClosed, Some(ClosedBy::Peer)),
        (delimiter(b"\n"), b"no end", Why::Finished, Status::ConnectionClosed, Some(ClosedBy::Peer)),
        (Until::Close, b"half", Why::ResetByPeer, Status::ConnectionClosed, Some(ClosedBy::Peer)),
        (Until::Close, b"", Why::Reset, Status::IoTimeout, Some(ClosedBy::Us)),
        (Until::Close, b"half", Why::TimedOut, Status::IoTimeout, None),
        (Until::Close, b"", Why::Unreachable, Status::UnknownError, None),
        (Until::Close, b"half", Why::Aborted, Status::UnknownError, Some(ClosedBy::Us)),
    ] {
        let mut sessions = sessions(until);
        let mut state = connected();
        sessions.on_connect(&mut state, 4);
        if !data.is_empty() {
            sessions.on_data(&mut state, 130 * MS, data);
        }
        match why {
            Why::Finished => drop(sessions.on_finish(&mut state)),
            Why::Reset => drop(sessions.on_timeout(&mut state)),
            _ => {}
        }
        let closed = sessions.on_close(state, end(why, data.len() as u64));
        assert_eq!((closed.ending.status, closed.ending.closed_by), (status, by), "{why:?} {data:?}");
        assert_eq!((closed.ending.stage, closed.response), (Stage::Response, data));
    }
}

#[test]
fn a_request_that_nobody_acknowledged_is_where_it_ended() {
    let mut sessions = sessions(Until::Close);
    let closed = sessions.on_close(connected(), End { acknowledged: false, ..end(Why::TimedOut, 0) });
    assert_eq!(closed.ending.stage, Stage::Request);
}

#[test]
fn what_comes_after_the_end_changes_nothing() {
    let mut sessions = sessions(Until::Bytes(1));
    let mut state = connected();
    sessions.on_connect(&mut state, 4);
    assert!(sessions.on_data(&mut state, 130 * MS, b"x").close.is_some());
    assert_eq!(sessions.on_finish(&mut state), Steps::default());
    assert_eq!(sessions.on_timeout(&mut state), Steps::default());
    assert_eq!(sessions.on_close(state, end(Why::TimedOut, 1)).ending.status, Status::Success);
}

#[test]
fn memory_is_used_again() {
    let mut sessions = sessions(Until::Close);
    for _ in 0..1000 {
        let mut states = [connected(); 8];
        for state in &mut states {
            sessions.on_data(state, 130 * MS, &[0; 300]);
        }
        for state in states {
            assert_eq!(sessions.on_close(state, end(Why::Aborted, 300)).response, [0; 300]);
        }
    }
    assert!(sessions.memory() < 16 * 1024, "{}", sessions.memory());
}

proptest! {
    #[test]
    fn a_delimiter_is_found_wherever_segments_end(
        data in "[ab]{0,40}",
        mark in "[ab]{1,6}",
        cuts in proptest::collection::vec(1usize..9, 40)
    ) {
        let mut sessions = sessions(delimiter(mark.as_bytes()));
        let mut state = connected();
        sessions.on_connect(&mut state, 4);
        let (mut rest, mut closed) = (data.as_bytes(), false);
        for cut in cuts {
            let (segment, after) = rest.split_at(cut.min(rest.len()));
            if segment.is_empty() || closed {
                break;
            }
            closed = sessions.on_data(&mut state, 130 * MS, segment).close.is_some();
            rest = after;
        }
        let there = data.find(&mark).map(|at| at + mark.len());
        prop_assert_eq!(closed, there.is_some());
        let kept = sessions.on_close(state, end(Why::Aborted, 0)).response;
        prop_assert_eq!(kept, &data.as_bytes()[..there.unwrap_or(data.len())]);
    }

    #[test]
    fn buffers_are_accounted_to_the_byte(
        steps in proptest::collection::vec((0usize..6, 0usize..40_000, any::<bool>()), 1..80)
    ) {
        let dialogue = Dialogue { until: Until::Close, close: Close::Reset };
        let mut sessions = Sessions::new(dialogue, Plain, 100_000, 1);
        let mut states = [connected(); 6];
        for (which, len, close) in steps {
            if close {
                sessions.on_close(states[which], end(Why::Aborted, 0));
                states[which] = connected();
            } else {
                sessions.on_data(&mut states[which], 1, &vec![1; len]);
            }
            let entries: usize = sessions.entries.iter().map(|entry| entry.response.capacity()).sum();
            let spare: usize = sessions.spare.iter().map(Vec::capacity).sum();
            prop_assert_eq!(sessions.buffers, entries + spare + sessions.last.capacity());
            prop_assert_eq!(sessions.held(), entries);
        }
    }
}
