//! What happens at a hook: chains that filter, chains and services that translate, and what their verdicts ask for.
use super::{AFTER, Loss, Out, Router, Trip, destination, view};
use crate::service::{Asked, Said};
use keepstate_engine::{Direction, Edits, Manip, Passage};
use keepstate_rules::tree::{Hook, Reject};
use keepstate_rules::{Fate, Scene};
use keepstate_wire::Packet;
use std::ops::Range;

impl Router {
    /// The filtering chains of a hook, and what they want changed.
    pub(super) fn filter(
        &mut self,
        hook: Hook,
        priorities: Range<i32>,
        trip: &mut Trip,
        out: &mut Vec<Out>,
    ) -> Result<(), Loss> {
        if !self.program.filters(hook, &priorities) {
            return Ok(());
        }
        let Trip { bytes, layout, way, passage, now, .. } = trip;
        let packet = view(bytes, *layout)?;
        let mut scene = Scene {
            engine: &mut self.engine,
            passage: passage.as_mut(),
            packet: &packet,
            way,
            ground: &self.map,
            now: *now,
        };
        let fate = self.program.filter(hook, priorities, &mut scene);
        self.obey(fate, trip, out)?;
        self.change(trip)
    }

    /// The translating chains of a hook, and the change of the packet that follows from its connection.
    pub(super) fn translate(
        &mut self,
        hook: Hook,
        manip: Manip,
        trip: &mut Trip,
        out: &mut Vec<Out>,
    ) -> Result<(), Loss> {
        if !self.services.is_empty() {
            self.serve_one(manip, trip, out)?;
        }
        let Trip { bytes, layout, way, passage, now, .. } = trip;
        let Some(passage) = passage.as_mut() else { return Ok(()) };
        if passage.unconfirmed().is_none() {
            return self.edit(manip, trip);
        }
        let packet = view(bytes, *layout)?;
        let mut scene = Scene {
            engine: &mut self.engine,
            passage: Some(passage),
            packet: &packet,
            way,
            ground: &self.map,
            now: *now,
        };
        let fate = self.program.translate(hook, &mut scene);
        if trip.pick.is_some()
            && let Some(passage) = &mut trip.passage
        {
            // Also where the ruleset translates nothing: who asks a backend directly as well must be told apart.
            self.engine.keep(passage, manip, trip.now);
        }
        self.obey(fate, trip, out)?;
        self.edit(manip, trip)
    }

    /// The change of the packet that follows from its connection.
    fn edit(&mut self, manip: Manip, trip: &mut Trip) -> Result<(), Loss> {
        let edits = trip.passage.as_ref().map_or(Edits::NONE, |passage| self.engine.edits(passage, manip));
        if edits.is_none() {
            return Ok(());
        }
        // Behind a translated source there are seldom rules that could refuse a packet, and nobody else tells its sender anything.
        let may_tell = manip == Manip::Destination || self.program.filters(Hook::Postrouting, &AFTER);
        if may_tell && trip.sent.is_empty() {
            trip.sent.clone_from(&trip.bytes);
        }
        let changed = trip.rewrite().is_ok_and(|mut rewrite| edits.change(&mut rewrite));
        if changed { Ok(()) } else { Err(Loss::Untranslatable) }
    }

    /// Services come before the ruleset's own translations, as the chains of Docker and kube-proxy stand before others: what they decide is decided.
    fn serve_one(&mut self, manip: Manip, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        let Trip { way, passage: Some(passage), pick, now, .. } = trip else { return Ok(()) };
        let asked = Asked { engine: &mut self.engine, passage, map: &self.map, way, now: *now };
        match (manip, &pick) {
            (Manip::Source, None) => Ok(()),
            (Manip::Source, Some(pick)) => {
                let to = destination(&trip.bytes)?;
                self.services.masquerade(pick, to, asked);
                Ok(())
            }
            (Manip::Destination, _) => match self.services.send(asked) {
                Said::Nothing => Ok(()),
                Said::Sent(sent) => {
                    *pick = Some(sent);
                    Ok(())
                }
                Said::Refused => {
                    let tcp = Packet::parse(&trip.bytes).is_ok_and(|packet| packet.protocol() == 6);
                    self.reject(if tcp { Reject::Reset } else { Reject::Default }, trip, out);
                    self.end_refused(trip);
                    Err(Loss::NoBackend)
                }
            },
        }
    }

    /// A refused packet's connection is over once its client has been told.
    fn end_refused(&mut self, trip: &Trip) {
        let passage = trip.passage.as_ref().filter(|passage| passage.direction() == Some(Direction::Original));
        if let Some(handle) = passage.and_then(Passage::connection) {
            self.engine.remove(handle, trip.now);
        }
    }

    fn obey(&mut self, fate: Fate, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        match fate {
            Fate::Accept => Ok(()),
            Fate::Drop => Err(Loss::Dropped),
            Fate::Reject(reject) => {
                self.reject(reject, trip, out);
                Err(Loss::Rejected)
            }
            Fate::Synproxy(rule) => Err(self.answer_handshake(&rule, trip, out)),
        }
    }
}
