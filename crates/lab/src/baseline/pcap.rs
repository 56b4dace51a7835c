//! libpcap's `pcap_sendpacket`. The library is looked for when it is needed, so that nothing else depends on it.
#![allow(unsafe_code, reason = "calls a C library")]

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_uint, c_void};

use irl_link::LinkError;
use irl_link::netdev::Interface;
use libloading::{Library, Symbol};

use super::syn::Syns;
use super::{Left, is_full};

/// The name it has everywhere, and Debian's.
const NAMES: [&str; 2] = ["libpcap.so.1", "libpcap.so.0.8"];
const SNAPLEN: c_int = 64;
const DIRECTION_IN: c_int = 1;
const ERROR_BYTES: usize = 256;

/// `struct bpf_insn` and `struct bpf_program` of libpcap.
#[repr(C)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}
#[repr(C)]
struct Program {
    length: c_uint,
    instructions: *mut Instruction,
}
/// `ret #0`: nothing is received.
const RETURN: u16 = 0x06;

type Create = unsafe extern "C" fn(*const c_char, *mut c_char) -> *mut c_void;
type WithNumber = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
type OfHandle = unsafe extern "C" fn(*mut c_void) -> c_int;
type SetFilter = unsafe extern "C" fn(*mut c_void, *mut Program) -> c_int;
type SendPacket = unsafe extern "C" fn(*mut c_void, *const c_uchar, c_int) -> c_int;
type GetError = unsafe extern "C" fn(*mut c_void) -> *const c_char;
type Close = unsafe extern "C" fn(*mut c_void);
type Version = unsafe extern "C" fn() -> *const c_char;

fn library() -> Result<Library, LinkError> {
    // SAFETY: loading libpcap runs nothing but its constructors, which have no preconditions.
    NAMES
        .iter()
        .find_map(|name| unsafe { Library::new(name) }.ok())
        .ok_or_else(|| LinkError::Unsupported("libpcap is not installed (apt-get install libpcap0.8)".to_owned()))
}

fn symbol<'a, T>(library: &'a Library, name: &str) -> Result<Symbol<'a, T>, LinkError> {
    // SAFETY: each caller names a function of libpcap's documented interface and gives its documented type.
    unsafe { library.get(name.as_bytes()) }
        .map_err(|error| LinkError::Unsupported(format!("this libpcap has no {name}: {error}")))
}

/// What the library calls itself.
///
/// # Errors
/// [`LinkError::Unsupported`] when it is not installed.
pub fn version() -> Result<String, LinkError> {
    let library = library()?;
    let version: Symbol<'_, Version> = symbol(&library, "pcap_lib_version")?;
    // SAFETY: it takes nothing and returns a string that lasts as long as the library.
    Ok(unsafe { CStr::from_ptr(version()) }.to_string_lossy().into_owned())
}

/// An activated handle, closed when dropped.
struct Handle<'a> {
    pcap: *mut c_void,
    close: Symbol<'a, Close>,
    error: Symbol<'a, GetError>,
}

impl Handle<'_> {
    fn checked(&self, result: c_int, what: &str) -> Result<(), LinkError> {
        if result >= 0 {
            return Ok(());
        }
        // SAFETY: the handle is live, and so is its last error's text until the next call.
        let said = unsafe { CStr::from_ptr((self.error)(self.pcap)) }.to_string_lossy().into_owned();
        Err(LinkError::os(what, std::io::Error::other(said)))
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is live and not used afterwards.
        unsafe { (self.close)(self.pcap) };
    }
}

/// The handle receives nothing: otherwise it would be handed a copy of every frame it sends.
pub(super) fn send(interface: &Interface, mut syns: Syns, mut left: Left<'_>) -> Result<u64, LinkError> {
    let library = library()?;
    let create: Symbol<'_, Create> = symbol(&library, "pcap_create")?;
    let set_snaplen: Symbol<'_, WithNumber> = symbol(&library, "pcap_set_snaplen")?;
    let activate: Symbol<'_, OfHandle> = symbol(&library, "pcap_activate")?;
    let set_direction: Symbol<'_, WithNumber> = symbol(&library, "pcap_setdirection")?;
    let set_filter: Symbol<'_, SetFilter> = symbol(&library, "pcap_setfilter")?;
    let send_packet: Symbol<'_, SendPacket> = symbol(&library, "pcap_sendpacket")?;
    let name =
        CString::new(interface.name.as_bytes()).map_err(|_| LinkError::config("an interface name with a zero"))?;
    let mut said = [0; ERROR_BYTES];
    // SAFETY: a C string and room for an error message, as documented.
    let pcap = unsafe { create(name.as_ptr(), said.as_mut_ptr()) };
    if pcap.is_null() {
        return Err(LinkError::config("libpcap does not open this interface"));
    }
    let handle = Handle { pcap, close: symbol(&library, "pcap_close")?, error: symbol(&library, "pcap_geterr")? };
    let mut nothing = Instruction { code: RETURN, if_true: 0, if_false: 0, value: 0 };
    let mut filter = Program { length: 1, instructions: &raw mut nothing };
    // SAFETY: the handle is live; the program and its one instruction outlive the call, which copies them.
    unsafe {
        handle.checked(set_snaplen(pcap, SNAPLEN), "setting libpcap's snapshot length")?;
        handle.checked(activate(pcap), "activating libpcap")?;
        handle.checked(set_direction(pcap, DIRECTION_IN), "setting libpcap's direction")?;
        handle.checked(set_filter(pcap, &raw mut filter), "setting libpcap's filter")?;
    }
    let mut frame = *syns.template();
    let mut sent = 0;
    while left.next(1) == 1 {
        syns.write(&mut frame);
        loop {
            // SAFETY: the handle is live, and the frame for the length of the call.
            let result = unsafe { send_packet(pcap, frame.as_ptr(), frame.len() as c_int) };
            if result == 0 {
                sent += 1;
                break;
            }
            // It leaves the system's error behind.
            if !is_full(&std::io::Error::last_os_error()) {
                handle.checked(result, "sending by libpcap")?;
            }
            if left.stopped() {
                return Ok(sent);
            }
        }
    }
    Ok(sent)
}
