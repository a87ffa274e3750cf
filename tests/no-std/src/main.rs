//! Tracks one TCP handshake without std: proof that wire and engine need none.
//!
//! A program without std brings its own panic handler. If any crate below it linked std, there would be two, and the compiler
//! would refuse. The exit status is 0 when the engine says what it should of the three packets.
#![no_std]
#![no_main]

extern crate alloc;

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{c_int, c_void};
use keepstate_engine::{CtInfo, Direction, Engine, Instant, Secret, Sysctls, Zone};
use keepstate_wire::Packet;

/// The C library's allocator: what stands in for an operating system's here.
struct Malloc;

#[link(name = "c")]
unsafe extern "C" {
    fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void;
    fn free(memory: *mut c_void);
    fn abort() -> !;
}

// SAFETY: aligned_alloc returns null or `size` octets at a multiple of `alignment`, and free takes back what it gave.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: a layout's alignment is a power of two; the size is rounded up to a multiple of it, as C11 asks.
        unsafe { aligned_alloc(layout.align().max(16), layout.size().next_multiple_of(layout.align().max(16))).cast() }
    }
    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: `memory` came from `alloc` above.
        unsafe { free(memory.cast()) }
    }
}

#[global_allocator]
static ALLOCATOR: Malloc = Malloc;

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes nothing and never returns.
    unsafe { abort() }
}

/// The prebuilt `alloc` names it in its unwinding tables; with panics that abort it is never called.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {}

/// As above: where an unwinding would go on.
#[unsafe(no_mangle)]
pub extern "C" fn _Unwind_Resume() {}

/// Where the C library's start-up code enters.
#[unsafe(no_mangle)]
pub extern "C" fn main(_: c_int, _: *const *const u8) -> c_int {
    let start = Instant::default();
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    let handshake = [
        (segment(CLIENT, SERVER, SYN, 1000, 0), CtInfo::New, Direction::Original),
        (segment(SERVER, CLIENT, SYN | ACK, 9000, 1001), CtInfo::Established, Direction::Reply),
        (segment(CLIENT, SERVER, ACK, 1001, 9001), CtInfo::Established, Direction::Original),
    ];
    for (bytes, info, direction) in &handshake {
        let Ok(packet) = Packet::parse(bytes) else { return 1 };
        let outcome = engine.handle(&packet, Zone::default(), start);
        if outcome.info != *info || outcome.direction != Some(*direction) {
            return 2;
        }
    }
    if engine.count() == 1 { 0 } else { 3 }
}

const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 1], 40000);
const SERVER: ([u8; 4], u16) = ([198, 51, 100, 1], 1883);
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// One IPv4 TCP segment without data or options, its checksums right.
fn segment(from: ([u8; 4], u16), to: ([u8; 4], u16), flags: u8, seq: u32, ack: u32) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[0] = 0x45;
    bytes[3] = 40;
    bytes[8] = 64;
    bytes[9] = 6;
    bytes[12..16].copy_from_slice(&from.0);
    bytes[16..20].copy_from_slice(&to.0);
    bytes[20..22].copy_from_slice(&from.1.to_be_bytes());
    bytes[22..24].copy_from_slice(&to.1.to_be_bytes());
    bytes[24..28].copy_from_slice(&seq.to_be_bytes());
    bytes[28..32].copy_from_slice(&ack.to_be_bytes());
    bytes[32] = 0x50;
    bytes[33] = flags;
    bytes[34..36].copy_from_slice(&64240u16.to_be_bytes());
    let header = !sum(&bytes[..20], 0);
    bytes[10..12].copy_from_slice(&header.to_be_bytes());
    // The pseudo-header of TCP: both addresses, the protocol and the length (RFC 9293, section 3.1).
    let transport = !sum(&bytes[12..40], 6 + 20);
    bytes[36..38].copy_from_slice(&transport.to_be_bytes());
    bytes
}

/// The ones' complement sum of `bytes` taken as 16-bit words (RFC 1071), begun with `start`.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut total = start;
    for word in bytes.chunks_exact(2) {
        total += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}
