//! What packetdrill asks of a shared object: a table of C functions, each with a pointer of ours as its first argument.
//!
//! Written from its behaviour: the order of the functions and their C types are the agreement, and nothing else is taken.

use std::ffi::{CStr, c_char, c_int, c_long, c_longlong, c_short, c_uint, c_ulong, c_void};
use std::sync::{Mutex, PoisonError};

use crate::sockets::{Sockets, SystemError};

type Ours = *mut c_void;
type Length = *mut libc::socklen_t;
type Address = *const libc::sockaddr;

/// What packetdrill calls, in its order.
#[repr(C)]
pub(crate) struct Interface {
    userdata: Ours,
    free: extern "C" fn(Ours),
    socket: extern "C" fn(Ours, c_int, c_int, c_int) -> c_int,
    bind: extern "C" fn(Ours, c_int, Address, libc::socklen_t) -> c_int,
    listen: extern "C" fn(Ours, c_int, c_int) -> c_int,
    accept: extern "C" fn(Ours, c_int, *mut libc::sockaddr, Length) -> c_int,
    connect: extern "C" fn(Ours, c_int, Address, libc::socklen_t) -> c_int,
    read: extern "C" fn(Ours, c_int, *mut c_void, usize) -> isize,
    readv: extern "C" fn(Ours, c_int, *const libc::iovec, c_int) -> isize,
    recv: extern "C" fn(Ours, c_int, *mut c_void, usize, c_int) -> isize,
    recvfrom: extern "C" fn(Ours, c_int, *mut c_void, usize, c_int, *mut libc::sockaddr, Length) -> isize,
    recvmsg: extern "C" fn(Ours, c_int, *mut libc::msghdr, c_int) -> isize,
    write: extern "C" fn(Ours, c_int, *const c_void, usize) -> isize,
    writev: extern "C" fn(Ours, c_int, *const libc::iovec, c_int) -> isize,
    send: extern "C" fn(Ours, c_int, *const c_void, usize, c_int) -> isize,
    sendto: extern "C" fn(Ours, c_int, *const c_void, usize, c_int, Address, libc::socklen_t) -> isize,
    sendmsg: extern "C" fn(Ours, c_int, *const libc::msghdr, c_int) -> isize,
    fcntl: extern "C" fn(Ours, c_int, c_int, c_long) -> c_int,
    ioctl: extern "C" fn(Ours, c_int, c_ulong, c_long) -> c_int,
    close: extern "C" fn(Ours, c_int) -> c_int,
    shutdown: extern "C" fn(Ours, c_int, c_int) -> c_int,
    getsockopt: extern "C" fn(Ours, c_int, c_int, c_int, *mut c_void, Length) -> c_int,
    setsockopt: extern "C" fn(Ours, c_int, c_int, c_int, *const c_void, libc::socklen_t) -> c_int,
    poll: extern "C" fn(Ours, *mut libc::pollfd, libc::nfds_t, c_int) -> c_int,
    netdev_send: extern "C" fn(Ours, *const c_void, usize) -> c_int,
    netdev_receive: extern "C" fn(Ours, *mut c_void, *mut usize, *mut c_longlong) -> c_int,
    usleep: extern "C" fn(Ours, c_uint) -> c_int,
    gettimeofday: extern "C" fn(Ours, *mut libc::timeval, *mut c_void) -> c_int,
    epoll_create: extern "C" fn(Ours, c_int) -> c_int,
    epoll_ctl: extern "C" fn(Ours, c_int, c_int, c_int, *mut c_void) -> c_int,
    epoll_wait: extern "C" fn(Ours, c_int, *mut c_void, c_int, c_int) -> c_int,
    pipe: extern "C" fn(Ours, *mut c_int) -> c_int,
    splice: extern "C" fn(Ours, c_int, *mut c_void, c_int, *mut c_void, usize, c_uint) -> isize,
}

/// What packetdrill looks for. `flags` is our address.
///
/// # Safety
/// `flags` is a C string, or null, and `interface` a table that may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, interface: *mut Interface) {
    let flags = if flags.is_null() {
        None
    } else {
        // SAFETY: the caller's promise.
        unsafe { CStr::from_ptr(flags) }.to_str().ok()
    };
    let Some(address) = flags.and_then(|text| text.parse().ok()) else {
        eprintln!("irl-packetdrill: --so_flags has to be our address, the same as --local_ip");
        std::process::exit(2);
    };
    let sockets = Box::new(Mutex::new(Sockets::new(address)));
    let table = Interface {
        userdata: Box::into_raw(sockets).cast(),
        free,
        socket,
        bind,
        listen,
        accept,
        connect,
        read,
        readv,
        recv,
        recvfrom,
        recvmsg,
        write,
        writev,
        send,
        sendto,
        sendmsg,
        fcntl,
        ioctl,
        close,
        shutdown,
        getsockopt,
        setsockopt,
        poll,
        netdev_send,
        netdev_receive,
        usleep,
        gettimeofday,
        epoll_create,
        epoll_ctl,
        epoll_wait,
        pipe,
        splice,
    };
    // SAFETY: the caller's promise.
    unsafe { interface.write(table) };
}

/// The sockets, for one call.
fn with<R>(ours: Ours, what: impl FnOnce(&mut Sockets) -> R) -> R {
    // SAFETY: packetdrill hands back the pointer that it was given, until `free`.
    let sockets = unsafe { &*ours.cast::<Mutex<Sockets>>() };
    what(&mut sockets.lock().unwrap_or_else(PoisonError::into_inner))
}

fn fail(error: SystemError) -> isize {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = error.0 };
    -1
}

/// A call's result as C has it: -1 and errno for an error. Results are lengths and small numbers, so that they fit.
fn result(result: Result<usize, SystemError>) -> isize {
    result.map_or_else(fail, |value| value as isize)
}

fn unsupported() -> isize {
    fail(SystemError(libc::ENOSYS))
}

fn bytes<'a>(pointer: *const c_void, length: usize) -> &'a [u8] {
    if pointer.is_null() {
        return &[];
    }
    // SAFETY: packetdrill's buffers are as long as it says, and live through the call.
    unsafe { std::slice::from_raw_parts(pointer.cast(), length) }
}

fn bytes_mut<'a>(pointer: *mut c_void, length: usize) -> &'a mut [u8] {
    if pointer.is_null() {
        return &mut [];
    }
    // SAFETY: as above, and nobody else looks at a buffer that is being filled.
    unsafe { std::slice::from_raw_parts_mut(pointer.cast(), length) }
}

/// The address and port of a socket address, where it is of a kind known here.
fn peer(address: Address, length: libc::socklen_t) -> Option<(std::net::IpAddr, u16)> {
    let bytes = bytes(address.cast(), length as usize);
    let family = c_int::from(libc::sa_family_t::from_ne_bytes(*bytes.first_chunk()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET => Some((<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?.into(), port)),
        libc::AF_INET6 => Some((<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?.into(), port)),
        _ => None,
    }
}

extern "C" fn free(ours: Ours) {
    // SAFETY: the pointer came out of a Box, and this is the last call with it.
    drop(unsafe { Box::from_raw(ours.cast::<Mutex<Sockets>>()) });
}

extern "C" fn socket(ours: Ours, _: c_int, _: c_int, _: c_int) -> c_int {
    with(ours, Sockets::socket)
}

extern "C" fn bind(_: Ours, _: c_int, _: Address, _: libc::socklen_t) -> c_int {
    unsupported() as c_int
}

extern "C" fn listen(_: Ours, _: c_int, _: c_int) -> c_int {
    unsupported() as c_int
}

extern "C" fn accept(_: Ours, _: c_int, _: *mut libc::sockaddr, _: Length) -> c_int {
    unsupported() as c_int
}

extern "C" fn connect(ours: Ours, socket: c_int, address: Address, length: libc::socklen_t) -> c_int {
    let peer = peer(address, length).ok_or(SystemError(libc::EAFNOSUPPORT));
    result(peer.and_then(|(address, port)| with(ours, |all| all.connect(socket, address, port)))) as c_int
}

extern "C" fn read(ours: Ours, socket: c_int, buffer: *mut c_void, length: usize) -> isize {
    result(with(ours, |all| all.read(socket, bytes_mut(buffer, length))))
}

extern "C" fn readv(_: Ours, _: c_int, _: *const libc::iovec, _: c_int) -> isize {
    unsupported()
}

extern "C" fn recv(ours: Ours, socket: c_int, buffer: *mut c_void, length: usize, _: c_int) -> isize {
    read(ours, socket, buffer, length)
}

extern "C" fn recvfrom(
    ours: Ours,
    socket: c_int,
    buffer: *mut c_void,
    length: usize,
    _: c_int,
    _: *mut libc::sockaddr,
    _: Length,
) -> isize {
    read(ours, socket, buffer, length)
}

extern "C" fn recvmsg(_: Ours, _: c_int, _: *mut libc::msghdr, _: c_int) -> isize {
    unsupported()
}

extern "C" fn write(ours: Ours, socket: c_int, buffer: *const c_void, length: usize) -> isize {
    result(with(ours, |all| all.write(socket, bytes(buffer, length))))
}

extern "C" fn writev(_: Ours, _: c_int, _: *const libc::iovec, _: c_int) -> isize {
    unsupported()
}

extern "C" fn send(ours: Ours, socket: c_int, buffer: *const c_void, length: usize, _: c_int) -> isize {
    write(ours, socket, buffer, length)
}

extern "C" fn sendto(
    ours: Ours,
    socket: c_int,
    buffer: *const c_void,
    length: usize,
    _: c_int,
    _: Address,
    _: libc::socklen_t,
) -> isize {
    write(ours, socket, buffer, length)
}

extern "C" fn sendmsg(_: Ours, _: c_int, _: *const libc::msghdr, _: c_int) -> isize {
    unsupported()
}

// C declares this one and the next with a variable number of arguments; of these the callers give one, which every ABI of
// Linux passes like a named one.
extern "C" fn fcntl(_: Ours, _: c_int, command: c_int, _: c_long) -> c_int {
    // No call here waits, whatever is asked for.
    if command == libc::F_GETFL { libc::O_RDWR | libc::O_NONBLOCK } else { 0 }
}

extern "C" fn ioctl(_: Ours, _: c_int, _: c_ulong, _: c_long) -> c_int {
    unsupported() as c_int
}

extern "C" fn close(ours: Ours, socket: c_int) -> c_int {
    result(with(ours, |all| all.close(socket))) as c_int
}

extern "C" fn shutdown(ours: Ours, socket: c_int, _: c_int) -> c_int {
    result(with(ours, |all| all.shutdown(socket))) as c_int
}

extern "C" fn getsockopt(
    ours: Ours,
    socket: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: Length,
) -> c_int {
    if (level, name) != (libc::SOL_SOCKET, libc::SO_ERROR) || length.is_null() {
        return unsupported() as c_int;
    }
    let error = with(ours, |all| all.take_error(socket));
    bytes_mut(value, size_of::<c_int>()).copy_from_slice(&error.to_ne_bytes());
    // SAFETY: packetdrill's own variable.
    unsafe { *length = size_of::<c_int>() as libc::socklen_t };
    0
}

extern "C" fn setsockopt(
    ours: Ours,
    socket: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: libc::socklen_t,
) -> c_int {
    if (level, name) == (libc::SOL_SOCKET, libc::SO_LINGER) {
        // On, and for no time at all: close by RST.
        let lingers = bytes(value, length as usize) == [1, 0, 0, 0, 0, 0, 0, 0];
        with(ours, |all| all.reset_on_close(socket, lingers));
        return 0;
    }
    unsupported() as c_int
}

extern "C" fn poll(ours: Ours, polled: *mut libc::pollfd, count: libc::nfds_t, _: c_int) -> c_int {
    let mut ready = 0;
    for at in 0..count as usize {
        // SAFETY: packetdrill's array has `count` elements.
        let each = unsafe { &mut *polled.add(at) };
        let events: c_short = with(ours, |all| all.poll(each.fd));
        each.revents = events & (each.events | libc::POLLERR | libc::POLLHUP);
        ready += c_int::from(each.revents != 0);
    }
    ready
}

extern "C" fn netdev_send(ours: Ours, packet: *const c_void, length: usize) -> c_int {
    with(ours, |all| all.packet(bytes(packet, length)));
    0
}

extern "C" fn netdev_receive(ours: Ours, buffer: *mut c_void, length: *mut usize, time: *mut c_longlong) -> c_int {
    // SAFETY: packetdrill's own variables.
    let (length, time) = unsafe { (&mut *length, &mut *time) };
    let Some((packet, at_us)) = with(ours, Sockets::next_packet) else {
        *length = 0;
        return 0;
    };
    let into = bytes_mut(buffer, *length);
    *length = packet.len().min(into.len());
    into[..*length].copy_from_slice(&packet[..*length]);
    *time = at_us as c_longlong;
    0
}

extern "C" fn usleep(ours: Ours, microseconds: c_uint) -> c_int {
    with(ours, |all| all.pass(u64::from(microseconds)));
    0
}

extern "C" fn gettimeofday(ours: Ours, time: *mut libc::timeval, _: *mut c_void) -> c_int {
    // It asks again and again until its moment has come: each time a little has passed.
    let now_us = with(ours, |all| {
        all.pass(5);
        all.now_us()
    });
    // SAFETY: packetdrill's own variable. Both numbers are far below what its fields hold.
    unsafe {
        (*time).tv_sec = (now_us / 1_000_000) as libc::time_t;
        (*time).tv_usec = (now_us % 1_000_000) as libc::suseconds_t;
    }
    0
}

extern "C" fn epoll_create(_: Ours, _: c_int) -> c_int {
    unsupported() as c_int
}

extern "C" fn epoll_ctl(_: Ours, _: c_int, _: c_int, _: c_int, _: *mut c_void) -> c_int {
    unsupported() as c_int
}

extern "C" fn epoll_wait(_: Ours, _: c_int, _: *mut c_void, _: c_int, _: c_int) -> c_int {
    unsupported() as c_int
}

extern "C" fn pipe(_: Ours, _: *mut c_int) -> c_int {
    unsupported() as c_int
}

extern "C" fn splice(_: Ours, _: c_int, _: *mut c_void, _: c_int, _: *mut c_void, _: usize, _: c_uint) -> isize {
    unsupported()
}
