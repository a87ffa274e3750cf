//! What a router may do as one of a cluster: the one that decides, one that may not at present, or a standby that holds another one's table and is silent.
//!
//! Packets of the machine itself go on in every case, since it must reach the cluster; but none of them gets a translation while another one may decide.
//!
//! With several shards each has its duty. A packet is its connection's: one that another gateway decides is held in the table ([`Engine::hold`](keepstate_engine::Engine::hold)) and its packets are dropped before they change
//! anything of it; a new one is checked when it is confirmed, by the addresses that rules have given it. A router that decides no shard is a standby as with one.
use super::{DropReason, InFlightPacket, Router};
use crate::cluster_duty::{ClusterDuty, DutyCounters, DutyState, ShardDuties};
use crate::shard_addresses::{ConnectionShard, ShardAddresses};
use keepstate_engine::{ConnId, Instant, PacketCtx, Status, Zone, packet_tuple};
use keepstate_rules::Fib;
use keepstate_wire::Packet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

impl Router {
    /// One of a cluster, for now a standby. Packets to the `shared` addresses are for whoever decides, even where this machine has them already.
    #[must_use]
    pub fn with_shared_addresses(mut self, shared: Vec<RangeInclusive<IpAddr>>) -> Router {
        let shared = ShardAddresses::new(&[shared]);
        self.duty = DutyState { duty: ClusterDuty::Standby, shared, ..DutyState::default() };
        self
    }

    /// One of a cluster of several shards, for now a standby of all of them. Their connections, if there are any, are to be held: see [`Router::set_shard_settling`].
    #[must_use]
    pub fn with_shards(mut self, addresses: ShardAddresses) -> Router {
        let shared = addresses.clone();
        // What was restored is not held yet.
        let (duties, settling) = (vec![ClusterDuty::Standby; addresses.count()], vec![true; addresses.count()]);
        let counters = vec![DutyCounters::default(); addresses.count()];
        let shards = Some(ShardDuties { addresses, duties, settling, counters });
        self.duty = DutyState { duty: ClusterDuty::Standby, shared, shards, ..DutyState::default() };
        self
    }

    /// From the next packet on this is its duty for one of several shards. Flows that a data path forwards by itself are revoked if it no more forwards those of the shard.
    pub fn set_shard_duty(&mut self, shard: usize, duty: ClusterDuty) {
        let Some(shards) = &mut self.duty.shards else { return };
        let Some(known) = shards.duties.get_mut(shard) else { return };
        let ends = duty == ClusterDuty::Standby && *known != duty;
        *known = duty;
        let decides_none = shards.duties.iter().all(|duty| *duty == ClusterDuty::Standby);
        self.duty.duty = if decides_none { ClusterDuty::Standby } else { ClusterDuty::Active { until: None } };
        if ends {
            self.revoke_flows();
        }
    }

    /// From the next packet on this is its duty. Flows that a data path forwards by itself are revoked if it forwards no more.
    pub fn set_duty(&mut self, duty: ClusterDuty) {
        if duty == ClusterDuty::Standby && self.duty.duty != duty {
            self.revoke_flows();
        }
        self.duty.duty = duty;
    }

    /// Are the connections of a shard being held or released, after its duty has changed? Until that is done, each packet's connection is looked at.
    pub fn set_shard_settling(&mut self, shard: usize, is_settling: bool) {
        let shards = self.duty.shards.iter_mut();
        shards.filter_map(|shards| shards.settling.get_mut(shard)).for_each(|known| *known = is_settling);
    }

    /// Its duty.
    pub fn duty(&self) -> ClusterDuty {
        self.duty.duty
    }

    /// Packets dropped because of the duty, those of shards and others.
    pub fn duty_counters(&self) -> DutyCounters {
        self.duty.counters
    }

    /// Of these, the packets of one of several shards: of a connection of its, or to an address of its. Zero without several shards.
    pub fn shard_duty_counters(&self, shard: usize) -> DutyCounters {
        let counters = self.duty.shards.as_ref().and_then(|shards| shards.counters.get(shard));
        counters.copied().unwrap_or_default()
    }

    /// A standby takes no packet but those for its machine.
    pub(super) fn check_duty(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        if self.duty.duty != ClusterDuty::Standby {
            return self.check_shard_of_destination(pkt);
        }
        // What cannot be parsed is dropped as that.
        let Ok(to) = pkt.destination() else { return Ok(()) };
        let is_machines = !self.local_replies
            && self.duty.shared.of_address(to).is_none()
            && (self.fib.is_own_address(to, pkt.meta.iif.map(|device| device.index))
                || to.is_multicast()
                || self.fib.is_broadcast(to));
        let shard = self.duty.shards.as_ref().and_then(|shards| shards.addresses.of_address(to));
        if is_machines { Ok(()) } else { Err(self.refuse_as(self.duty.duty, shard)) }
    }

    /// Of several shards: an address of one that another gateway decides is no address of this machine, even if it has it.
    fn check_shard_of_destination(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        let Some(shards) = &self.duty.shards else { return Ok(()) };
        let Ok(to) = pkt.destination() else { return Ok(()) };
        let elsewhere = shards.addresses.of_address(to).filter(|shard| shards.of(*shard) == ClusterDuty::Standby);
        if elsewhere.is_none() {
            return Ok(());
        }
        if self.fib.is_own_address(to, pkt.meta.iif.map(|device| device.index)) {
            return Err(self.refuse_as(ClusterDuty::Standby, elsewhere));
        }
        // It may be sent there by a host behind us; whether it came by mistake, its way shows.
        pkt.to_other_shard = elsewhere;
        Ok(())
    }

    /// A packet to an address that another gateway decides, which would go back where it came from or nowhere, came by mistake: nobody is answered.
    pub(super) fn check_way_to_other_shard(
        &mut self,
        pkt: &InFlightPacket,
        oif: Option<u32>,
    ) -> Result<(), DropReason> {
        let goes_on = oif.is_some() && oif != pkt.meta.iif.map(|device| device.index);
        match pkt.to_other_shard {
            Some(shard) if !goes_on => Err(self.refuse_as(ClusterDuty::Standby, Some(shard))),
            _ => Ok(()),
        }
    }

    /// Before a packet is tracked: is its connection another gateway's? One that has just become ours goes on here, its timer too.
    pub(super) fn check_held(&mut self, packet: &Packet<'_>, zone: Zone, now: Instant) -> Result<(), DropReason> {
        if !self.may_hold() {
            return Ok(());
        }
        let found = packet_tuple(packet).and_then(|tuple| self.engine.find(&tuple, zone, now));
        found.map_or(Ok(()), |(conn_id, _)| self.check_held_connection(conn_id, now))
    }

    /// As [`Router::check_held`], for the connection that an ICMP error was found to be about.
    pub(super) fn check_held_related(&mut self, ctx: &PacketCtx, now: Instant) -> Result<(), DropReason> {
        if !self.may_hold() {
            return Ok(());
        }
        ctx.connection().map_or(Ok(()), |conn_id| self.check_held_connection(conn_id, now))
    }

    fn may_hold(&self) -> bool {
        self.duty.shards.as_ref().is_some_and(|shards| self.engine.held_count() > 0 || shards.is_settling())
    }

    fn check_held_connection(&mut self, conn_id: ConnId, now: Instant) -> Result<(), DropReason> {
        let Some(shards) = &self.duty.shards else { return Ok(()) };
        let is_held = self.engine.is_held(conn_id);
        if !is_held && !shards.is_settling() {
            return Ok(());
        }
        let Some(entry) = self.engine.entry(conn_id, now) else { return Ok(()) };
        let shard = shards.addresses.of_connection(&entry.original, &entry.reply);
        let is_ours = match shard {
            ConnectionShard::Of(shard) => shards.of(shard) != ClusterDuty::Standby,
            ConnectionShard::Local | ConnectionShard::Unassigned => !is_held,
        };
        let ends = [entry.original.source, entry.reply.source];
        let is_machines =
            ends.into_iter().any(|end| self.fib.is_local(end) && self.duty.shared.of_address(end).is_none());
        let place = match shard {
            ConnectionShard::Of(shard) => Some(shard),
            ConnectionShard::Local | ConnectionShard::Unassigned => None,
        };
        match (is_held, is_ours) {
            (true, true) => self.engine.release(conn_id, now),
            (true, false) => return Err(self.refuse_as(ClusterDuty::Standby, place)),
            (false, false) if !is_machines => return Err(self.refuse_as(ClusterDuty::Standby, place)),
            (false, _) => (),
        }
        Ok(())
    }

    /// A standby forwards nothing, and only who decides forwards a new connection.
    pub(super) fn check_duty_to_forward(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        let creates = pkt.ctx.as_mut().is_some_and(|ctx| ctx.unconfirmed().is_some());
        if self.duty.duty == ClusterDuty::Standby || creates && !self.may_create(pkt.now) {
            return Err(self.refuse_by_duty());
        }
        Ok(())
    }

    /// Only who decides gives a new connection a translation; of several shards, only who decides its shard begins it.
    pub(super) fn check_duty_to_create(&mut self, ctx: &mut PacketCtx, pkt: &InFlightPacket) -> Result<(), DropReason> {
        let translated = Status::SRC_NAT | Status::DST_NAT;
        let Some(new) = ctx.unconfirmed() else { return Ok(()) };
        let is_translated = new.status().intersects(translated);
        if is_translated && !self.may_create(pkt.now) {
            return Err(self.refuse_by_duty());
        }
        let Some(shards) = &self.duty.shards else { return Ok(()) };
        match shards.addresses.of_connection(&new.original(), &new.reply()) {
            // The machine itself may speak to an address that another gateway has.
            ConnectionShard::Of(_) if pkt.meta.iif.is_none() && !is_translated => Ok(()),
            ConnectionShard::Of(shard) => {
                let duty = shards.of(shard);
                if duty.may_create(pkt.now) { Ok(()) } else { Err(self.refuse_as(duty, Some(shard))) }
            }
            ConnectionShard::Local => Ok(()),
            ConnectionShard::Unassigned => Err(DropReason::NoShard),
        }
    }

    fn may_create(&self, now: Instant) -> bool {
        self.duty.duty.may_create(now)
    }

    fn refuse_by_duty(&mut self) -> DropReason {
        self.refuse_as(self.duty.duty, None)
    }

    /// Counts a packet of this shard, or of none that is known.
    fn refuse_as(&mut self, duty: ClusterDuty, shard: Option<usize>) -> DropReason {
        self.duty.counters.note(duty);
        let counters = self.duty.shards.as_mut().zip(shard);
        counters.and_then(|(shards, shard)| shards.counters.get_mut(shard)).into_iter().for_each(|of| of.note(duty));
        if duty == ClusterDuty::Standby { DropReason::Standby } else { DropReason::Fenced }
    }
}

#[cfg(test)]
mod shard_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FibTable, Interface};
    use keepstate_engine::{Engine, Secret, Sysctls};
    use keepstate_rules::{NoIncludes, compile, parse_with};
    use keepstate_wire::checksum::Sum;

    const NOW: Instant = Instant(1_000_000_000);
    const LATER: Instant = Instant(2_000_000_000);
    const PEER: [u8; 4] = [192, 0, 2, 9];
    const SHARED: [u8; 4] = [192, 0, 2, 77];
    const OWN: [u8; 4] = [192, 0, 2, 1];

    fn router() -> Router {
        let rules =
            "table ip t { chain p { type nat hook postrouting priority 100; oifname wan0 snat to 192.0.2.77; } }";
        let (tree, sources) = parse_with("test.nft", rules, &NoIncludes, &[]).unwrap();
        let inside = Interface::new(1, "lan0", 1500).with_address([10, 0, 0, 1].into(), 24);
        let outside = Interface::new(2, "wan0", 1500).with_address(OWN.into(), 24);
        let outside = outside.with_address(SHARED.into(), 24);
        let fib = FibTable::new(vec![inside, outside], vec![]);
        let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        Router::new(engine, compile(&tree, &sources).unwrap(), fib, (1, 2))
            .with_shared_addresses(vec![SHARED.into()..=SHARED.into()])
    }

    fn packet(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
        packet.extend(from.into_iter().chain(to));
        let sum = Sum::new().add_bytes(&packet).finish().to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend([0x13, 0x88, 0x13, 0x88, 0, 8, 0, 0]);
        packet
    }

    /// What becomes of a datagram that comes in; nothing is answered.
    fn send(router: &mut Router, iif: u32, (from, to): ([u8; 4], [u8; 4]), now: Instant) -> Result<(), DropReason> {
        let result = router.handle(&packet(from, to), iif, now);
        let sent = std::iter::from_fn(|| router.poll_output()).count();
        assert_eq!(sent, usize::from(result.is_ok()));
        result
    }

    #[test]
    fn only_who_decides_creates_and_a_standby_is_silent() {
        let mut router = router();
        let [new, other] = [2, 3].map(|host| ([10, 0, 0, host], PEER));
        assert_eq!(send(&mut router, 1, new, NOW), Err(DropReason::Standby));
        router.set_duty(ClusterDuty::Active { until: Some(LATER) });
        assert_eq!(send(&mut router, 1, new, NOW), Ok(()));
        // Its time is over, and nobody has said so.
        assert_eq!(send(&mut router, 1, new, LATER), Ok(()));
        assert_eq!(send(&mut router, 1, other, LATER), Err(DropReason::Fenced));
        router.set_duty(ClusterDuty::Fenced);
        assert_eq!((send(&mut router, 1, new, NOW), send(&mut router, 2, (PEER, SHARED), NOW)), (Ok(()), Ok(())));
        assert_eq!(send(&mut router, 1, other, NOW), Err(DropReason::Fenced));
        assert_eq!(router.engine().count(), 1);
        let generation = router.flow_generation();
        router.set_duty(ClusterDuty::Standby);
        assert_ne!(router.flow_generation(), generation, "known flows end too");
        for (iif, ends) in [(1, new), (1, other), (2, (PEER, SHARED))] {
            assert_eq!(send(&mut router, iif, ends, NOW), Err(DropReason::Standby), "{ends:?}");
        }
        assert_eq!(router.duty_counters(), DutyCounters { standby: 4, fenced: 2 });
    }

    #[test]
    fn the_machine_itself_is_reached_but_gets_no_translation() {
        let mut router = router();
        assert_eq!(send(&mut router, 2, (PEER, OWN), NOW), Ok(()));
        // The rule would give its own packets the shared address.
        let mut own = packet(OWN, PEER);
        own[20..22].copy_from_slice(&[0x20, 0]);
        assert_eq!(router.handle_output(&mut own, None, 2, NOW), Err(DropReason::Standby));
        router.set_duty(ClusterDuty::Active { until: None });
        assert_eq!(router.handle_output(&mut own, None, 2, NOW), Ok(()));
    }
}
