//! The events that the kernel sends to a listener: they are there when the packet that caused them has gone through.
use super::ctnetlink_dump::{CT_DELETE, CT_NEW, parse_row};
use super::event_row::EventRow;
use super::syscalls;
use anyhow::{Context, Result};
use keepstate_engine::EventKind;
use std::fs::File;
use std::io::{ErrorKind, Read};

/// The groups of new, changed and ended connections.
const GROUPS: [libc::c_int; 3] = [1, 2, 3];
/// More than the events of a flush.
const RECEIVE_BUFFER: libc::c_int = 256 << 20;
const NLM_F_CREATE: u16 = 0x400;

/// A listener in the namespace it was opened in.
pub struct CtnetlinkEvents {
    socket: File,
    buffer: Vec<u8>,
}

impl CtnetlinkEvents {
    pub fn open() -> Result<CtnetlinkEvents> {
        let socket = syscalls::netfilter_listener(&GROUPS, RECEIVE_BUFFER).context("a netlink socket for events")?;
        Ok(CtnetlinkEvents { socket, buffer: vec![0; 1 << 16] })
    }

    /// The events since the last call.
    pub fn read(&mut self) -> Result<Vec<EventRow>> {
        let mut events = Vec::new();
        loop {
            let length = match self.socket.read(&mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(events),
                Err(error) => return Err(error).context("reading the kernel's events"),
            };
            let mut rest = &self.buffer[..length];
            while rest.len() >= 16 {
                let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let kind = match (u16::from_ne_bytes([rest[4], rest[5]]), u16::from_ne_bytes([rest[6], rest[7]])) {
                    (CT_NEW, flags) if flags & NLM_F_CREATE != 0 => Some(EventKind::New),
                    (CT_NEW, _) => Some(EventKind::Update),
                    (CT_DELETE, _) => Some(EventKind::Destroy),
                    _ => None,
                };
                // After the netlink header and netfilter's.
                let row = rest.get(20..size).and_then(parse_row);
                events.extend(kind.zip(row).map(|(kind, row)| EventRow::new(kind, row)));
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}
