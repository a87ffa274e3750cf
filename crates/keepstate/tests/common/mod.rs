//! Captures for tests, built byte by byte, and the program run on them.
#![allow(dead_code, reason = "each test file uses its own part of this")]
use keepstate_wire::checksum::{Sum, internet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[allow(unused_imports, reason = "each test file uses its own part of this")]
pub use keepstate_test_support::report_skipped;

/// What one run of the program left.
pub struct ProgramOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs `keepstate` with `arguments` and `input` on its standard input.
pub fn keepstate(arguments: &[&str], input: &[u8]) -> ProgramOutput {
    let mut child = Command::new(env!("CARGO_BIN_EXE_keepstate"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may have had enough before the end.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    ProgramOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A file for one test, removed with it.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(name: &str, content: &[u8]) -> TempFile {
        let path = std::env::temp_dir().join(format!("keepstate-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        TempFile(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A UDP datagram from 10.0.0.1:`port` to 10.0.0.2:53, or its answer.
pub fn udp_packet(port: u16, answer: bool) -> Vec<u8> {
    let (client, server) = (([10, 0, 0, 1], port), ([10, 0, 0, 2], 53));
    let (from, to) = if answer { (server, client) } else { (client, server) };
    let mut udp = [from.1.to_be_bytes(), to.1.to_be_bytes(), [0, 12], [0, 0], *b"ke", *b"ep"].concat();
    let sum = Sum::new().add_bytes(&from.0).add_bytes(&to.0).add_u16(17).add_u16(12).add_bytes(&udp).finish();
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut ip = vec![0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0];
    ip.extend(from.0.iter().chain(&to.0));
    let check = internet(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&check);
    ip.extend(udp);
    ip
}

/// A question and its answer, a millisecond apart: nanoseconds and datagram.
pub fn udp_request_and_reply() -> Vec<(u64, Vec<u8>)> {
    vec![(1_700_000_000_000_000_000, udp_packet(4000, false)), (1_700_000_000_001_000_000, udp_packet(4000, true))]
}

/// The line that the conversation leaves, right after the answer.
pub const UDP_ENTRY_LINE: &str = "udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000 mark=0 use=1\n";

/// The order of bytes in a capture's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub fn put_u16(self, number: u16) -> [u8; 2] {
        if self == ByteOrder::Little { number.to_le_bytes() } else { number.to_be_bytes() }
    }

    pub fn put_u32(self, number: u32) -> [u8; 4] {
        if self == ByteOrder::Little { number.to_le_bytes() } else { number.to_be_bytes() }
    }
}

/// Link types by their numbers: see the list of tcpdump.org.
pub mod linktype {
    pub const NULL: u16 = 0;
    pub const ETHERNET: u16 = 1;
    pub const RAW: u16 = 101;
    pub const LOOP: u16 = 108;
    pub const COOKED: u16 = 113;
    pub const IPV4: u16 = 228;
    pub const COOKED_2: u16 = 276;
}

/// A datagram in a frame of a link type.
pub fn link_frame(link: u16, datagram: &[u8]) -> Vec<u8> {
    let header: &[u8] = match link {
        linktype::NULL => &[2, 0, 0, 0],
        linktype::LOOP => &[0, 0, 0, 2],
        linktype::ETHERNET => &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0],
        linktype::COOKED => &[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0],
        linktype::COOKED_2 => &[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0],
        _ => &[],
    };
    [header, datagram].concat()
}

/// A pcap file; `nanos` chooses its magic number.
pub fn pcap(order: ByteOrder, nanos: bool, link: u16, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let magic = if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut file = order.put_u32(magic).to_vec();
    file.extend(order.put_u16(2).iter().chain(&order.put_u16(4)));
    file.extend([0; 8]);
    file.extend(order.put_u32(65535).iter().chain(&order.put_u32(u32::from(link))));
    for (time, bytes) in frames {
        let part = if nanos { time % 1_000_000_000 } else { time % 1_000_000_000 / 1000 };
        let length = bytes.len() as u32;
        for number in [(time / 1_000_000_000) as u32, part as u32, length, length] {
            file.extend(order.put_u32(number));
        }
        file.extend(bytes);
    }
    file
}

/// One block of a pcapng file, padded and with its length at both ends.
pub fn pcapng_block(order: ByteOrder, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = order.put_u32(padded as u32 + 12);
    let mut block = [&order.put_u32(kind)[..], &length, body].concat();
    block.resize(8 + padded, 0);
    block.extend(length);
    block
}

/// The block that begins a section.
pub fn section_header_block(order: ByteOrder) -> Vec<u8> {
    let body = [&order.put_u32(0x1a2b_3c4d)[..], &order.put_u16(1), &order.put_u16(0), &[0xff; 8]].concat();
    pcapng_block(order, 0x0a0d_0d0a, &body)
}

/// The block that describes an interface; `resolution` is the exponent of its clock's unit (10⁻ᴺ seconds).
pub fn interface_description_block(order: ByteOrder, link: u16, resolution: u8) -> Vec<u8> {
    let option =
        [&order.put_u16(9)[..], &order.put_u16(1), &[resolution, 0, 0, 0], &order.put_u16(0), &order.put_u16(0)]
            .concat();
    pcapng_block(order, 1, &[&order.put_u16(link)[..], &[0, 0], &order.put_u32(0), &option].concat())
}

/// A packet block; `time` in the interface's unit.
pub fn enhanced_packet_block(order: ByteOrder, interface: u32, time: u64, frame: &[u8]) -> Vec<u8> {
    let length = order.put_u32(frame.len() as u32);
    let stamp = [order.put_u32((time >> 32) as u32), order.put_u32(time as u32)].concat();
    pcapng_block(order, 6, &[&order.put_u32(interface)[..], &stamp, &length, &length, frame].concat())
}

/// A pcapng file of one interface with a clock of microseconds.
pub fn pcapng(order: ByteOrder, link: u16, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = [section_header_block(order), interface_description_block(order, link, 6)].concat();
    for (time, bytes) in frames {
        file.extend(enhanced_packet_block(order, 0, time / 1000, bytes));
    }
    file
}

/// The conversation in frames of a link type.
pub fn framed_conversation(link: u16) -> Vec<(u64, Vec<u8>)> {
    udp_request_and_reply().into_iter().map(|(time, datagram)| (time, link_frame(link, &datagram))).collect()
}

/// The tags of an XML text that are not closed at its end; it panics where one is closed that was not open.
pub fn open_tags(xml: &str) -> Vec<String> {
    let mut open = Vec::new();
    for piece in xml.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap();
        assert!(!text.contains(['>', '"']), "{text}");
        let name = tag.split(' ').next().unwrap();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "{xml}"),
            None if name.starts_with('?') || tag.ends_with('/') => (),
            None => open.push(name.to_owned()),
        }
    }
    open
}
