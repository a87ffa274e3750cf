//! Known flows of a router: what a driver with a faster data path asks and reports.
use super::Router;
use crate::known_flow::{FlowOffloadStats, FlowReport, FlowSource, FlowTarget, FlowTracker, FlowWay, KnownFlow};
use crate::route_scope::RouteScope;
use crate::syn_class::SynClasses;
use keepstate_engine::{ConnId, FlowStats, Instant};
use keepstate_rules::LookupScope;

impl Router {
    /// All flows are judged anew: rules, sets or routes have changed.
    pub fn revoke_flows(&mut self) {
        self.engine.revoke_all();
        self.flows.iter_mut().for_each(FlowTracker::forget_candidates);
        self.flow_generation += 1;
        self.forget_classes();
    }

    /// The flows to some destinations are judged anew.
    pub(super) fn revoke_flows_to(&mut self, scope: &RouteScope) {
        let engine = &mut self.engine;
        if !self.flows.as_mut().is_some_and(|flows| flows.revoke_to(scope, engine)) {
            return self.revoke_flows();
        }
        if !scope.is_empty() {
            self.forget_classes();
        }
    }

    /// The flows whose rules have made some of these lookups are judged anew.
    pub(super) fn revoke_flows_by(&mut self, scope: LookupScope) {
        let engine = &mut self.engine;
        if !self.flows.as_mut().is_some_and(|flows| flows.revoke_by(scope, engine)) {
            return self.revoke_flows();
        }
        self.forget_classes();
    }

    /// Changes when all flows are to be judged anew: what a data path has learned before is stale.
    pub fn flow_generation(&self) -> u64 {
        self.flow_generation
    }

    /// A connection that a faster data path may forward by itself from now on, both directions. `None` if there is no further one.
    pub fn poll_offload(&mut self) -> Option<[KnownFlow; 2]> {
        self.flows.as_mut()?.pop_ready()
    }

    /// The data path has no place for a connection that [`Router::poll_offload`] gave out: it stays here, and is offered again later.
    pub fn refuse_offload(&mut self, conn_id: ConnId, now: Instant) {
        self.engine.revoke(conn_id);
        self.flows.iter_mut().for_each(|flows| flows.refuse(conn_id, now));
    }

    /// A connection that the data path must not forward any more: take it out, report what it has counted by [`Router::count_offloaded`], then call [`Router::forget_flow`].
    pub fn poll_revoked(&mut self) -> Option<ConnId> {
        self.engine.poll_revoked()
    }

    /// Counts packets that the data path has forwarded since its last reports: for their connections, and for the rules that they would have passed.
    pub fn count_offloaded(&mut self, reports: &[FlowReport]) {
        self.engine.update_stats(reports.iter().map(|report| &report.stats));
        let Some(flows) = &mut self.flows else { return };
        let counts = &mut self.interface_counts;
        for report in reports {
            let FlowStats { packets, bytes, .. } = report.stats;
            let Some(way) = flows.count(report, &self.engine) else { continue };
            self.program.count_offloaded(&way.counters, packets, bytes);
            if let FlowSource::Interface(iif) = way.source {
                counts.add_received(iif, packets, bytes);
            }
            match (way.target, way.source) {
                (FlowTarget::Forward { oif, .. }, _) | (FlowTarget::LetOut, FlowSource::Host(oif)) => {
                    counts.add_sent(oif, packets, bytes);
                }
                _ => (),
            }
        }
    }

    /// The data path has reported everything of a revoked connection.
    pub fn forget_flow(&mut self, conn_id: ConnId) {
        self.flows.iter_mut().for_each(|flows| flows.forget(conn_id));
    }

    /// The data path has reported everything of lines whose connection was offered again meanwhile, and has others: they went this way.
    pub fn release_flow_way(&mut self, way: FlowWay) {
        self.flows.iter_mut().for_each(|flows| flows.release(way));
    }

    /// So many packets of known flows the data path has sent on at XDP so far.
    pub fn set_sent_at_xdp(&mut self, packets: u64) {
        self.flows.iter_mut().for_each(|flows| flows.set_sent_at_xdp(packets));
    }

    /// Statistics of flows, if a data path forwards any.
    pub fn flow_offload_stats(&self) -> Option<FlowOffloadStats> {
        let mut stats = self.flows.as_ref().map(FlowTracker::stats)?;
        [stats.opened, stats.taken_back] = self.syn_classes.as_ref().map(SynClasses::opened).unwrap_or_default();
        Some(stats)
    }
}
