//! The signal that ends a call early.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

/// SIGURG: nobody is harmed by one too many, because it is ignored where nobody handles it; debuggers let it pass.
const SIGNAL: libc::c_int = libc::SIGURG;

extern "C" fn nothing(_: libc::c_int) {}

/// Sees to it that the signal interrupts: an ignored one does not. A handler of somebody else's does as well as ours, and
/// is left alone.
pub(super) fn prepare() -> io::Result<()> {
    // SAFETY: a sigaction of zeros is a valid one: SIG_DFL.
    let mut present: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks only; the result goes to a live value.
    if unsafe { libc::sigaction(SIGNAL, std::ptr::null(), &raw mut present) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if present.sa_sigaction != libc::SIG_DFL && present.sa_sigaction != libc::SIG_IGN {
        return Ok(());
    }
    // SAFETY: as above.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = nothing as *const () as usize;
    // SAFETY: the handler does nothing, so that it may run at any point of any thread.
    if unsafe { libc::sigaction(SIGNAL, &raw const ours, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets no signal but ours reach this thread: any handled signal would end its call.
pub(super) fn block_others() {
    // SAFETY: the set is initialised by sigfillset before it is read, and belongs to this thread's stack.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigdelset(&raw mut set, SIGNAL);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Lets no signal reach this thread.
pub(super) fn block_all() {
    // SAFETY: as above.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Signals a thread that has not been joined.
pub(super) fn interrupt<T>(thread: &JoinHandle<T>) {
    // SAFETY: the handle is borrowed, so that the thread is neither joined nor detached and its id is valid, be it over
    // or not.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGNAL) };
}
