//! Classes of new TCP connections, for a data path that opens connections by itself ([`crate::SynClass`]).
use super::{InFlightPacket, Router};
use crate::cluster_duty::ClusterDuty;
use crate::known_flow::{FlowSource, FlowTarget, NotedWay};
use crate::syn_class::{SynClass, SynClasses};
use keepstate_engine::{ConnId, Instant, NatPolicy, Sysctl, Tuple};

/// The purpose of the key of classes.
const CLASSES: u64 = 4;

impl Router {
    /// The data path of [`Router::with_handshake_offload`] lets first SYNs go on by itself where they are of a class that [`Router::poll_syn_class`] has told.
    #[must_use]
    pub fn with_syn_classes(mut self) -> Router {
        let key = self.key.derive(super::KeyPurpose::Flows as u64).derive(CLASSES);
        self.syn_classes = Some(SynClasses::new(key));
        self
    }

    /// A class of new connections that the rules judge alike. `None` if there is no further one.
    pub fn poll_syn_class(&mut self) -> Option<SynClass> {
        self.syn_classes.as_mut()?.pop_ready()
    }

    /// Changes when all classes told so far are void.
    pub fn syn_class_generation(&self) -> u64 {
        self.syn_classes.as_ref().map_or(0, SynClasses::generation)
    }

    /// The data path has opened a connection by class; was it taken back, since the router judged it otherwise?
    pub fn count_opened(&mut self, is_taken_back: bool) {
        self.syn_classes.iter_mut().for_each(|classes| classes.count_opened(is_taken_back));
    }

    /// How many connections the data path may open by itself before it tells of them: none near the limit of the table, nor in a flood.
    pub fn opening_budget(&self) -> usize {
        let (count, limit) = (self.engine.count(), self.engine.sysctls()[Sysctl::Max] as usize);
        // A limit of zero is none.
        let room = if limit == 0 { usize::MAX } else { limit.saturating_sub(count) };
        let opening = self.flows.as_ref().map_or(0, |flows| flows.opening_room());
        if self.may_have_classes() { (room / 8).min(opening / 2).min(MAX_BUDGET) } else { 0 }
    }

    /// All classes told so far are void; those that are still in use are found again.
    pub fn forget_classes(&mut self) {
        self.syn_classes.iter_mut().for_each(SynClasses::forget_all);
    }

    /// The data path has no room for a class that it was told: all are void, and those that are still in use are found again. False if that was done a short while ago.
    pub fn make_room_for_classes(&mut self, now: Instant) -> bool {
        self.syn_classes.as_mut().is_some_and(|classes| classes.make_room(now))
    }

    /// Does nothing but rules, sets and routes decide what becomes of a new connection?
    fn may_have_classes(&self) -> bool {
        let is_alone = self.duty.shards.is_none() && self.duty.duty == ClusterDuty::Active { until: None };
        is_alone
            && !self.draining
            && self.taps.is_empty()
            && self.services.is_empty()
            && self.engine.admission().is_none()
            && *self.engine.nat_policy() == NatPolicy::default()
    }

    /// The ways of the packets that follow a first SYN, if it is one of a class that was told: the rules need not be asked again.
    pub(super) fn ways_of_class(
        &self,
        tuple: &Tuple,
        pkt: &InFlightPacket,
        source: FlowSource,
        target: FlowTarget,
    ) -> Option<[NotedWay; 2]> {
        let classes = self.syn_classes.as_ref().filter(|_| self.may_have_classes() && is_of_ends(pkt))?;
        let [original, reply] = classes.ways_of(source, tuple).filter(|[original, _]| original.target() == target)?;
        // Any change that concerns them has voided the class.
        let flows = self.flows.as_ref()?;
        Some([flows.renewed(original), flows.renewed(reply)])
    }

    /// A connection was offered whose further packets, by these ways, other connections of the same ends share: would their first SYN be judged as its was?
    pub(super) fn learn_class(
        &mut self,
        conn_id: ConnId,
        pkt: &InFlightPacket,
        target: FlowTarget,
        ways: [NotedWay; 2],
    ) {
        if self.syn_classes.is_none() || !self.may_have_classes() {
            return;
        }
        let by_flow = self.route_oracle.as_ref().is_some_and(|oracle| oracle.goes_by_flow());
        let Some(flows) = self.flows.as_ref().and_then(|flows| flows.last_offered(conn_id)).copied() else { return };
        let [original, reply] = &flows;
        let keeps_port = original.tuple.source_key == original.translated.source_key
            && reply.translated.destination_key == original.tuple.source_key;
        if is_of_ends(pkt) && !by_flow && keeps_port && original.target == target {
            let engine = &self.engine;
            self.syn_classes.iter_mut().for_each(|classes| classes.note(&flows, ways.clone(), engine, pkt.now));
        }
    }
}

/// Were the first SYNs of all connections of the same ends judged as this one?
fn is_of_ends(pkt: &InFlightPacket) -> bool {
    let trace = &pkt.meta.trace;
    trace.holds.is_empty() && !trace.one_connection && !trace.status_read && !trace.mark_set && !pkt.came_marked
}

/// Connections between two times that the data path's news are read.
const MAX_BUDGET: usize = 8192;

#[cfg(test)]
mod tests;
