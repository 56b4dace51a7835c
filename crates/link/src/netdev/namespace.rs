//! Network namespaces: which one a thread is in, and how to do something inside another.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::error::LinkError;

/// A network namespace, kept from going away.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    inode: u64,
}

impl Namespace {
    /// The calling thread's.
    ///
    /// # Errors
    /// [`LinkError::Os`] without /proc.
    pub fn current() -> Result<Self, LinkError> {
        let open = || {
            let file = File::open("/proc/thread-self/ns/net")?;
            let inode = file.metadata()?.ino();
            Ok(Self { file, inode })
        };
        open().map_err(|source: io::Error| LinkError::os("opening /proc/thread-self/ns/net", source))
    }

    /// The number the kernel knows it by.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Does something inside this namespace: here when this thread is in it, else on a thread that enters it.
    ///
    /// # Errors
    /// Those of `work`, and [`LinkError::Privilege`] when the namespace may not be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, LinkError> + Send) -> Result<T, LinkError> {
        if Self::current()?.inode == self.inode {
            return work();
        }
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|_| LinkError::Privilege {
                    capability: "CAP_SYS_ADMIN",
                    what: "using a stack from a thread in another network namespace".to_owned(),
                })?;
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// The ports that the kernel gives to the host's own connections, in the calling thread's namespace.
pub fn ephemeral_ports() -> Option<(u16, u16)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
