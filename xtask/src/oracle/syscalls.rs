//! The system calls without a safe wrapper in the standard library. Nothing else in the oracle is unsafe.
#![allow(unsafe_code, reason = "namespaces, TUN devices, clocks and signals are reached by system calls only")]
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

/// Moves this thread into a new network namespace; it ends with the last thread in it.
pub fn unshare_net() -> io::Result<()> {
    // SAFETY: unshare takes no pointer and changes only which namespace this thread is in.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// A TUN interface: each read and each write is one IP packet, without any header before it.
pub fn open_tun(name: &str) -> io::Result<File> {
    const NAME_LENGTH: usize = 15;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: an ifreq of zeroes is a valid one: it holds only numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(NAME_LENGTH)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is, and it outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
    Ok(file)
}

/// A netlink socket to netfilter: a write is a request, a read is a response.
pub fn netfilter_socket() -> io::Result<File> {
    // SAFETY: socket takes no pointer.
    let fd =
        check(unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER) })?;
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// A netlink socket that listens to netfilter's `groups`. Reading it never waits.
pub fn netfilter_listener(groups: &[libc::c_int], receive_buffer: libc::c_int) -> io::Result<File> {
    let socket = netfilter_socket()?;
    let set = |level, option, value: &libc::c_int| {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the pointer and the length are those of one number, which outlives the call.
        check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) })
    };
    set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &receive_buffer)?;
    // SAFETY: an address of zeroes is a valid one: it holds only numbers.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // Without a port id of its own the socket would pass for the sender, the kernel, and hear nothing.
    // SAFETY: the pointer and the length are those of one address, which outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) })?;
    for group in groups {
        set(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)?;
    }
    // SAFETY: fcntl takes no pointer here, and the descriptor is open.
    check(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok(socket)
}

/// Nanoseconds of the monotonic clock, which the kernel's ticks follow.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec, which `time` is.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Is the effective user root?
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The text that the signal handler writes, and the file: set before the handler is installed.
static RESTORE_ON_SIGNAL: OnceLock<(RawFd, Vec<u8>)> = OnceLock::new();
/// Signals that end a process normally.
const TERMINATION_SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Until [`reset_signal_handlers`] is called, a signal that ends the process first writes `text` to `file`, which must stay open.
pub fn restore_on_signal(file: &File, text: &str) -> io::Result<()> {
    let _ = RESTORE_ON_SIGNAL.set((file.as_raw_fd(), text.as_bytes().to_vec()));
    for signal in TERMINATION_SIGNALS {
        let handler = handle_signal as extern "C" fn(libc::c_int);
        // SAFETY: the handler calls only what POSIX allows in one: pwrite and _exit.
        if unsafe { libc::signal(signal, handler as libc::sighandler_t) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Restores the default signal handling.
pub fn reset_signal_handlers() {
    for signal in TERMINATION_SIGNALS {
        // SAFETY: SIG_DFL is not a function of this program.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

extern "C" fn handle_signal(signal: libc::c_int) {
    if let Some((fd, text)) = RESTORE_ON_SIGNAL.get() {
        // SAFETY: the text outlives the process, and the descriptor stays open as promised.
        unsafe { libc::pwrite(*fd, text.as_ptr().cast(), text.len(), 0) };
    }
    // SAFETY: _exit takes no pointer and does not return.
    unsafe { libc::_exit(128 + signal) }
}
