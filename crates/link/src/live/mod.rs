//! The engine `live`: user space fills a mapped ring with frames, and one long call sends them in batches.
//!
//! This is the paper's way of sending (its section 3.2) by the means of today's kernel: `BPF_PROG_TEST_RUN` with live
//! XDP frames lets a program of ours run over pages of the kernel's, again and again, and hand them to the device
//! in batches. No driver has to know of it beyond `ndo_xdp_xmit`. The call holds a core while it runs, so that it
//! runs only while there is much to send; at other times frames leave by a packet socket, which the caller does
//! not notice.

mod call;
mod layout;
mod left;
mod program;
mod ring;
mod sender;
mod signal;
mod turns;

pub(crate) use left::Left;
pub use sender::{DEFAULT_BATCH, LiveSender, MAX_BATCH};
