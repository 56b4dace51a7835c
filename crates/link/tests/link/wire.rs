//! Two network namespaces joined by a veth pair, and everything gone when the test ends.

use std::io::Write;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use irl_link::netdev::{Interface, Namespace};
use irl_link::policy::{Policy, PolicySettings, Rate, Targets};
use irl_link::{EngineChoice, LinkError, Network, Record, Stack, StackConfig, Worker, WorkerRequest};
use irl_targets::PrefixSet;
use irl_wire::{Key, PortRange, Protocol};
use nix::sched::{CloneFlags, unshare};

/// The near end `va` is ours, the far end `vb` is the kernel of somebody else.
pub(crate) struct Wire {
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
}

pub(crate) const NEAR: &str = "198.18.0.1";
pub(crate) const FAR: &str = "198.18.0.2";
pub(crate) const NEAR6: &str = "fd00:18::1";
pub(crate) const FAR6: &str = "fd00:18::2";

fn namespace() -> Namespace {
    let fresh = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Namespace::current().unwrap()
    });
    fresh.join().unwrap()
}

/// Past the test harness, which swallows what it prints for tests that pass.
fn skipped(needs: &str) -> Option<Wire> {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {} needs {needs}", thread::current().name().unwrap_or("a test"));
    None
}

impl Wire {
    /// For what only the filter in the kernel does; `None`, said aloud, without root or without clang at build time.
    pub(crate) fn with_filter() -> Option<Self> {
        if irl_link::filter::FILTER_BUILT { Self::new() } else { skipped("a build with clang") }
    }

    /// `None`, said aloud, without root.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return skipped("root");
        }
        let (near, far) = (namespace(), namespace());
        // A descriptor's path names the far namespace to the kernel and needs no name that could stay behind.
        near.sh("ip link add va type veth peer name vb");
        far.adopt(&near, "vb");
        for (space, device, v4, v6) in [(&near, "va", NEAR, NEAR6), (&far, "vb", FAR, FAR6)] {
            space.sh(&format!(
                "sysctl -qw net.ipv6.conf.{device}.addr_gen_mode=1 net.ipv6.conf.{device}.accept_ra=0 \
                 net.ipv6.conf.{device}.accept_dad=0 && ip addr add {v4}/24 dev {device} && \
                 ip addr add {v6}/64 dev {device} nodad && ip link set lo up && ip link set {device} up && \
                 ethtool -K {device} tx off tso off gso off gro on >/dev/null"
            ));
        }
        Some(Self { near, far })
    }

    pub(crate) fn near_interface(&self) -> Interface {
        self.near.run(|| Interface::by_name("va")).unwrap()
    }

    pub(crate) fn far_interface(&self) -> Interface {
        self.far.run(|| Interface::by_name("vb")).unwrap()
    }

    pub(crate) fn open(&self, config: StackConfig) -> Result<Stack, LinkError> {
        self.near.run(|| Stack::open(config))
    }

    /// A stack on the near end with these sources.
    pub(crate) fn stack(&self, sources: &[&str], filter: bool) -> Stack {
        self.open(config(sources, filter)).unwrap()
    }
}

pub(crate) fn config(sources: &[&str], filter: bool) -> StackConfig {
    StackConfig {
        interface: Some("va".to_owned()),
        sources: sources.iter().map(|source| ip(source)).collect(),
        filter,
        engine: EngineChoice::Packet,
        ..StackConfig::default()
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs shell commands inside a namespace.
pub(crate) trait Shell {
    fn sh(&self, command: &str);
    fn adopt(&self, from: &Namespace, device: &str);
}

impl Shell for Namespace {
    fn sh(&self, command: &str) {
        let output = self.run(|| Ok(Command::new("sh").args(["-ec", command]).output().unwrap())).unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn adopt(&self, from: &Namespace, device: &str) {
        // The mover runs in `from`; a thread that waits in this namespace lends its /proc entry.
        let (ready, tid) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                self.run(move || {
                    ready.send(nix::unistd::gettid()).unwrap();
                    let _ = wait.recv();
                    Ok(())
                })
                .unwrap();
            });
            let tid = tid.recv().unwrap();
            let path = format!("/proc/{}/task/{tid}/ns/net", std::process::id());
            from.sh(&format!("ip link set {device} netns {path}"));
            drop(done);
        });
    }
}

/// A policy for the far side's network and 10.0.0.0/8.
pub(crate) fn policy(stack: &Stack) -> Arc<Policy> {
    let settings = PolicySettings { rate: Rate::Unlimited, ..stack.policy_settings() };
    let set = |item| PrefixSet::parse_items([item]).unwrap();
    let items: Vec<PrefixSet> = match stack.sources().iter().any(IpAddr::is_ipv4) {
        true => vec![set("198.18.0.0/15"), set("10.0.0.0/8")],
        false => vec![set("fd00::/16")],
    };
    Arc::new(settings.authorise(Targets::Items(&items)).unwrap())
}

pub(crate) fn request(stack: &Stack, protocol: Protocol) -> WorkerRequest {
    WorkerRequest::new(policy(stack), Key::new([7; 16]), PortRange { first: 61000, last: 65535 }, protocol)
}

pub(crate) fn worker(stack: &Stack) -> Worker {
    stack.workers(&request(stack, Protocol::Tcp)).unwrap().pop().unwrap()
}

/// Lets a worker do its round until `done`, or for two seconds; returns whether it was done. Neighbour frames go to the
/// stack, others to `each`.
pub(crate) fn serve(
    stack: &Stack,
    worker: &mut Worker,
    mut each: impl FnMut(&Record<'_>),
    mut done: impl FnMut() -> bool,
) -> Result<bool, LinkError> {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while std::time::Instant::now() < end {
        let gate = &mut worker.gate;
        let mut outcome = Ok(());
        worker.receiver.poll(256, &mut |record| {
            if record.flags & irl_link::record::flags::NEIGHBOUR == 0 {
                each(&record);
            } else if let Err(error) = stack.on_neighbour(record, gate) {
                outcome = Err(error);
            }
        })?;
        outcome?;
        stack.tick(irl_link::clock::now_ns(), gate)?;
        gate.kick()?;
        if done() {
            return Ok(true);
        }
        worker.receiver.wait(std::time::Duration::from_millis(2))?;
    }
    Ok(false)
}
