//! Connections that the programs at tc's hooks open by themselves: the classes that the router has found are told to them, and the first SYNs that they have let go on are judged by the router afterwards, with all that
//! a packet changes: counters of rules, the table, events. What it does not agree to is taken back; that happens where somebody else was quicker, in the moment when rules changed.
//!
//! Where a class translates the source, or the machine itself is the client, the client's port is kept if nobody has it between the outside address and the server ([`OutsidePorts`]).
use super::flow_entry::tc_flow;
use super::outside_ports::{OutsideEnd, OutsidePorts};
use keepstate_engine::{ConnId, Instant, Tuple, Zone};
use keepstate_linux::tc::{MAX_PORT_MAPS, SynClassTable, TcError, TcHook, TcHooks, TcSynClass};
use keepstate_router::{Egress, FlowSource, KnownFlow, MarkedEgress, Router, SynClass};
use keepstate_wire::Packet;
use keepstate_wire::rewrite;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the programs were told, and what has come of it.
pub(super) struct OpenedByClass {
    classes: SynClassTable,
    /// The router's generation of classes.
    generation: u64,
    ports: BTreeMap<OutsideEnd, OutsidePorts>,
    /// Packets that the router has given out beside the SYNs.
    outputs: Vec<MarkedEgress>,
    /// SYNs that have gone on to a neighbour.
    gone_on: Vec<((u32, IpAddr), Vec<u8>)>,
}

/// What the router has said of a SYN that has gone on.
pub(super) struct JudgedSyn {
    tuple: Option<Tuple>,
    /// There was a connection before.
    was_known: bool,
    has_passed: bool,
}

impl JudgedSyn {
    /// The connection that has begun with it.
    pub(super) fn connection(&self, router: &Router, now: Instant) -> Option<ConnId> {
        find(self.tuple.filter(|_| self.has_passed), router, now)
    }
}

impl OpenedByClass {
    /// With these programs; no class yet.
    ///
    /// # Errors
    /// The maps cannot be mapped.
    pub(super) fn new(hooks: &mut TcHooks) -> Result<OpenedByClass, TcError> {
        Ok(OpenedByClass {
            classes: hooks.syn_class_table()?,
            generation: 0,
            ports: BTreeMap::new(),
            outputs: Vec::new(),
            gone_on: Vec::new(),
        })
    }

    /// Classes that the router has told before a change are void.
    pub(super) fn void(&mut self, router: &Router) {
        let generation = router.syn_class_generation();
        if self.generation != generation {
            self.generation = generation;
            self.classes.void_all();
        }
    }

    /// Tells the programs what the router has found, and how many connections they may open before this is called again.
    ///
    /// # Errors
    /// A map cannot be written.
    pub(super) fn sync(&mut self, router: &mut Router, now: Instant) -> Result<(), TcError> {
        while let Some(class) = router.poll_syn_class() {
            self.add(&class, router, now)?;
        }
        self.look_after_ports(router, now);
        self.classes.set_budget(router.opening_budget());
        Ok(())
    }

    fn add(&mut self, class: &SynClass, router: &mut Router, now: Instant) -> Result<(), TcError> {
        let [Some(original), Some(reply)] = class.flows.map(|flow| tc_flow(&flow)) else { return Ok(()) };
        let flows = [original, reply];
        let Some(end) = outside_end(&class.flows) else {
            return self.classes.insert(&TcSynClass { flows, ports: None }).map(drop);
        };
        if !self.ports.contains_key(&end) && self.ports.len() >= MAX_PORT_MAPS as usize {
            // Those that are still in use are found again, this one too; until then its connections take the ordinary way.
            if router.make_room_for_classes(now) {
                self.void(router);
                self.ports.clear();
            }
            return Ok(());
        }
        let number = self.ports.len() as u32;
        let classes = &self.classes;
        let ports = self.ports.entry(end).or_insert_with(|| OutsidePorts::new(end, classes.port_map(number), number));
        self.classes.insert(&TcSynClass { flows, ports: Some(ports.number()) }).map(drop)
    }

    /// Are there ports that have to be looked up soon?
    pub(super) fn is_busy(&self) -> bool {
        self.ports.values().any(|ports| !ports.is_complete())
    }

    /// A bounded part of what is to be looked up in the router's table.
    fn look_after_ports(&mut self, router: &Router, now: Instant) {
        let mut room = LOOKUPS_PER_TURN;
        for ports in self.ports.values_mut() {
            let map = self.classes.port_map(ports.number());
            ports.look_after(&map, &mut room, router, now);
            if room == 0 {
                break;
            }
        }
    }

    /// A connection was entered that the router has made: nobody else takes its outside port.
    pub(super) fn note_entered(&self, flows: &[KnownFlow; 2]) {
        if let Some(end) = outside_end(flows).filter(|_| !self.ports.is_empty())
            && let Some(ports) = self.ports.get(&end)
        {
            self.classes.port_map(ports.number()).take(flows[1].tuple.destination_key);
        }
    }

    /// The router judges a SYN that has gone on, as if it came in by this interface now, or the machine itself sent it by it.
    pub(super) fn judge(
        &mut self,
        syn: &[u8],
        (hook, ifindex): (TcHook, u16),
        router: &mut Router,
        now: Instant,
    ) -> JudgedSyn {
        let mut bytes = syn.to_vec();
        // It may have been left to the card, and whoever gets it looks at it.
        if let Some((from, at)) = rewrite::set_partial_checksum(&mut bytes) {
            rewrite::finish_partial_checksum(&mut bytes, from, at);
        }
        let tuple = Packet::parse(&bytes).ok().and_then(|packet| keepstate_engine::packet_tuple(&packet));
        let was_known = find(tuple, router, now).is_some();
        router.set_packet_mark(0);
        router.set_socket_uid(None);
        // Not that of the packet before: only frames for this host alone are opened.
        router.set_link_header(None);
        // Drops are counted by the router.
        let _ = match hook {
            TcHook::Ingress => router.handle_owned(&mut bytes, ifindex.into(), now),
            TcHook::Egress => router.handle_output(&mut bytes, None, ifindex.into(), now),
        };
        let mut has_passed = false;
        while let Some(out) = router.poll_marked_output() {
            match out.egress {
                Egress::Forward { oif, next_hop, packet } if is_copy(&packet, syn) => {
                    has_passed = true;
                    self.gone_on.push(((oif, next_hop), packet));
                }
                Egress::LocalDeliver(packet) | Egress::LetOut(packet) if is_copy(&packet, syn) => has_passed = true,
                egress => self.outputs.push(MarkedEgress { egress, ..out }),
            }
        }
        JudgedSyn { tuple, was_known, has_passed }
    }

    /// What the programs have opened is no connection of the router's, or another one.
    pub(super) fn take_back(&mut self, judged: JudgedSyn, offered: Option<ConnId>, router: &mut Router, now: Instant) {
        router.count_opened(true);
        if let Some(conn_id) = offered {
            router.refuse_offload(conn_id, now);
        }
        let is_same = judged.has_passed && offered.is_none();
        if judged.was_known || is_same {
            return;
        }
        if let Some(conn_id) = find(judged.tuple, router, now) {
            router.engine_mut().remove(conn_id, now);
        }
    }

    pub(super) fn take_outputs(&mut self) -> Vec<MarkedEgress> {
        std::mem::take(&mut self.outputs)
    }

    pub(super) fn take_gone_on(&mut self) -> Vec<((u32, IpAddr), Vec<u8>)> {
        std::mem::take(&mut self.gone_on)
    }

    /// No connection is opened any more.
    pub(super) fn close(&mut self) {
        self.classes.set_budget(0);
        self.classes.void_all();
    }
}

/// The connection that a packet of this tuple belongs to.
fn find(tuple: Option<Tuple>, router: &Router, now: Instant) -> Option<ConnId> {
    Some(router.engine().find(&tuple?, Zone::default(), now)?.0)
}

/// Where a connection's source is translated, or the machine itself is the client, whose address others get: the server as its packets leave, and the outside address.
fn outside_end([original, reply]: &[KnownFlow; 2]) -> Option<OutsideEnd> {
    let shares = original.translated.source != original.tuple.source || matches!(original.source, FlowSource::Host(_));
    let end = OutsideEnd { server: reply.tuple.source, port: reply.tuple.source_key, outside: reply.tuple.destination };
    shares.then_some(end)
}

/// Is a packet that leaves the SYN that came, whatever was translated?
fn is_copy(packet: &[u8], syn: &[u8]) -> bool {
    let seq_and_flags = |packet: &[u8]| {
        let packet = Packet::parse(packet).ok()?;
        let [_, _, _, _, s0, s1, s2, s3, _, _, _, _, _, flags, ..] = *packet.transport() else { return None };
        (packet.protocol() == 6).then_some(([s0, s1, s2, s3], flags))
    };
    let [left, came] = [packet, syn].map(seq_and_flags);
    left.is_some() && left == came
}

/// Ports looked up in one turn.
const LOOKUPS_PER_TURN: usize = 2048;
