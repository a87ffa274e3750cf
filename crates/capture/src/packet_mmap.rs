//! A ring of captured frames shared with the kernel (packet(7), TPACKET_V3).
//!
//! A ring is opened on one device, sees every frame both ways, and is emptied block by block: a block belongs to the kernel until it says otherwise,
//! then to us until we give it back. It only listens: it never sends, and never changes the device but for promiscuous mode while it lives.
#![allow(unsafe_code, reason = "a ring is memory shared with the kernel, and its socket options are structures")]

use crate::Frame;
use anyhow::{Context, Result, bail};
use keepstate_wire::link::LinkType;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Blocks of 1 MiB, 16 of them.
const BLOCK_SIZE: usize = 1 << 20;
const BLOCK_COUNT: usize = 16;
/// A block that is not full is handed over after so many milliseconds.
const BLOCK_TIMEOUT_MILLIS: u32 = 50;
/// Frames that leave the machine, in `sll_pkttype`.
const PACKET_OUTGOING: u8 = 4;
/// Kinds of devices by their ARPHRD numbers: Ethernet, loopback, and those whose frames begin with IP: raw, IPIP, SIT, and TUN and WireGuard, which
/// have no kind.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_RAW_IP: [u16; 4] = [519, 768, 776, 65534];

/// See the module's words.
pub struct PacketRing {
    socket: OwnedFd,
    memory: NonNull<u8>,
    next_block: usize,
    link_type: LinkType,
    loopback: bool,
    dropped: u64,
    interface: CString,
    ifindex: i32,
    down: bool,
}

/// What became of the device while it was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Nothing that we heard of.
    Unchanged,
    /// It went down, or was so from the beginning.
    WentDown,
}

impl PacketRing {
    /// Opens a ring on `device`.
    ///
    /// # Errors
    /// No such device (with a list of those there are), a capability missing (which, and how to grant it), a link type that is not read here.
    pub fn open(device: &str, promiscuous: bool) -> Result<PacketRing> {
        let name = CString::new(device).context("a device's name has no zero in it")?;
        let kind = arphrd_type(device, &name)?;
        let link = match kind {
            ARPHRD_ETHER | ARPHRD_LOOPBACK => LinkType::ETHERNET,
            raw if ARPHRD_RAW_IP.contains(&raw) => LinkType::RAW,
            other => bail!("{device} has a link layer that is not read here (ARPHRD type {other})"),
        };
        let index = interface_index(&name).with_context(|| format!("{device} has gone"))?;
        // SAFETY: a plain system call; what it returns is checked.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::PermissionDenied {
                bail!(
                    "the capability CAP_NET_RAW is missing: run this as root (sudo keepstate watch {device}), or grant it once: \
                     sudo setcap cap_net_raw+ep {}",
                    std::env::current_exe()
                        .map_or_else(|_| "/path/to/keepstate".into(), |path| path.display().to_string())
                );
            }
            return Err(error).context("no packet socket could be opened");
        }
        // SAFETY: the socket was just opened and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let memory = map_ring(&socket)?;
        let loopback = kind == ARPHRD_LOOPBACK;
        let ring = PacketRing {
            socket,
            memory,
            next_block: 0,
            link_type: link,
            loopback,
            dropped: 0,
            interface: name,
            ifindex: index,
            down: false,
        };
        ring.bind(index, promiscuous).with_context(|| format!("{device} cannot be listened to"))?;
        Ok(ring)
    }

    fn bind(&self, index: i32, promiscuous: bool) -> Result<()> {
        if promiscuous {
            // SAFETY: zeros are a valid packet_mreq.
            let mut wish: libc::packet_mreq = unsafe { zeroed() };
            wish.mr_ifindex = index;
            wish.mr_type = libc::PACKET_MR_PROMISC as u16;
            set_packet_option(&self.socket, libc::PACKET_ADD_MEMBERSHIP, &wish)?;
        }
        // SAFETY: zeros are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index;
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the address is a live sockaddr_ll of the length given.
        let done = unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), length) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
    }

    /// Waits until there may be frames, so long at most.
    ///
    /// # Errors
    /// If the device has gone.
    pub fn wait(&mut self, most: Duration) -> Result<LinkChange> {
        let mut wish = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one live pollfd. An interrupted wait is as good as a short one.
        unsafe { libc::poll(&raw mut wish, 1, millis) };
        let fell = wish.revents & libc::POLLERR != 0 && self.take_socket_error() != 0;
        self.down |= fell;
        // Of a device that goes while it is down, nothing is heard any more.
        anyhow::ensure!(
            !self.down || interface_index(&self.interface) == Some(self.ifindex),
            "{} has gone: there is no such device any more",
            self.interface.to_string_lossy().escape_debug()
        );
        Ok(if fell { LinkChange::WentDown } else { LinkChange::Unchanged })
    }

    /// Was the device down when we last heard of it?
    pub fn is_down(&self) -> bool {
        self.down
    }

    /// The error that waits at the socket, which then waits no more.
    fn take_socket_error(&self) -> i32 {
        let mut error = 0i32;
        let mut length = size_of::<i32>() as u32;
        // SAFETY: room for an error of the length given.
        let done = unsafe {
            let place = (&raw mut error).cast();
            libc::getsockopt(self.socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, place, &raw mut length)
        };
        if done == 0 { error } else { 0 }
    }

    /// Gives every frame that is there to `see`.
    pub fn for_each_frame(&mut self, mut see: impl FnMut(&Frame<'_>)) {
        loop {
            // SAFETY: `next` is under BLOCKS, so the block lies within the mapping; blocks begin at multiples of 1 MiB, aligned for anything.
            let block = unsafe { self.memory.add(self.next_block * BLOCK_SIZE) };
            // SAFETY: the status word lies in the block's header; kernel and we both use it atomically.
            let status = unsafe { AtomicU32::from_ptr(block.add(STATUS_OFFSET).cast().as_ptr()) };
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                return;
            }
            // SAFETY: the kernel has handed the block over: it is ours, unchanged, until the status is written below.
            let octets = unsafe { std::slice::from_raw_parts(block.as_ptr().cast_const(), BLOCK_SIZE) };
            self.walk_block(octets, &mut see);
            self.down = false;
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next_block = (self.next_block + 1) % BLOCK_COUNT;
        }
    }

    /// Walks the frames of one block by the offsets in it, checking each.
    fn walk_block(&self, octets: &[u8], see: &mut impl FnMut(&Frame<'_>)) {
        let word = |at: usize| octets.get(at..at + 4)?.first_chunk().map(|word| u32::from_ne_bytes(*word));
        let (count, first) = (word(COUNT_OFFSET).unwrap_or(0), word(FIRST_PACKET_OFFSET).unwrap_or(0));
        let mut at = first as usize;
        for _ in 0..count {
            let field = |field: usize| word(at + field).unwrap_or(0);
            let mac = octets.get(at + offset_of!(libc::tpacket3_hdr, tp_mac)..).and_then(<[u8]>::first_chunk::<2>);
            let begin = at + mac.map_or(0, |mac| usize::from(u16::from_ne_bytes(*mac)));
            let kept = field(offset_of!(libc::tpacket3_hdr, tp_snaplen)) as usize;
            let kind = octets.get(at + SOCKADDR_OFFSET + offset_of!(libc::sockaddr_ll, sll_pkttype)).copied();
            if let (Some(data), Some(kind)) = (octets.get(begin..begin.saturating_add(kept)), kind) {
                let seconds = u64::from(field(offset_of!(libc::tpacket3_hdr, tp_sec)));
                let nanos = u64::from(field(offset_of!(libc::tpacket3_hdr, tp_nsec)));
                let frame = Frame {
                    time: Some(seconds * 1_000_000_000 + nanos),
                    link: self.link_type,
                    data,
                    wire_len: field(offset_of!(libc::tpacket3_hdr, tp_len)) as usize,
                };
                // On the loopback device every frame passes twice: out and in.
                if !(self.loopback && kind == PACKET_OUTGOING) {
                    see(&frame);
                }
            }
            match field(offset_of!(libc::tpacket3_hdr, tp_next_offset)) {
                0 => return,
                next => at += next as usize,
            }
        }
    }

    /// Frames that the kernel had no room for, since the ring was opened.
    pub fn dropped(&mut self) -> u64 {
        // SAFETY: zeros are a valid tpacket_stats_v3.
        let mut stats: libc::tpacket_stats_v3 = unsafe { zeroed() };
        let mut length = size_of::<libc::tpacket_stats_v3>() as u32;
        // SAFETY: room for the structure of the length given. The kernel starts counting anew after each reading.
        let done = unsafe {
            let place = (&raw mut stats).cast();
            libc::getsockopt(self.socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, place, &raw mut length)
        };
        if done == 0 {
            self.dropped += u64::from(stats.tp_drops);
        }
        self.dropped
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nobody borrows from it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), BLOCK_SIZE * BLOCK_COUNT) };
    }
}

/// Where a block's header has its fields: version and private offset come first.
const HEADER_OFFSET: usize = offset_of!(libc::tpacket_block_desc, hdr);
const STATUS_OFFSET: usize = HEADER_OFFSET + offset_of!(libc::tpacket_hdr_v1, block_status);
const COUNT_OFFSET: usize = HEADER_OFFSET + offset_of!(libc::tpacket_hdr_v1, num_pkts);
const FIRST_PACKET_OFFSET: usize = HEADER_OFFSET + offset_of!(libc::tpacket_hdr_v1, offset_to_first_pkt);
/// Behind a frame's header, aligned to 16, the address of its sender.
const SOCKADDR_OFFSET: usize = size_of::<libc::tpacket3_hdr>().next_multiple_of(16);

/// Asks for the ring and maps it.
fn map_ring(socket: &OwnedFd) -> Result<NonNull<u8>> {
    set_packet_option(socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as i32))?;
    // SAFETY: zeros are a valid tpacket_req3.
    let mut wish: libc::tpacket_req3 = unsafe { zeroed() };
    wish.tp_block_size = BLOCK_SIZE as u32;
    wish.tp_block_nr = BLOCK_COUNT as u32;
    wish.tp_frame_size = 2048;
    wish.tp_frame_nr = (BLOCK_SIZE / 2048 * BLOCK_COUNT) as u32;
    wish.tp_retire_blk_tov = BLOCK_TIMEOUT_MILLIS;
    set_packet_option(socket, libc::PACKET_RX_RING, &wish)?;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of the ring just asked for, whose length the kernel checks.
    let memory = unsafe {
        libc::mmap(std::ptr::null_mut(), BLOCK_SIZE * BLOCK_COUNT, rights, libc::MAP_SHARED, socket.as_raw_fd(), 0)
    };
    match NonNull::new(memory.cast::<u8>()) {
        Some(place) if memory != libc::MAP_FAILED => Ok(place),
        _ => Err(io::Error::last_os_error()).context("the ring could not be mapped"),
    }
}

fn set_packet_option<T>(socket: &OwnedFd, name: i32, value: &T) -> Result<()> {
    let length = size_of::<T>() as u32;
    // SAFETY: `value` is live and of the length given.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, std::ptr::from_ref(value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("a packet socket option was refused") }
}

/// The number of a device, if there is one of that name.
fn interface_index(name: &CString) -> Option<i32> {
    // SAFETY: a C string that lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    i32::try_from(index).ok().filter(|index| *index > 0)
}

/// The ARPHRD number of a device, which its address begins with.
fn arphrd_type(device: &str, name: &CString) -> Result<u16> {
    // SAFETY: zeros are a valid ifreq.
    let mut wish: libc::ifreq = unsafe { zeroed() };
    let octets = name.as_bytes();
    if octets.is_empty() || octets.len() >= wish.ifr_name.len() || interface_index(name).is_none() {
        bail!("there is no device {device:?} here; there are: {}", interface_names().join(", "));
    }
    for (place, octet) in wish.ifr_name.iter_mut().zip(octets) {
        *place = octet.cast_signed();
    }
    // SAFETY: a plain system call; what it returns is checked, and belongs to nobody else.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error()).context("no socket could be opened");
        }
        OwnedFd::from_raw_fd(socket)
    };
    // SAFETY: a live ifreq with a name that ends in a zero; the kernel fills in the address.
    unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut wish) != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("{device} cannot be asked for its kind"));
        }
        Ok(wish.ifr_ifru.ifru_hwaddr.sa_family)
    }
}

/// The names of all devices of this network namespace. (What `/sys` lists may be another's.)
fn interface_names() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: the list ends with an index of 0, its names are C strings, and it is given back once nothing of it is used any more.
    unsafe {
        let list = libc::if_nameindex();
        let mut next = list;
        while !next.is_null() && (*next).if_index != 0 {
            names.push(CStr::from_ptr((*next).if_name).to_string_lossy().into_owned());
            next = next.add(1);
        }
        if !list.is_null() {
            libc::if_freenameindex(list);
        }
    }
    names.sort();
    names
}
