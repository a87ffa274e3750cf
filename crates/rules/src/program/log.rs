//! A line for the log about one packet, in the manner of the kernel's.
use super::load::end_of;
use super::scene::{Device, Scene};
use crate::tree::{End, Log};
use std::fmt::Write;

impl Log {
    /// The line: prefix, devices, addresses, length, protocol, ports.
    pub(super) fn line(&self, scene: &Scene<'_, '_>) -> String {
        let packet = scene.packet;
        let name = |device: Option<Device>| device.map(|device| device.shown()).unwrap_or_default();
        let mut line = format!(
            "{}IN={} OUT={} SRC={} DST={} LEN={} TTL={} PROTO={}",
            self.prefix,
            name(scene.way.iif),
            name(scene.way.oif),
            end_of(packet, End::Source),
            end_of(packet, End::Destination),
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
        if scene.way.mark != 0 {
            let _ = write!(line, " MARK={:#x}", scene.way.mark);
        }
        line
    }
}

impl Device {
    /// Its name.
    pub fn shown(&self) -> String {
        let octets = self.name.to_be_bytes();
        let letters = octets.split(|octet| *octet == 0).next().unwrap_or_default();
        String::from_utf8_lossy(letters).into_owned()
    }
}
