//! Changes of a datagram's header that rules have asked for, made when it leaves the hook.
use super::{Loss, Router, Trip};
use keepstate_rules::Change;
use keepstate_rules::Ground;
use keepstate_rules::tree::{BitRange, End, Layer};

impl Router {
    /// Changes of the header that rules have asked for.
    pub(super) fn change(&self, trip: &mut Trip) -> Result<(), Loss> {
        if trip.way.changes.is_empty() {
            return Ok(());
        }
        let mtu = trip.way.oif.map_or(u32::MAX, |device| self.map.mtu(device.index));
        let changes = std::mem::take(&mut trip.way.changes);
        let mut rewrite = trip.rewrite()?;
        for change in changes {
            match change {
                Change::Dscp(class) => rewrite.dscp(class),
                Change::Ttl(hops) => rewrite.hop_limit(hops),
                Change::MaxSegment(0) => {
                    let headers = if rewrite.bytes().first().is_some_and(|first| first >> 4 == 6) { 60 } else { 40 };
                    rewrite.max_segment(u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX));
                }
                Change::Address(End::Source, address) => {
                    rewrite.source(address);
                }
                Change::Address(End::Destination, address) => {
                    rewrite.destination(address);
                }
                Change::Port(End::Source, port) => {
                    rewrite.source_port(port);
                }
                Change::Port(End::Destination, port) => {
                    rewrite.destination_port(port);
                }
                Change::Bits(field, value) => {
                    let BitRange { from, count } = field.bits;
                    // What a rule names by its place alone is changed alone, as Linux does.
                    let summed = field.protocol.is_some() || field.v6.is_some();
                    let transport = field.layer == Layer::Transport;
                    rewrite.bits(transport, from.into(), count.into(), value, summed);
                }
                Change::Strip(kind) => {
                    rewrite.strip_option(kind);
                }
                Change::MaxSegment(most) => {
                    rewrite.max_segment(most);
                }
            }
        }
        Ok(())
    }
}
