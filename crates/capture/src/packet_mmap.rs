//! A ring of captured frames shared with the kernel (packet(7), TPACKET_V3).
//!
//! A ring is opened on one interface, gets every frame in both directions, and is emptied block by block: a block belongs to the kernel
//! until its status says otherwise, then to us until we give it back. It never sends, and never changes the interface except for
//! promiscuous mode while it lives.
#![allow(unsafe_code, reason = "a ring is memory shared with the kernel, and its socket options are structures")]

use crate::frame::{Frame, FrameChecksum};
use anyhow::{Context, Result, bail};
use keepstate_wire::link::LinkType;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with, sockopt};
use rustix::time::Timespec;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// 16 blocks of 1 MiB.
const BLOCK_SIZE: usize = 1 << 20;
const BLOCK_COUNT: usize = 16;
/// After this time a block is handed over although it is not full.
const BLOCK_TIMEOUT_MILLIS: u32 = 50;
/// `sll_pkttype` of outgoing frames.
const PACKET_OUTGOING: u8 = 4;
/// ARPHRD types: Ethernet, loopback, and those whose frames begin with IP: raw, IPIP, SIT, and none (TUN, WireGuard).
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_RAW_IP: [u16; 4] = [519, 768, 776, 65534];

/// See the module.
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

/// A change of the interface's link while waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// None that was reported.
    Unchanged,
    /// The interface went down, or was down from the beginning.
    WentDown,
}

impl PacketRing {
    /// Opens a ring on `interface`.
    ///
    /// # Errors
    /// No such interface (with a list of the existing ones), a missing capability (which, and how to grant it), an unsupported link type.
    pub fn open(interface: &str, promiscuous: bool) -> Result<PacketRing> {
        let name = CString::new(interface).context("an interface name cannot contain a zero byte")?;
        let kind = arphrd_type(interface, &name)?;
        let link = match kind {
            ARPHRD_ETHER | ARPHRD_LOOPBACK => LinkType::ETHERNET,
            raw if ARPHRD_RAW_IP.contains(&raw) => LinkType::RAW,
            other => bail!("{interface} has an unsupported link layer (ARPHRD type {other})"),
        };
        let index = interface_index(&name).with_context(|| format!("{interface} no longer exists"))?;
        let socket = match socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None) {
            Ok(socket) => socket,
            Err(Errno::PERM | Errno::ACCESS) => bail!(
                "the capability CAP_NET_RAW is missing: run this as root (sudo keepstate watch {interface}), or grant it once: \
                 sudo setcap cap_net_raw+ep {}",
                std::env::current_exe().map_or_else(|_| "/path/to/keepstate".into(), |path| path.display().to_string())
            ),
            Err(error) => return Err(error).context("cannot open a packet socket"),
        };
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
        ring.bind(index, promiscuous).with_context(|| format!("cannot capture on {interface}"))?;
        Ok(ring)
    }

    fn bind(&self, index: i32, promiscuous: bool) -> Result<()> {
        if promiscuous {
            // SAFETY: zeros are a valid packet_mreq.
            let mut request: libc::packet_mreq = unsafe { zeroed() };
            request.mr_ifindex = index;
            request.mr_type = libc::PACKET_MR_PROMISC as u16;
            set_packet_option(&self.socket, libc::PACKET_ADD_MEMBERSHIP, &request)?;
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

    /// Waits until there may be frames, at most for this time.
    ///
    /// # Errors
    /// The interface no longer exists.
    pub fn wait(&mut self, most: Duration) -> Result<LinkChange> {
        let timeout = Timespec::try_from(most).unwrap_or(Timespec { tv_sec: i32::MAX.into(), tv_nsec: 0 });
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        // An interrupted wait is only a shorter one.
        let error = poll(&mut polled, Some(&timeout)).is_ok() && polled[0].revents().contains(PollFlags::ERR);
        let went_down = error && matches!(sockopt::socket_error(&self.socket), Ok(Err(_)));
        self.down |= went_down;
        // An interface that is deleted while it is down causes no further event.
        anyhow::ensure!(
            !self.down || interface_index(&self.interface) == Some(self.ifindex),
            "{} no longer exists",
            self.interface.to_string_lossy().escape_debug()
        );
        Ok(if went_down { LinkChange::WentDown } else { LinkChange::Unchanged })
    }

    /// Was the interface down at its last event?
    pub fn is_down(&self) -> bool {
        self.down
    }

    /// Calls `see` with every frame in the ring.
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
            let block_bytes = unsafe { std::slice::from_raw_parts(block.as_ptr().cast_const(), BLOCK_SIZE) };
            self.walk_block(block_bytes, &mut see);
            self.down = false;
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next_block = (self.next_block + 1) % BLOCK_COUNT;
        }
    }

    /// Walks the frames of one block by the offsets in it, checking each.
    fn walk_block(&self, block: &[u8], see: &mut impl FnMut(&Frame<'_>)) {
        let word = |at: usize| block.get(at..at + 4)?.first_chunk().map(|word| u32::from_ne_bytes(*word));
        let (count, first) = (word(COUNT_OFFSET).unwrap_or(0), word(FIRST_PACKET_OFFSET).unwrap_or(0));
        let mut at = first as usize;
        for _ in 0..count {
            let field = |field: usize| word(at + field).unwrap_or(0);
            let mac = block.get(at + offset_of!(libc::tpacket3_hdr, tp_mac)..).and_then(<[u8]>::first_chunk::<2>);
            let begin = at + mac.map_or(0, |mac| usize::from(u16::from_ne_bytes(*mac)));
            let captured = field(offset_of!(libc::tpacket3_hdr, tp_snaplen)) as usize;
            let kind = block.get(at + SOCKADDR_OFFSET + offset_of!(libc::sockaddr_ll, sll_pkttype)).copied();
            if let (Some(data), Some(kind)) = (block.get(begin..begin.saturating_add(captured)), kind) {
                let seconds = u64::from(field(offset_of!(libc::tpacket3_hdr, tp_sec)));
                let nanos = u64::from(field(offset_of!(libc::tpacket3_hdr, tp_nsec)));
                let frame = Frame {
                    time: Some(seconds * 1_000_000_000 + nanos),
                    link: self.link_type,
                    data,
                    wire_len: field(offset_of!(libc::tpacket3_hdr, tp_len)) as usize,
                    interface: None,
                    checksum: match field(offset_of!(libc::tpacket3_hdr, tp_status)) & CHECKSUM_KNOWN {
                        0 => FrameChecksum::Unverified,
                        _ => FrameChecksum::Unnecessary,
                    },
                };
                // On the loopback interface every frame passes twice, out and in.
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

    /// Frames that the kernel dropped because the ring was full, since it was opened.
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
        // SAFETY: mapped by `map_ring` with this length, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), BLOCK_SIZE * BLOCK_COUNT) };
    }
}

/// Status of a frame whose checksum is not filled in yet, or was verified.
const CHECKSUM_KNOWN: u32 = libc::TP_STATUS_CSUMNOTREADY | libc::TP_STATUS_CSUM_VALID;
/// Offsets in a block's header, after version and private offset.
const HEADER_OFFSET: usize = offset_of!(libc::tpacket_block_desc, hdr);
const STATUS_OFFSET: usize = HEADER_OFFSET + offset_of!(libc::tpacket_hdr_v1, block_status);
const COUNT_OFFSET: usize = HEADER_OFFSET + offset_of!(libc::tpacket_hdr_v1, num_pkts);
const FIRST_PACKET_OFFSET: usize = HEADER_OFFSET + offset_of!(libc::tpacket_hdr_v1, offset_to_first_pkt);
/// A frame's header is followed, aligned to 16, by the sender's address.
const SOCKADDR_OFFSET: usize = size_of::<libc::tpacket3_hdr>().next_multiple_of(16);

/// Requests the ring and maps it.
fn map_ring(socket: &OwnedFd) -> Result<NonNull<u8>> {
    set_packet_option(socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as i32))?;
    // SAFETY: zeros are a valid tpacket_req3.
    let mut request: libc::tpacket_req3 = unsafe { zeroed() };
    request.tp_block_size = BLOCK_SIZE as u32;
    request.tp_block_nr = BLOCK_COUNT as u32;
    request.tp_frame_size = 2048;
    request.tp_frame_nr = (BLOCK_SIZE / 2048 * BLOCK_COUNT) as u32;
    request.tp_retire_blk_tov = BLOCK_TIMEOUT_MILLIS;
    set_packet_option(socket, libc::PACKET_RX_RING, &request)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping of the ring just requested, whose length the kernel checks.
    let memory = unsafe { mmap(std::ptr::null_mut(), BLOCK_SIZE * BLOCK_COUNT, access, MapFlags::SHARED, socket, 0) };
    NonNull::new(memory.context("cannot map the ring")?.cast()).context("the ring was mapped at address 0")
}

fn set_packet_option<T>(socket: &OwnedFd, name: i32, value: &T) -> Result<()> {
    let length = size_of::<T>() as u32;
    // SAFETY: `value` is live and of the length given.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, std::ptr::from_ref(value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("cannot set a packet socket option") }
}

/// The index of an interface, if it exists.
fn interface_index(name: &CString) -> Option<i32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    let index = netdevice::name_to_index(socket, name.to_str().ok()?).ok()?;
    i32::try_from(index).ok().filter(|index| *index > 0)
}

/// The ARPHRD type of an interface: the family of its hardware address.
fn arphrd_type(interface: &str, name: &CString) -> Result<u16> {
    // glibc and musl have different types for it; the number fits both.
    const REQUEST: libc::Ioctl = 0x8927;
    const _: () = assert!(libc::SIOCGIFHWADDR == 0x8927);
    // SAFETY: zeros are a valid ifreq.
    let mut request: libc::ifreq = unsafe { zeroed() };
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() >= request.ifr_name.len() || interface_index(name).is_none() {
        bail!("no interface {interface:?} here; there are: {}", interface_names().join(", "));
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(bytes) {
        *slot = byte.cast_signed();
    }
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .context("cannot open a socket")?;
    // SAFETY: a live ifreq with a name that ends in a zero; the kernel fills in the address.
    unsafe {
        if libc::ioctl(socket.as_raw_fd(), REQUEST, &raw mut request) != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("cannot get the link type of {interface}"));
        }
        Ok(request.ifr_ifru.ifru_hwaddr.sa_family)
    }
}

/// The names of all interfaces of this network namespace. (`/sys` may show another namespace's.)
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
