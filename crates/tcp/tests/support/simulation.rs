//! A network in virtual time between one table and one host of smoltcp's. The seed is all there is to know of a run.

use std::collections::{BTreeMap, BTreeSet};

use irl_tcp::{Config, IcmpError, Segment, Why};
use irl_wire::packet::tcp_flags::{FIN, SYN};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::Socket;

use super::farm::{AFTERWARDS, Ending, FIRST_PORT, Farm, Plan, Theirs};
use super::machine::Machine;
use super::packets::{Header, PORT, THEIRS, flow, packet, segment, syn_options};
use super::random::Random;
use super::segments::bytes_at;
use super::smol::Host;
use super::{MS, SECOND};

/// What the network does to packets, either way.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// In percent.
    pub loss: u64,
    pub duplicate: u64,
    pub corrupt: u64,
    pub delay_ms: u64,
    /// Up to so much more, each packet its own: what makes them overtake each other.
    pub jitter_ms: u64,
    /// The MTU of the way from us to the peer, which routers tell by ICMP.
    pub mtu: u16,
    /// In percent, of the segments for us: somebody changes one thing in them.
    pub changed: u64,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub dialogues: usize,
    pub finished: usize,
    pub retransmits: u64,
    pub tail_probes: u64,
    pub bytes: u64,
    pub packets: u64,
    pub ends: Vec<Option<Why>>,
}

impl Outcome {
    /// Sums up.
    pub fn add(&mut self, other: &Self) {
        self.dialogues += other.dialogues;
        self.finished += other.finished;
        self.retransmits += other.retransmits;
        self.tail_probes += other.tail_probes;
        self.bytes += other.bytes;
        self.packets += other.packets;
    }
}

enum Parcel {
    ToPeer(Vec<u8>),
    ToUs(Vec<u8>),
    Icmp { our_port: u16, seq: u32, mtu: u16 },
    Syn(usize),
}

/// How often a SYN is sent before a dialogue counts as never begun.
const SYNS: u32 = 25;
/// Nothing of a run may take longer.
const END_NS: u64 = 7200 * SECOND;

pub struct Simulation {
    random: Random,
    weather: Weather,
    machine: Machine<Farm>,
    host: Host,
    listening: Vec<SocketHandle>,
    serving: BTreeMap<usize, SocketHandle>,
    theirs: Vec<Theirs>,
    parcels: BTreeMap<(u64, u64), Parcel>,
    syns: Vec<u32>,
    /// Whose FIN has reached us.
    fins: Vec<bool>,
    /// The numbers that SYN-ACKs to a dialogue began with: each socket of the host's that its SYNs opened has its own.
    opened: Vec<BTreeSet<u32>>,
    packets: u64,
    faults: Vec<String>,
    trace: bool,
}

impl Simulation {
    /// Draws everything from the seed.
    pub fn draw(seed: u64) -> Self {
        Self::draw_with(Random(seed), 0)
    }

    /// The same, with somebody on the way who changes what comes. Then streams need not come through, but all has to end.
    pub fn draw_hostile(seed: u64) -> Self {
        let mut random = Random(seed);
        let changed = random.pick(&[1, 5, 20, 60]);
        Self::draw_with(random, changed)
    }

    fn draw_with(mut random: Random, changed: u64) -> Self {
        let weather = Weather {
            loss: random.pick(&[0, 0, 1, 2, 5, 10, 20, 30]),
            duplicate: random.pick(&[0, 0, 1, 5, 20]),
            corrupt: random.pick(&[0, 0, 1, 5]),
            delay_ms: random.pick(&[0, 1, 10, 50, 200]),
            jitter_ms: random.pick(&[0, 0, 1, 10, 100]),
            mtu: random.pick(&[1500, 1500, 1500, 1000, 576]),
            changed,
        };
        let count = random.pick(&[1, 1, 2, 5, 12]);
        let sizes = [0, 1, 100, 1000, 1460, 5000, 20_000, 60_000];
        let plans = (0..count)
            .map(|_| {
                let (mut up, mut down) = (random.pick(&sizes), random.pick(&sizes));
                if random.percent(3) {
                    down = 300_000;
                }
                if random.percent(3) {
                    up = 300_000;
                }
                let part = 1 + random.below(30_000) as u32;
                let ending = random.pick(&[
                    Ending::WeFinish,
                    Ending::WeFinishAtOnce,
                    Ending::TheyFinish,
                    Ending::TheyFinishEarly,
                    Ending::BothFinish,
                    Ending::WeReset,
                    Ending::Limit(part),
                    Ending::TheyReset,
                    Ending::Silence,
                ]);
                // A peer that waits for our end has to have something to send, or we to say so at once.
                if matches!(ending, Ending::Limit(_) | Ending::TheyReset) {
                    (up, down) = (up.max(1), down.max(1));
                }
                Plan { up, down, ending, first: random.next() as u32 }
            })
            .collect();
        Self::new(random, weather, plans)
    }

    fn change(&mut self, segment: &mut Segment, data: &mut Vec<u8>) {
        let random = &mut self.random;
        let by = match random.below(4) {
            0 => 1 + random.below(3) as u32,
            1 => random.below(3000) as u32,
            2 => random.below(1 << 17) as u32,
            _ => random.next() as u32,
        };
        let by = if random.percent(50) { by } else { by.wrapping_neg() };
        match random.below(9) {
            0 | 1 => segment.seq = segment.seq.wrapping_add(by),
            2 | 3 => segment.ack = segment.ack.wrapping_add(by),
            4 => segment.flags ^= 1 << random.below(8),
            5 => segment.window = by as u16,
            6 => {
                if let Some((value, _)) = &mut segment.options.timestamps {
                    *value = value.wrapping_add(by);
                }
            }
            7 => segment.options.sacks.push(segment.ack.wrapping_add(by), segment.ack.wrapping_add(by / 2 + 500)),
            _ => data.resize(random.below(3000) as usize, 7),
        }
    }

    pub fn new(mut random: Random, weather: Weather, plans: Vec<Plan>) -> Self {
        let timestamps = random.percent(50);
        let mut config = Config::new([random.next(), random.next()], false, random.next() as u32);
        if timestamps && random.percent(20) || random.percent(10) {
            config.timestamp_offset = None;
        }
        config.sack_permitted = !random.percent(20);
        config.window = random.pick(&[2000, 20_000, 65_535, 256 << 10]);
        config.max_retransmits = 30;
        config.linger = 100_000_000;
        config.patience = 100_000_000;
        config.min_rto = random.pick(&[200, 1000]);
        config.tail_loss_probe = random.percent(70);
        if weather.changed > 0 {
            (config.linger, config.patience) = (600_000, 600_000);
        }
        let start_ns = random.pick(&[0, 1_234_567, 4_294_000 * MS, u64::from(u32::MAX) * MS - 20 * SECOND]);
        let mut host = Host::new(THEIRS, 1500, random.next());
        let buffer = random.pick(&[1000, 10_000, 65_535, 200_000]);
        let count = plans.len();
        let mut listening = Vec::new();
        for _ in 0..count + 2 {
            let handle = host.socket(buffer, timestamps);
            host.sockets.get_mut::<Socket<'_>>(handle).listen(PORT).expect("a fresh socket can listen");
            listening.push(handle);
        }
        let farm = Farm { hostile: weather.changed > 0, ..Farm::new(plans) };
        let machine = Machine::new(config, start_ns, farm, |farm, flow| farm.asked(flow));
        let mut simulation = Self {
            random,
            weather,
            machine,
            host,
            listening,
            serving: BTreeMap::new(),
            theirs: vec![Theirs::default(); count],
            parcels: BTreeMap::new(),
            syns: vec![0; count],
            fins: vec![false; count],
            opened: vec![BTreeSet::new(); count],
            packets: 0,
            faults: Vec::new(),
            trace: std::env::var_os("IRL_TRACE").is_some(),
        };
        for number in 0..count {
            let at_ns = start_ns + simulation.random.below(100) * MS;
            simulation.post(at_ns, Parcel::Syn(number));
        }
        simulation
    }

    /// Says what goes on, where somebody wants to know: `IRL_TRACE=1`.
    fn tell(&self, what: &str, bytes: &[u8]) {
        if self.trace {
            let text = smoltcp::wire::PrettyPrinter::<smoltcp::wire::Ipv4Packet<&[u8]>>::new("", &bytes);
            println!("{:>14} {what} {}", self.machine.now_ns, format!("{text}").replace('\n', " "));
        }
    }

    fn post(&mut self, at_ns: u64, parcel: Parcel) {
        self.packets += 1;
        self.parcels.insert((at_ns, self.packets), parcel);
    }

    /// Sends a packet into the weather. Times are rounded, so that some arrive together.
    fn send(&mut self, bytes: Vec<u8>, to_peer: bool) {
        let now_ns = self.machine.now_ns;
        if to_peer && bytes.len() > usize::from(self.weather.mtu) {
            let our_port = u16::from_be_bytes([bytes[20], bytes[21]]);
            let seq = u32::from_be_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
            if !self.random.percent(self.weather.loss) {
                let icmp = Parcel::Icmp { our_port, seq, mtu: self.weather.mtu };
                self.post(now_ns + self.weather.delay_ms * MS, icmp);
            }
            return;
        }
        if self.random.percent(self.weather.loss) {
            self.tell(if to_peer { "lost >" } else { "lost <" }, &bytes);
            return;
        }
        self.tell(if to_peer { ">" } else { "<" }, &bytes);
        let copies = 1 + u32::from(self.random.percent(self.weather.duplicate));
        for _ in 0..copies {
            let late = self.weather.delay_ms * MS + self.random.below(self.weather.jitter_ms * MS + 1);
            let at_ns = (now_ns + late).next_multiple_of(MS / 4);
            let mut bytes = bytes.clone();
            if self.random.percent(self.weather.corrupt) {
                // One bit: every checksum sees that.
                let at = self.random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.random.below(8);
            }
            let parcel = if to_peer { Parcel::ToPeer(bytes) } else { Parcel::ToUs(bytes) };
            self.post(at_ns, parcel);
        }
    }

    /// Runs to the end, and says what is wrong.
    pub fn run(mut self) -> Result<Outcome, String> {
        loop {
            let parcel_at = self.parcels.keys().next().map(|(at_ns, _)| *at_ns);
            let now_ns = self.machine.now_ns;
            let timer_at = self.machine.clients.next_expiry_ns();
            let host_at = self.host.poll_at(now_ns);
            let Some(at_ns) = [parcel_at, timer_at, host_at].into_iter().flatten().min() else { break };
            // A host that only keeps knocking on our closed door has nothing to do with us.
            if parcel_at.is_none() && timer_at.is_none() && self.all_over() {
                break;
            }
            if at_ns.saturating_sub(now_ns) > END_NS || self.packets > 2_000_000 {
                return Err(format!("no end: {} packets, {} connections", self.packets, self.machine.clients.len()));
            }
            self.machine.advance_to(at_ns.max(now_ns));
            self.deliver();
            self.serve();
            self.collect();
        }
        self.judge()
    }

    fn all_over(&self) -> bool {
        let over = |number: usize| self.machine.upper.ours[number].ended.is_some() || self.syns[number] >= SYNS;
        (0..self.theirs.len()).all(over) && self.machine.clients.is_empty()
    }

    fn deliver(&mut self) {
        let now_ns = self.machine.now_ns;
        let mut batch = Vec::new();
        while let Some(entry) = self.parcels.first_entry()
            && entry.key().0 <= now_ns
        {
            match entry.remove() {
                Parcel::ToPeer(bytes) => self.host.wire.inbox.push_back(bytes),
                Parcel::ToUs(bytes) => {
                    let Some((mut segment, mut data)) = segment(&bytes) else { continue };
                    if self.random.percent(self.weather.changed) {
                        self.change(&mut segment, &mut data);
                        if self.trace {
                            println!("{:>14} < changed to {segment:?} with {} bytes", self.machine.now_ns, data.len());
                        }
                    }
                    if let Some(number) = self.machine.upper.number(segment.flow) {
                        self.fins[number] |= segment.flags & FIN != 0;
                    }
                    batch.push((segment, data));
                }
                Parcel::Icmp { our_port, seq, mtu } => {
                    self.machine.icmp(flow(our_port), seq, IcmpError::TooBig(mtu));
                }
                Parcel::Syn(number) => self.syn(number),
            }
        }
        for piece in batch.chunks(64) {
            self.machine.receive_all(piece);
        }
    }

    /// A SYN, as a probe sends it, and later passes over the silent.
    fn syn(&mut self, number: usize) {
        if self.machine.upper.ours[number].opened > 0 || self.syns[number] >= SYNS {
            return;
        }
        self.syns[number] += 1;
        let (config, now_ns) = (self.machine.config, self.machine.now_ns);
        let stamp = config.timestamp_offset.map(|offset| ((now_ns / 1000) as u32).wrapping_add(offset));
        let mut options = syn_options(1460, stamp);
        if !config.sack_permitted {
            options[4..6].fill(1);
        }
        let seq = self.machine.upper.plans[number].first;
        let header = Header { seq, flags: SYN, window: config.syn_window, options: &options, ..Header::default() };
        let bytes = packet(true, FIRST_PORT + number as u16, &header, &[]);
        self.send(bytes, true);
        self.post(now_ns + 1500 * MS, Parcel::Syn(number));
    }

    /// Polls the host, and gives each of its programs its turn.
    fn serve(&mut self) {
        let now_ns = self.machine.now_ns;
        let mut out = self.host.poll(now_ns);
        self.listening.retain(|handle| {
            let socket = self.host.sockets.get::<Socket<'_>>(*handle);
            let Some(remote) = socket.remote_endpoint().filter(|_| socket.may_recv() || socket.may_send()) else {
                return true;
            };
            let number = usize::from(remote.port.wrapping_sub(FIRST_PORT));
            // A SYN that comes late finds another socket listening; its SYN-ACK is refused.
            self.serving.entry(number).or_insert(*handle);
            self.serving.get(&number) != Some(handle)
        });
        for (number, handle) in &self.serving {
            let socket = self.host.sockets.get_mut::<Socket<'_>>(*handle);
            if let (Some(theirs), Some(plan)) = (self.theirs.get_mut(*number), self.machine.upper.plans.get(*number)) {
                theirs.turn(socket, *number, plan, &mut self.faults);
            }
        }
        out.extend(self.host.poll(now_ns));
        for bytes in out {
            if let Some((segment, _)) = segment(&bytes)
                && segment.flags & SYN != 0
                && let Some(number) = self.machine.upper.number(segment.flow)
            {
                self.opened[number].insert(segment.seq);
            }
            self.send(bytes, false);
        }
    }

    /// Puts on the wire what the table wants to send.
    fn collect(&mut self) {
        while let Some((flow, out)) = self.machine.raw.pop_front() {
            let data =
                bytes_at(u64::from(flow.our_port - FIRST_PORT) * 2 + 1, u64::from(out.offset), usize::from(out.len));
            let header =
                Header { seq: out.seq, ack: out.ack, flags: out.flags, window: out.window, options: &out.options };
            let bytes = packet(true, flow.our_port, &header, &data);
            self.send(bytes, true);
        }
        self.machine.out.clear();
    }

    fn judge(self) -> Result<Outcome, String> {
        let Self { machine, theirs, weather, syns, fins, opened, packets, mut faults, .. } = self;
        if weather.changed > 0 {
            // What the peer reads is right all the same, but its streams may not be whole.
            faults.clear();
        }
        faults.extend(machine.faults.iter().take(5).cloned());
        faults.extend(machine.upper.faults.iter().cloned());
        if !machine.clients.is_empty() || machine.clients.next_expiry_ns().is_some() || machine.clients.has_output() {
            faults.push(format!("{} connections are left", machine.clients.len()));
        }
        let tail_probes = machine.clients.counters().tail_probes;
        let mut outcome = Outcome { dialogues: theirs.len(), packets, tail_probes, ..Outcome::default() };
        let lossy = weather.loss > 0 || weather.corrupt > 0;
        for (number, theirs) in theirs.iter().enumerate() {
            let (plan, ours) = (machine.upper.plans[number], machine.upper.ours[number]);
            outcome.ends.push(ours.ended.map(|ended| ended.why));
            let Some(ended) = ours.ended else {
                if syns[number] < SYNS || ours.opened > 0 {
                    faults.push(format!("dialogue {number}: no end"));
                }
                continue;
            };
            outcome.retransmits += u64::from(ended.retransmits);
            outcome.bytes += ours.received + u64::from(ended.acknowledged);
            let up = plan.up + if plan.ending == Ending::TheyFinishEarly { AFTERWARDS } else { 0 };
            let all_down = ours.received == u64::from(plan.down);
            let there = all_down && theirs.read == u64::from(up);
            let intact = there && ended.acknowledged == up;
            let right = match plan.ending {
                Ending::WeFinish
                | Ending::WeFinishAtOnce
                | Ending::BothFinish
                | Ending::TheyFinish
                | Ending::TheyFinishEarly => {
                    // A peer's TIME-WAIT can be over before its last acknowledgement comes through: then it knows
                    // nothing of us, and says so.
                    let forgotten = lossy && there && ended.why == Why::ResetByPeer && ended.retransmits > 0;
                    // smoltcp 0.14 now and then does not send again a FIN that was lost, when acknowledgements of the
                    // data before it follow. Then our deadline ends it.
                    let stuck = lossy && theirs.finished && !fins[number] && all_down && ended.why == Why::Reset;
                    intact && ended.why == Why::Finished || forgotten || stuck
                }
                Ending::WeReset => ended.why == Why::Reset && all_down,
                Ending::Limit(bytes) => ended.why == Why::Reset && ours.received >= u64::from(bytes.min(plan.down)),
                // A reset is sent once. Without it we wait until our deadline, or for acknowledgements in vain.
                Ending::TheyReset => {
                    ended.why == Why::ResetByPeer || lossy && matches!(ended.why, Why::TimedOut | Why::Reset)
                }
                Ending::Silence => ended.why == Why::Reset && ours.received == 0,
            };
            // A SYN that comes again, maybe after our data, may open another of smoltcp's sockets, which answers with another
            // number. What we send then may reach the socket that knows nothing of us, which resets.
            let other_socket = opened[number].len() > 1 && ended.why == Why::ResetByPeer;
            outcome.finished += usize::from(intact);
            if !right && weather.changed == 0 && !other_socket {
                faults.push(format!(
                    "dialogue {number} of {plan:?} ended so: {ended:?}; the peer read {} and wrote {}",
                    theirs.read, theirs.wrote
                ));
            }
        }
        if faults.is_empty() { Ok(outcome) } else { Err(format!("{weather:?}\n  {}", faults.join("\n  "))) }
    }
}
