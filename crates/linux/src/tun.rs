//! TUN interfaces: packets that the machine routes into one are read here; packets written here arrive from it.
#![allow(unsafe_code, reason = "an ioctl's argument has the type that its number says")]

use crate::no_blocking;
use crate::virtio_net::{VNET_HDR_LEN, VirtioNetHdr};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// One interface; it is removed when this is dropped.
#[derive(Debug)]
pub struct Tun {
    file: File,
    /// Is each packet preceded by a [`VirtioNetHdr`]?
    vnet_hdr: bool,
}

/// The longest interface name, in bytes.
const MAX_NAME_LEN: usize = 15;

const TUNSETIFF: Opcode = libc::TUNSETIFF as Opcode;
const TUNSETOFFLOAD: Opcode = libc::TUNSETOFFLOAD as Opcode;
const TUNSETPERSIST: Opcode = libc::TUNSETPERSIST as Opcode;
const SIOCSIFFLAGS: Opcode = libc::SIOCSIFFLAGS as Opcode;
const SIOCSIFMTU: Opcode = libc::SIOCSIFMTU as Opcode;

/// `struct ifreq` of netdevice(7), with flags.
#[repr(C)]
struct IfReq {
    name: [u8; MAX_NAME_LEN + 1],
    flags: libc::c_short,
    unused: [u8; 22],
}

const _: () = assert!(size_of::<IfReq>() == size_of::<libc::ifreq>());

impl IfReq {
    fn new(name: &str, flags: libc::c_int) -> IfReq {
        let mut request = IfReq { name: [0; MAX_NAME_LEN + 1], flags: flags as libc::c_short, unused: [0; 22] };
        for (to, from) in request.name.iter_mut().take(MAX_NAME_LEN).zip(name.bytes()) {
            *to = from;
        }
        request
    }
}

impl Tun {
    /// Creates an interface of that name.
    ///
    /// # Errors
    /// Permission denied (CAP_NET_ADMIN), the name is in use, or there is no `/dev/net/tun`.
    pub fn create(name: &str) -> io::Result<Tun> {
        Tun::open(name, false)
    }

    /// Creates an interface that passes TCP segments merged into one packet (GSO), with partial checksums, in both directions.
    ///
    /// # Errors
    /// As [`Tun::create`].
    pub fn create_with_offloads(name: &str) -> io::Result<Tun> {
        let tun = Tun::open(name, true)?;
        offer_offloads(&tun.file)?;
        Ok(tun)
    }

    fn open(name: &str, offloads: bool) -> io::Result<Tun> {
        let file = open_device(name, libc::IFF_TUN | if offloads { libc::IFF_VNET_HDR } else { 0 })?;
        Ok(Tun { file, vnet_hdr: offloads })
    }

    /// Sets the interface up: until then no packet goes in or comes out.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_up(&self, name: &str) -> io::Result<()> {
        set_link_up(name)
    }

    /// The length of the next packet, and its offloads; `None` if none waits.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, VirtioNetHdr)>> {
        no_blocking::check("reading a TUN interface");
        loop {
            let mut header = [0; VNET_HDR_LEN];
            let read = match self.vnet_hdr {
                false => (&self.file).read(buffer),
                true => (&self.file).read_vectored(&mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)]),
            };
            match (read, VirtioNetHdr::decode(header)) {
                (Ok(length), Some(offload)) => {
                    return Ok(Some((length.saturating_sub(if self.vnet_hdr { VNET_HDR_LEN } else { 0 }), offload)));
                }
                // The kernel uses only what was offered: this does not occur.
                (Ok(_), None) => (),
                (Err(error), _) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(None);
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Sends a packet. False if it is lost, as on any link: no buffer space, an invalid packet, or the interface is down.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn write(&self, packet: &[u8], offload: VirtioNetHdr) -> io::Result<bool> {
        no_blocking::check("writing to a TUN interface");
        let header = offload.encode(packet, 0);
        let written = match self.vnet_hdr {
            false => (&self.file).write(packet),
            true => (&self.file).write_vectored(&[IoSlice::new(&header), IoSlice::new(packet)]),
        };
        was_sent(written)
    }
}

/// Whether a written packet is on its way: false if it is lost, as on any link.
pub(crate) fn was_sent(written: io::Result<usize>) -> io::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::InvalidInput) =>
        {
            Ok(false)
        }
        // The interface is down.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the TUN or TAP interface of that name, and creates it if there is none.
pub(crate) fn open_device(name: &str, flags: libc::c_int) -> io::Result<File> {
    if name.is_empty() || name.len() > MAX_NAME_LEN {
        return Err(io::Error::new(ErrorKind::InvalidInput, "an interface name has 1 to 15 characters"));
    }
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = IfReq::new(name, flags | libc::IFF_NO_PI);
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    unsafe { ioctl(&file, Updater::<TUNSETIFF, IfReq>::new(&mut request)) }?;
    Ok(file)
}

/// Takes and gives TCP segments merged into one packet, and partial checksums.
pub(crate) fn offer_offloads(device: &File) -> io::Result<()> {
    const OFFERED: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // SAFETY: TUNSETOFFLOAD takes a number.
    Ok(unsafe { ioctl(device, IntegerSetter::<TUNSETOFFLOAD>::new_usize(OFFERED as usize)) }?)
}

/// Whether the interface stays when the last process that has it open is gone.
pub(crate) fn set_persistent(device: &File, persistent: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes a number.
    Ok(unsafe { ioctl(device, IntegerSetter::<TUNSETPERSIST>::new_usize(usize::from(persistent))) }?)
}

/// Sets an interface up.
pub(crate) fn set_link_up(name: &str) -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    Ok(unsafe { ioctl(&socket, Setter::<SIOCSIFFLAGS, IfReq>::new(IfReq::new(name, libc::IFF_UP))) }?)
}

/// Sets the MTU of an interface.
pub(crate) fn set_mtu(name: &str, mtu: libc::c_int) -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = IfReq::new(name, 0);
    // The union of an ifreq holds the MTU where it holds the flags.
    let [first, second, third, fourth] = mtu.to_ne_bytes();
    request.flags = libc::c_short::from_ne_bytes([first, second]);
    (request.unused[0], request.unused[1]) = (third, fourth);
    // SAFETY: SIOCSIFMTU reads one ifreq.
    Ok(unsafe { ioctl(&socket, Setter::<SIOCSIFMTU, IfReq>::new(request)) }?)
}

/// The index of the interface of that name.
pub(crate) fn index_of(name: &str) -> io::Result<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

/// The name of the interface of that index.
pub(crate) fn name_of(index: u32) -> io::Result<String> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::netdevice::index_to_name(&socket, index)?)
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
