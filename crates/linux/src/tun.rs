//! TUN devices: what the machine routes into one is read here, and what is written here comes out of it.
#![allow(unsafe_code, reason = "TUNSETIFF and poll(2) have no safe wrapper in std")]

use crate::virtio_net::{VNET_HDR_LEN, VirtioNetHdr};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// One device; it is gone when this is dropped.
#[derive(Debug)]
pub struct Tun {
    file: File,
    /// Do datagrams go in and out with an [`Offload`]?
    vnet_hdr: bool,
}

/// The longest name of a device.
const MAX_NAME_LEN: usize = 15;

impl Tun {
    /// Makes a device of that name.
    ///
    /// # Errors
    /// It may not be made (CAP_NET_ADMIN), the name is taken, or there is no `/dev/net/tun`.
    pub fn create(name: &str) -> io::Result<Tun> {
        Tun::open(name, false)
    }

    /// Makes a device of that name that gives and takes many segments of TCP as one datagram, and leaves their checksums open.
    ///
    /// # Errors
    /// As [`Tun::create`].
    pub fn create_with_offloads(name: &str) -> io::Result<Tun> {
        let tun = Tun::open(name, true)?;
        const OFFERED: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        // SAFETY: TUNSETOFFLOAD takes a number.
        if unsafe { libc::ioctl(tun.file.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(OFFERED)) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(tun)
    }

    fn open(name: &str, offloads: bool) -> io::Result<Tun> {
        if name.is_empty() || name.len() > MAX_NAME_LEN {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a device's name has 1 to 15 letters"));
        }
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        let mut request = ifreq_for(name);
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | if offloads { libc::IFF_VNET_HDR } else { 0 };
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is, and it outlives the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Tun { file, vnet_hdr: offloads })
    }

    /// Takes it up: until then nothing goes in or comes out.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_up(&self, name: &str) -> io::Result<()> {
        // SAFETY: three numbers in, a descriptor or -1 out.
        let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just now and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut request = ifreq_for(name);
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        // SAFETY: SIOCSIFFLAGS reads one ifreq, which `request` is, and it outlives the call.
        if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The next datagram, and what is left to be done to it; `None` if none waits.
    ///
    /// # Errors
    /// The device is gone.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, VirtioNetHdr)>> {
        loop {
            let mut header = [0; VNET_HDR_LEN];
            let read = match self.vnet_hdr {
                false => self.file.read(buffer),
                true => self.file.read_vectored(&mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)]),
            };
            match (read, VirtioNetHdr::decode(header)) {
                (Ok(length), Some(offload)) => {
                    return Ok(Some((length.saturating_sub(if self.vnet_hdr { VNET_HDR_LEN } else { 0 }), offload)));
                }
                // What nobody asked for does not come.
                (Ok(_), None) => (),
                (Err(error), _) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(None);
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Sends a datagram out. False if the machine has no room for it now, or does not take such a one: it is lost, as on any link.
    ///
    /// # Errors
    /// The device is gone.
    pub fn write(&mut self, datagram: &[u8], offload: VirtioNetHdr) -> io::Result<bool> {
        let header = offload.encode(datagram, 0);
        let written = match self.vnet_hdr {
            false => self.file.write(datagram),
            true => self.file.write_vectored(&[IoSlice::new(&header), IoSlice::new(datagram)]),
        };
        match written {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::InvalidInput) =>
            {
                Ok(false)
            }
            // A device that is down loses what is sent to it.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What is asked about the device of this name.
fn ifreq_for(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq of zeros is a valid one: it holds only numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(MAX_NAME_LEN).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Waits until something can be read from one of them, for so many milliseconds at most, or until a signal comes.
///
/// # Errors
/// The kernel refuses to wait.
pub fn poll_readable<'a>(devices: impl IntoIterator<Item = BorrowedFd<'a>>, milliseconds: i32) -> io::Result<()> {
    let mut wanted: Vec<libc::pollfd> = devices
        .into_iter()
        .map(|device| libc::pollfd { fd: device.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    // SAFETY: the pointer and the length are those of one vector, which outlives the call.
    let ready = unsafe { libc::poll(wanted.as_mut_ptr(), wanted.len() as libc::nfds_t, milliseconds) };
    match ready {
        0.. => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}
