//! A World's hosts and an impaired link as running things: threads in the namespace where the interfaces are.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use irl_link::LinkError;
use irl_link::netdev::Interface;
use irl_targets::PrefixSet;
use nix::sched::{CloneFlags, setns};

use crate::impairment::{Impairment, LineCounters};
use crate::relay::relay;
use crate::responder::{Hold, Responder};
use crate::serve::{ServeCounters, serve};
use crate::service::Service;
use crate::world::World;
use crate::xdp::{RESPONDER_BUILT, XdpCounters, XdpResponder};

/// A thread in a namespace, until it is stopped or dropped.
#[derive(Debug)]
struct Task {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), LinkError>>>,
}

impl Task {
    /// Starts `body` in the network namespace `netns` (a name below /run/netns; `None` for this thread's own) and returns
    /// what it says first: when its `ready` is sent.
    fn start<T: Send + 'static>(
        netns: Option<&str>,
        name: &str,
        body: impl FnOnce(&AtomicBool, SyncSender<T>) -> Result<(), LinkError> + Send + 'static,
    ) -> Result<(Self, T), LinkError> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let namespace = match netns {
            None => File::open("/proc/thread-self/ns/net"),
            Some(name) => File::open(Path::new("/run/netns").join(name)),
        };
        let namespace = namespace.map_err(|error| LinkError::os("opening the network namespace", error))?;
        let (ready, wait) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| LinkError::os("entering the network namespace", errno.into()))?;
                body(&seen, ready)
            })
            .map_err(|error| LinkError::os("starting a thread", error))?;
        let mut task = Self { stop, thread: Some(thread) };
        match wait.recv() {
            Ok(first) => Ok((task, first)),
            // It ended before it was ready: its error says why.
            Err(_) => Err(task.close().err().unwrap_or_else(|| LinkError::config("the thread ended before it began"))),
        }
    }

    fn close(&mut self) -> Result<(), LinkError> {
        self.stop.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(LinkError::config("the thread panicked; its message is on standard error")),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.close();
    }
}

/// The hosts of a World at the end of a link.
#[derive(Debug)]
pub struct Hosts {
    task: Task,
    counters: Arc<ServeCounters>,
    hold: Arc<Hold>,
    kernel: Option<Arc<Mutex<XdpResponder>>>,
}

/// What [`Hosts`] did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// In the kernel; zeros without it.
    pub kernel: XdpCounters,
    /// Frames to our hosts that reached user space.
    pub received: u64,
    /// Answers from there.
    pub answered: u64,
    /// Answers from there that found the device's queue full.
    pub dropped: u64,
    /// Segments swallowed there while on hold.
    pub held: u64,
}

impl Hosts {
    /// Answers for the addresses in `ranges`, with a service behind open ports, on an interface of a namespace: in the kernel when `kernel` is set and this
    /// build can, and in user space for the rest. Returns once it answers.
    ///
    /// # Errors
    /// Those of [`XdpResponder::attach`] and [`serve`].
    pub fn start(
        netns: Option<&str>,
        interface: &str,
        world: World,
        ranges: Vec<PrefixSet>,
        service: Service,
        kernel: bool,
    ) -> Result<Self, LinkError> {
        let counters = Arc::new(ServeCounters::default());
        let seen = Arc::clone(&counters);
        let hold = Arc::new(Hold::default());
        let held = Arc::clone(&hold);
        let interface = interface.to_owned();
        let (task, responder) = Task::start(netns, "irl-hosts", move |stop, ready| {
            let mac = Interface::by_name(&interface)?.mac;
            let responder = if kernel && RESPONDER_BUILT {
                Some(Arc::new(Mutex::new(XdpResponder::attach(&interface, &world, &ranges, service)?)))
            } else {
                None
            };
            let mut user = Responder::new(world, mac).with_service(service).with_hold(held);
            serve(&interface, &mut user, &ranges, stop, &seen, || {
                // Nobody waits any more only when the starter is gone.
                let _ = ready.send(responder);
            })
        })?;
        Ok(Self { task, counters, hold, kernel: responder })
    }

    /// What they did so far.
    ///
    /// # Errors
    /// Those of [`XdpResponder::counters`].
    pub fn counters(&self) -> Result<HostCounters, LinkError> {
        let kernel = match &self.kernel {
            Some(kernel) => kernel.lock().unwrap_or_else(PoisonError::into_inner).counters()?,
            None => XdpCounters::default(),
        };
        Ok(HostCounters {
            kernel,
            received: self.counters.received.load(Ordering::Relaxed),
            answered: self.counters.answered.load(Ordering::Relaxed),
            dropped: self.counters.dropped.load(Ordering::Relaxed),
            held: self.hold.swallowed(),
        })
    }

    /// Holds every dialogue, or goes on: see [`XdpResponder::hold`].
    ///
    /// # Errors
    /// Those of [`XdpResponder::hold`].
    pub fn hold(&self, hold: bool) -> Result<(), LinkError> {
        self.hold.set(hold);
        match &self.kernel {
            Some(kernel) => kernel.lock().unwrap_or_else(PoisonError::into_inner).hold(hold),
            None => Ok(()),
        }
    }

    /// Whether the kernel answers too.
    pub fn in_kernel(&self) -> bool {
        self.kernel.is_some()
    }

    /// Stops answering; nothing stays attached.
    ///
    /// # Errors
    /// What ended the loop before.
    pub fn close(&mut self) -> Result<(), LinkError> {
        self.kernel = None;
        self.task.close()
    }
}

/// An impaired link.
#[derive(Debug)]
pub struct Relay {
    task: Task,
    counters: Arc<Mutex<[LineCounters; 2]>>,
}

impl Relay {
    /// Forwards between two interfaces of a namespace. Returns once it does.
    ///
    /// # Errors
    /// Those of [`relay`].
    pub fn start(netns: Option<&str>, near: &str, far: &str, impairment: Impairment) -> Result<Self, LinkError> {
        let counters = Arc::new(Mutex::default());
        let seen = Arc::clone(&counters);
        let (near, far) = (near.to_owned(), far.to_owned());
        let (task, ()) = Task::start(netns, "irl-relay", move |stop, ready| {
            relay(&near, &far, &impairment, stop, &seen, || {
                let _ = ready.send(());
            })
        })?;
        Ok(Self { task, counters })
    }

    /// What the link did to frames so far: from us, to us.
    pub fn counters(&self) -> [LineCounters; 2] {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops forwarding.
    ///
    /// # Errors
    /// What ended the loop before.
    pub fn close(&mut self) -> Result<(), LinkError> {
        self.task.close()
    }
}
