//! A line for the log about one packet, in the manner of the kernel's.
use super::context::{EvalCtx, InterfaceInfo};
use super::eval_selector::packet_address;
use crate::ast::{Endpoint, Log};
use std::fmt::Write;

impl Log {
    /// The line: prefix, devices, addresses, length, protocol, ports.
    pub(super) fn format_line(&self, scene: &EvalCtx<'_, '_>) -> String {
        let packet = scene.packet;
        let name = |device: Option<InterfaceInfo>| device.map(|device| device.display_name()).unwrap_or_default();
        let mut line = format!(
            "{}IN={} OUT={} SRC={} DST={} LEN={} TTL={} PROTO={}",
            self.prefix,
            name(scene.meta.iif),
            name(scene.meta.oif),
            packet_address(packet, Endpoint::Source),
            packet_address(packet, Endpoint::Destination),
            packet.total_len(),
            packet.hop_limit(),
            packet.protocol(),
        );
        if let (6 | 17 | 132 | 136, Some((source, destination))) = (packet.protocol(), packet.ports()) {
            // A String takes everything.
            let _ = write!(line, " SPT={source} DPT={destination}");
        }
        if let Some(group) = self.group {
            let _ = write!(line, " GROUP={group}");
        }
        if scene.meta.mark != 0 {
            let _ = write!(line, " MARK={:#x}", scene.meta.mark);
        }
        line
    }
}

impl InterfaceInfo {
    /// Its name.
    pub fn display_name(&self) -> String {
        let octets = self.name.to_be_bytes();
        let letters = octets.split(|octet| *octet == 0).next().unwrap_or_default();
        String::from_utf8_lossy(letters).into_owned()
    }
}
