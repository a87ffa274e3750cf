//! Runs a connection's helper on the payload of its control channel and creates the expectations it returns.
//!
//! It runs on confirmation. It must never create an expectation from a packet that a rule has dropped, or from a partial payload.
use crate::expectation::{ExpectError, ExpectFlags, ExpectMask, ExpectNat, Expectation};
use crate::helper::HelperState;
use crate::helper::ftp::{DataEndpoint, FtpParseResult, FtpSegment, format_cmd};
use crate::helper::tftp;
use crate::helper_packet::HelperPacket;
use crate::protocol::seconds_to_ticks;
use crate::table::TupleRef;
use crate::time::Ticks;
use crate::{CtInfo, CtVerdict, Direction, Engine, Helper, Instant, Outcome, Reason, Status, Tuple};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use keepstate_types::ipproto;
use keepstate_wire::Packet;
use keepstate_wire::rewrite::mangle_tcp_payload;

impl Engine {
    /// The payload of `packet` for the helper, if its connection has a helper or adjusted sequence numbers and, where it is TCP's, is ESTABLISHED. A packet that
    /// a capture has truncated has no payload for the helper.
    #[inline]
    pub(crate) fn helper_packet(&self, packet: &Packet<'_>, outcome: &Outcome) -> Option<HelperPacket> {
        let connection = outcome.connection?;
        let status = self.table.records.hot(connection.slot)?.status();
        // A TFTP server answers from another port: the connection stays NEW.
        let is_parsed =
            outcome.info == CtInfo::Established || outcome.info == CtInfo::New && packet.protocol() == ipproto::UDP;
        if status.intersects(Status::HELPER.union(Status::SEQ_ADJUST)) && is_parsed {
            HelperPacket::copy_payload(packet, connection, outcome.direction?, status)
        } else {
            None
        }
    }

    /// Runs the connection's helper. As in Linux, the packet is dropped if its command cannot be parsed, expected or rewritten: the sender
    /// will retransmit it.
    #[cold]
    pub(crate) fn run_helper(
        &mut self,
        packet_data: &HelperPacket,
        outcome: Outcome,
        datagram: Option<&mut Vec<u8>>,
        now: Instant,
    ) -> Outcome {
        match self.process_helper_packet(packet_data, datagram, now) {
            Ok(()) => outcome,
            Err(reason) => {
                self.count_reason(reason);
                Outcome { verdict: CtVerdict::Drop, reason: Some(reason), ..outcome }
            }
        }
    }

    /// Runs the helper of the connection that this datagram has just begun.
    #[cold]
    pub(crate) fn run_helper_on_first(&mut self, outcome: Outcome, datagram: Option<&[u8]>, now: Instant) -> Outcome {
        let payload = datagram.zip(outcome.connection).and_then(|(bytes, connection)| {
            let packet = Packet::parse(bytes).ok().filter(|packet| packet.protocol() == ipproto::UDP)?;
            HelperPacket::copy_payload(&packet, connection, Direction::Original, Status::HELPER)
        });
        match payload {
            Some(packet_data) => self.run_helper(&packet_data, outcome, None, now),
            None => outcome,
        }
    }

    fn process_helper_packet(
        &mut self,
        packet_data: &HelperPacket,
        mut datagram: Option<&mut Vec<u8>>,
        now: Instant,
    ) -> Result<(), Reason> {
        if self.table.records.hot(packet_data.connection.slot).is_none_or(|hot| !hot.is_confirmed())
            || self.conn_id(packet_data.connection.slot) != packet_data.connection
        {
            return Ok(());
        }
        let ends = self.endpoints(packet_data);
        if let Some(ends) = ends.as_ref().filter(|ends| ends.helper == Helper::Tftp) {
            let is_request = tftp::is_request(&packet_data.data);
            return if is_request { self.expect_tftp_answer(packet_data, ends, now) } else { Ok(()) };
        }
        if let Some(ends) = ends
            && let Some(announcement) = self.parse_helper_payload(packet_data, &ends)?
        {
            self.create_expectation(packet_data, &announcement, &ends, datagram.as_deref_mut(), now)?;
        }
        let renumbered = datagram
            .is_none_or(|datagram| self.seq_adjust(packet_data.connection.slot, packet_data.direction, datagram));
        if renumbered { Ok(()) } else { Err(Reason::HelperUnwritable) }
    }

    /// The tuples of the segment's direction and of the opposite one, and the helper; `None` without a helper.
    fn endpoints(&self, packet_data: &HelperPacket) -> Option<HelperEndpoints> {
        let HelperPacket { connection, direction, .. } = *packet_data;
        let hot = self.table.records.hot(connection.slot)?;
        let key = |direction| self.table.records.key(TupleRef::new(connection.slot, direction)).map(|key| key.tuple());
        let helper = self.extensions.find(connection.slot)?.helper_state?.helper();
        let translated = is_translated(hot.status());
        Some(HelperEndpoints { own: key(direction)?, other: key(direction.opposite())?, translated, helper })
    }

    fn parse_helper_payload(
        &mut self,
        packet_data: &HelperPacket,
        ends: &HelperEndpoints,
    ) -> Result<Option<DataEndpoint>, Reason> {
        let HelperPacket { connection, direction, seq, .. } = *packet_data;
        let Some(helper_state) = self.extensions.helper_state_mut(connection.slot) else { return Ok(None) };
        let result = match helper_state {
            HelperState::Tftp => FtpParseResult::NoMatch,
            HelperState::Ftp(_) if packet_data.data.is_empty() => FtpParseResult::NoMatch,
            HelperState::Ftp(ftp) => {
                ftp.parse_segment(&FtpSegment { direction, seq, sender: ends.own.source, payload: &packet_data.data })
            }
        };
        self.dirty.mark_dirty(connection.slot);
        match result {
            FtpParseResult::NoMatch | FtpParseResult::ThirdParty(_) => Ok(None),
            FtpParseResult::Partial => Err(Reason::HelperPartial),
            FtpParseResult::Expect(announcement) => Ok(Some(announcement)),
        }
    }

    /// Creates an expectation for the announced endpoint. With NAT, the announcement in `datagram` is rewritten to the address and port that the other
    /// side sees.
    fn create_expectation(
        &mut self,
        packet_data: &HelperPacket,
        announcement: &DataEndpoint,
        ends: &HelperEndpoints,
        datagram: Option<&mut Vec<u8>>,
        now: Instant,
    ) -> Result<(), Reason> {
        let HelperEndpoints { own, other, translated, helper } = *ends;
        let slot = packet_data.connection.slot;
        let fresh = Expectation {
            master: packet_data.connection,
            tuple: Tuple {
                source: other.source,
                destination: other.destination,
                protocol: ipproto::TCP,
                source_key: 0,
                destination_key: announcement.port,
            },
            mask: ExpectMask { source: full_address_mask(other.source), source_key: 0 },
            zone: self.table.records.zone(slot).id,
            class: 0,
            helper: Some(helper),
            flags: ExpectFlags::default(),
            nat: None,
            deadline: now.after_ticks(seconds_to_ticks(helper.expect_timeout_seconds())),
        };
        let Some(datagram) = datagram.filter(|_| translated) else { return self.add_expectation(fresh, now) };
        let follow = ExpectNat { source: own.destination, destination: own.source, port: announcement.port };
        let port = self.expect_on_free_port(Expectation { nat: Some(follow), ..fresh }, now)?;
        let text = format_cmd(announcement.ftp_type, other.destination, port);
        if !mangle_tcp_payload(datagram, announcement.match_range.clone(), text.as_bytes()) {
            let removed = self.expectations.remove_master(packet_data.connection);
            self.counters.expect_delete += removed.len() as u64;
            return Err(Reason::HelperUnwritable);
        }
        // Both are lengths of packets, and the difference is meant modulo 2³².
        let by = (text.len() as u32).wrapping_sub(announcement.match_range.len() as u32);
        self.seqadj_set(slot, packet_data.direction, packet_data.seq, by);
        Ok(())
    }

    /// Creates an expectation for the answer to a TFTP request: from any port of the server to the client's.
    fn expect_tftp_answer(
        &mut self,
        packet_data: &HelperPacket,
        ends: &HelperEndpoints,
        now: Instant,
    ) -> Result<(), Reason> {
        let (original, reply) = match packet_data.direction {
            Direction::Original => (ends.own, ends.other),
            Direction::Reply => (ends.other, ends.own),
        };
        let follow =
            ExpectNat { source: original.destination, destination: original.source, port: original.source_key };
        let answer = Expectation {
            master: packet_data.connection,
            tuple: Tuple { source_key: 0, ..reply },
            mask: ExpectMask { source: full_address_mask(reply.source), source_key: 0 },
            zone: self.table.records.zone(packet_data.connection.slot).id,
            class: 0,
            helper: Some(ends.helper),
            flags: ExpectFlags::default(),
            nat: ends.translated.then_some(follow),
            deadline: now.after_ticks(seconds_to_ticks(ends.helper.expect_timeout_seconds())),
        };
        self.add_expectation(answer, now)
    }

    /// Creates an expectation for the announced port or, if that clashes, for a random port above it. Returns the port.
    fn expect_on_free_port(&mut self, fresh: Expectation, now: Instant) -> Result<u16, Reason> {
        let least = fresh.tuple.destination_key;
        let above = u16::MAX - least;
        let mut tuple = fresh.tuple;
        let mut left = above.min(MAX_PORT_ATTEMPTS);
        loop {
            match self.add_expectation(Expectation { tuple, ..fresh }, now) {
                Ok(()) => return Ok(tuple.destination_key),
                Err(Reason::ExpectClash) if left > 1 => left -= 1,
                Err(reason) => return Err(reason),
            }
            tuple.destination_key = least + self.nat.random_u16() % above;
        }
    }

    pub(crate) fn add_expectation(&mut self, fresh: Expectation, now: Instant) -> Result<(), Reason> {
        let before = self.expectations.len() as u64;
        let limits = self.expect_limits(fresh.helper);
        let error = self.expectations.expect_related(fresh, limits, now).err();
        let created = u64::from(error.is_none());
        self.counters.expect_create += created;
        self.counters.expect_delete += (before + created).saturating_sub(self.expectations.len() as u64);
        match error {
            None => Ok(()),
            Some(ExpectError::Clash) => Err(Reason::ExpectClash),
            Some(ExpectError::Full) => {
                self.log_expectations_full(now);
                Err(Reason::ExpectFull)
            }
        }
    }

    pub(crate) fn log_expectations_full(&mut self, now: Instant) {
        self.log.push_ratelimited(now, || String::from("nf_conntrack: expectation table full"));
    }
}

/// The tuples and the helper of a connection, seen from the segment's direction.
struct HelperEndpoints {
    own: Tuple,
    other: Tuple,
    translated: bool,
    helper: Helper,
}

const fn is_translated(status: Status) -> bool {
    status.intersects(Status::SRC_NAT.union(Status::DST_NAT))
}

/// The mask that compares every bit of an address.
pub(crate) const fn full_address_mask(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    }
}

/// Ports tried if the announced one is taken.
const MAX_PORT_ATTEMPTS: u16 = 128;
