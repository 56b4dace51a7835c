//! The grammar of scripts, one step a line.
//!
//! ```text
//! === name of a case
//! # a comment; `# Rule: RFC 9293 MUST-40` says what the case is for
//! set mtu 576                              a field of Config
//! only plain | only ts                     not with timestamps, or only with them
//! refuse                                   the owner wants no connection
//! on connect send 100, finish              what the owner does at its next connect, data, finish or timeout
//! TIME < FLAGS SEQ(LEN) [ack N] [win N] [<mss 1460, wscale 7, sackOK, sack 1:5 7:9, ts 100, nots>]
//! TIME > FLAGS SEQ(LEN) [ack N] [win N or N..N] [<sack 1:5, ts 100>]
//! TIME >? ...                              the same, if it comes at all
//! TIME >10 ... or <10 ...                  ten segments, each right behind the one before
//! TIME <& ...                              taken in as one batch with the next
//! TIME icmp soft N | hard N | toobig MTU N where N is the sequence number that is quoted
//! TIME event connect | data N | finish | timeout | close WHY
//! TIME quiet | gone | live | reset_all
//! ```
//!
//! TIME is in seconds from the start, or from the line before with a `+`; `0.5~0.2` allows 0.2 s more. Numbers are sums
//! such as `1+2M`: `M` is the effective MSS, `E` the right edge of our window. Sequence numbers count from the SYN of
//! their side; a window is in bytes.

use irl_tcp::{IcmpError, Why};

use super::dialogue::{Act, Moment};
use super::segments::flags_from;

/// A case of a script.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub settings: Vec<(String, u64)>,
    pub plain: bool,
    pub timestamps: bool,
    pub steps: Vec<Step>,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Step {
    pub line: usize,
    pub text: String,
    pub time: Time,
    pub what: What,
}

/// When, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    pub relative: bool,
    pub ns: u64,
    pub tolerance_ns: u64,
}

/// What a line says.
#[derive(Clone, Debug)]
pub enum What {
    Refuse,
    Plan(Moment, Vec<Act>),
    In { shape: Shape, held: bool },
    Out { shape: Shape, optional: bool },
    Icmp(IcmpError, Sum),
    Event(Expected),
    Quiet,
    Gone,
    Live,
    ResetAll,
}

/// An event that has to come. Data may come in any number of pieces.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    Connect,
    Data(Sum),
    Finish,
    Timeout,
    Close(Why),
}

/// A segment as written.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    pub flags: u8,
    /// How many, each behind the one before.
    pub count: u32,
    /// `None` for any: written `*`.
    pub seq: Option<Sum>,
    pub len: Sum,
    pub ack: Option<Sum>,
    pub window: Option<(Sum, Sum)>,
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    pub sacks: Vec<(Sum, Sum)>,
    pub timestamp: Option<i64>,
    pub no_timestamps: bool,
}

/// A sum of numbers, of `M`s and of `E`s.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    number: i64,
    segments: i64,
    edges: i64,
}

impl Sum {
    fn parse(text: &str) -> Result<Self, String> {
        let mut sum = Self::default();
        for term in text.replace('-', "+-").split('+').filter(|term| !term.is_empty()) {
            let (sign, digits) = term.strip_prefix('-').map_or((1, term), |rest| (-1, rest));
            let (digits, place) = match digits.chars().last() {
                Some('M') => (&digits[..digits.len() - 1], &mut sum.segments),
                Some('E') => (&digits[..digits.len() - 1], &mut sum.edges),
                _ => (digits, &mut sum.number),
            };
            let factor =
                if digits.is_empty() { 1 } else { digits.parse().map_err(|_| format!("no number: {text:?}"))? };
            *place += sign * factor;
        }
        Ok(sum)
    }

    /// Its value, for this MSS and this edge.
    pub fn value(&self, mss: i64, edge: i64) -> i64 {
        self.number + self.segments * mss + self.edges * edge
    }
}

/// Reads a file of cases.
pub fn parse(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = line.split_once('#').map_or(line, |(before, _)| before).trim();
        if words.is_empty() {
            continue;
        }
        if let Some(name) = words.strip_prefix("===") {
            let (name, settings, steps) = (name.trim().to_string(), Vec::new(), Vec::new());
            cases.push(Case { name, settings, plain: true, timestamps: true, steps });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{file}:{}: a step before any case", number + 1));
        if let Err(fault) = read_line(case, words, number + 1) {
            panic!("{file}:{}: {fault}: {words}", number + 1);
        }
    }
    cases
}

fn read_line(case: &mut Case, words: &str, line: usize) -> Result<(), String> {
    let (first, rest) = words.split_once(' ').map_or((words, ""), |(first, rest)| (first, rest.trim()));
    let (time, what) = match first {
        "set" => {
            let (field, value) = rest.split_once(' ').unwrap_or((rest, "1"));
            case.settings.push((field.into(), value.trim().parse().map_err(|_| "no number")?));
            return Ok(());
        }
        "only" => {
            (case.plain, case.timestamps) = (rest == "plain", rest == "ts");
            return if case.plain || case.timestamps { Ok(()) } else { Err("only plain, or only ts".into()) };
        }
        "refuse" => (Time { relative: true, ..Time::default() }, What::Refuse),
        "on" => (Time { relative: true, ..Time::default() }, plan(rest)?),
        _ => (time(first)?, step(rest)?),
    };
    case.steps.push(Step { line, text: words.into(), time, what });
    Ok(())
}

fn time(word: &str) -> Result<Time, String> {
    let (relative, word) = word.strip_prefix('+').map_or((false, word), |rest| (true, rest));
    let (at, more) = word.split_once('~').unwrap_or((word, "0"));
    let ns = |text: &str| {
        let seconds: f64 = text.parse().map_err(|_| format!("no time: {text:?}"))?;
        Ok::<_, String>((seconds * 1e9).round() as u64)
    };
    Ok(Time { relative, ns: ns(at)?, tolerance_ns: ns(more)? })
}

fn plan(words: &str) -> Result<What, String> {
    let (moment, acts) = words.split_once(' ').ok_or("on what?")?;
    let moment = match moment {
        "connect" => Moment::Connect,
        "data" => Moment::Data,
        "finish" => Moment::Finish,
        "timeout" => Moment::Timeout,
        _ => return Err(format!("no moment: {moment}")),
    };
    let act = |text: &str| {
        let (verb, number) = text.trim().split_once(' ').unwrap_or((text.trim(), "0"));
        let number = number.trim().parse().map_err(|_| format!("no number: {text}"))?;
        Ok(match verb {
            "send" => Act::Send(number),
            "limit" => Act::Limit(number),
            "within" => Act::Within(number),
            "finish" => Act::Finish,
            "reset" => Act::Reset,
            _ => return Err(format!("nothing an owner does: {verb}")),
        })
    };
    Ok(What::Plan(moment, acts.split(',').map(act).collect::<Result<_, String>>()?))
}

fn step(words: &str) -> Result<What, String> {
    let (verb, rest) = words.split_once(' ').map_or((words, ""), |(verb, rest)| (verb, rest.trim()));
    Ok(match verb {
        "<&" => What::In { shape: shape(rest, 1)?, held: true },
        ">?" => What::Out { shape: shape(rest, 1)?, optional: true },
        _ if verb.starts_with('<') => What::In { shape: shape(rest, count(verb)?)?, held: false },
        _ if verb.starts_with('>') => What::Out { shape: shape(rest, count(verb)?)?, optional: false },
        "quiet" => What::Quiet,
        "gone" => What::Gone,
        "live" => What::Live,
        "reset_all" => What::ResetAll,
        "icmp" => {
            let words: Vec<_> = rest.split_whitespace().collect();
            match words[..] {
                ["soft", seq] => What::Icmp(IcmpError::Soft, Sum::parse(seq)?),
                ["hard", seq] => What::Icmp(IcmpError::Hard, Sum::parse(seq)?),
                ["toobig", mtu, seq] => {
                    What::Icmp(IcmpError::TooBig(mtu.parse().map_err(|_| "no MTU")?), Sum::parse(seq)?)
                }
                _ => return Err("no such ICMP error".into()),
            }
        }
        "event" => What::Event(event(rest)?),
        _ => return Err(format!("no such step: {verb}")),
    })
}

fn event(words: &str) -> Result<Expected, String> {
    let (name, rest) = words.split_once(' ').unwrap_or((words, ""));
    Ok(match name {
        "connect" => Expected::Connect,
        "finish" => Expected::Finish,
        "timeout" => Expected::Timeout,
        "data" => Expected::Data(Sum::parse(rest)?),
        "close" => Expected::Close(match rest {
            "Reset" => Why::Reset,
            "Finished" => Why::Finished,
            "ResetByPeer" => Why::ResetByPeer,
            "TimedOut" => Why::TimedOut,
            "Unreachable" => Why::Unreachable,
            "Aborted" => Why::Aborted,
            _ => return Err(format!("nothing ends so: {rest}")),
        }),
        _ => return Err(format!("no such event: {name}")),
    })
}

fn count(verb: &str) -> Result<u32, String> {
    if verb.len() == 1 { Ok(1) } else { verb[1..].parse().map_err(|_| format!("no such step: {verb}")) }
}

fn shape(words: &str, count: u32) -> Result<Shape, String> {
    let (head, options) = match words.split_once('<') {
        Some((head, options)) => (head, options.strip_suffix('>').ok_or("options end with >")?),
        None => (words, ""),
    };
    let mut shape = Shape { count, ..Shape::default() };
    let mut words = head.split_whitespace();
    let flags = words.next().ok_or("flags?")?;
    shape.flags = if flags == "-" { 0 } else { flags_from(flags).ok_or("no such flags")? };
    let numbers = words.next().and_then(|word| word.strip_suffix(')')).ok_or("SEQ(LEN)?")?;
    let (seq, len) = numbers.split_once('(').ok_or("SEQ(LEN)?")?;
    shape.seq = if seq == "*" { None } else { Some(Sum::parse(seq)?) };
    shape.len = Sum::parse(len)?;
    while let Some(word) = words.next() {
        let value = words.next().ok_or("a number?")?;
        match word {
            "ack" => shape.ack = Some(Sum::parse(value)?),
            "win" => {
                let (least, most) = value.split_once("..").unwrap_or((value, value));
                shape.window = Some((Sum::parse(least)?, Sum::parse(most)?));
            }
            _ => return Err(format!("what is {word}?")),
        }
    }
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once(' ').unwrap_or((option, ""));
        match name {
            "mss" => shape.mss = Some(value.parse().map_err(|_| "an MSS?")?),
            "wscale" => shape.window_scale = Some(value.parse().map_err(|_| "a shift?")?),
            "sackOK" => shape.sack_permitted = true,
            "ts" => shape.timestamp = Some(value.parse().map_err(|_| "a time in ms?")?),
            "nots" => shape.no_timestamps = true,
            "sack" => {
                for block in value.split_whitespace() {
                    let (left, right) = block.split_once(':').ok_or("LEFT:RIGHT?")?;
                    shape.sacks.push((Sum::parse(left)?, Sum::parse(right)?));
                }
            }
            _ => return Err(format!("no such option: {name}")),
        }
    }
    Ok(shape)
}
