//! What the router does for handshakes that it answers: promises, the SYN in the client's name, and both halves put together when the server has answered.
use super::{Options, Sending, ends};
use crate::answer;
use crate::router::{Loss, Out, Router, Trip};
use keepstate_engine::{Direction, Promise, TcpState};
use keepstate_rules::tree::Synproxy;
use keepstate_wire::tcp::{Flags, Segment};
use keepstate_wire::{Packet, edit::Rewrite};

impl Router {
    /// A SYN, or an acknowledgement, that a rule wants to have answered in its server's name. Whatever it is, it goes no further.
    pub(crate) fn answer_handshake(&mut self, rule: &Synproxy, trip: &Trip, out: &mut Vec<Out>) -> Loss {
        let Ok(packet) = trip.packet() else { return Loss::Malformed };
        let Ok(segment) = Segment::parse(packet.transport(), packet.transport_len()) else { return Loss::Malformed };
        if !segment.flags.any(Flags::SYN) {
            return self.acknowledged(&packet, &segment, segment.seq.wrapping_sub(1), trip, out);
        }
        let synack = self.promiser.answer(&packet, &segment, rule, trip.now);
        if let Some(synack) = datagram(&synack) {
            self.send(synack, trip, out);
        }
        Loss::Proxied
    }

    /// A client whose own first number was `first` acknowledges something.
    fn acknowledged(
        &mut self,
        packet: &Packet<'_>,
        segment: &Segment<'_>,
        first: u32,
        trip: &Trip,
        out: &mut Vec<Out>,
    ) -> Loss {
        let Some((syn, promise)) = self.promiser.believe(packet, segment, first, trip.now) else {
            return Loss::Unpromised;
        };
        if let Some(syn) = datagram(&syn) {
            self.emit(syn, None, Some(promise), trip.now, out);
        }
        Loss::Proxied
    }

    /// A packet that has passed the last rule: is it the answer of a server in whose name a promise was given?
    pub(crate) fn splice(&mut self, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        let Some(passage) = &mut trip.passage else { return Ok(()) };
        let Some((promise, state)) = self.engine().promised(passage) else { return Ok(()) };
        let (direction, lives) = (passage.direction(), passage.connection().is_some());
        let packet = trip.packet()?;
        let segment = Segment::parse(packet.transport(), packet.transport_len()).map_err(|_| Loss::Malformed)?;
        let (syn, ack) = (segment.flags.any(Flags::SYN), segment.flags.any(Flags::ACK));
        match (state, direction) {
            // Said again, before the server has answered. What keeps a connection alive is one behind.
            (TcpState::SynSent, Some(Direction::Original)) if ack && !syn => {
                self.promiser.counts.cookie_retrans += 1;
                Err(self.acknowledged(&packet, &segment, segment.seq, trip, out))
            }
            (TcpState::SynRecv, Some(Direction::Reply)) if syn && ack => {
                let halves = Halves::of(&packet, &segment, &promise);
                let (first, clock) = (segment.seq, Options::of(&segment).clocks.map(|(clock, _)| clock));
                self.join(&halves, (first, clock), trip, out);
                Err(Loss::Proxied)
            }
            // The server refuses: its client awaits the number that he was promised.
            (TcpState::Close, Some(Direction::Reply)) if segment.flags.any(Flags::RST) && !lives => {
                let mut rewrite = Rewrite::new(&mut trip.bytes).map_err(|_| Loss::Malformed)?;
                let next = promise.first.wrapping_add(1);
                if rewrite.renumber(|_| next, |ack| ack) { Ok(()) } else { Err(Loss::Malformed) }
            }
            _ => Ok(()),
        }
    }

    /// The server hears that its client is there; the client's window is opened.
    fn join(&mut self, halves: &Halves, answered: (u32, Option<u32>), trip: &mut Trip, out: &mut Vec<Out>) {
        let Some(mut passage) = trip.passage.take() else { return };
        if let Some(ack) = datagram(&halves.to_server) {
            self.emit(ack, None, None, trip.now, out);
        }
        self.engine().splice(&mut passage, answered.0, answered.1);
        if let Some(ack) = datagram(&halves.to_client) {
            self.emit(ack, Some(passage.again()), None, trip.now, out);
        }
    }
}

/// What both ends are told when the server has answered.
struct Halves {
    to_server: Sending,
    to_client: Sending,
}

impl Halves {
    fn of(packet: &Packet<'_>, segment: &Segment<'_>, promise: &Promise) -> Halves {
        let [server, client] = ends(packet, segment);
        let said = Options::of(segment);
        let options = |clocks| Options { clocks, ..Options::default() };
        let to_server = Sending {
            from: client,
            to: server,
            seq: segment.ack,
            ack: segment.seq.wrapping_add(1),
            flags: Flags::ACK,
            window: promise.window.max(1),
            options: options(said.clocks.map(|(clock, echo)| (echo, clock))),
        };
        let to_client = Sending {
            from: server,
            to: client,
            seq: promise.first.wrapping_add(1),
            ack: segment.ack,
            flags: Flags::ACK,
            window: segment.window >> said.scale.unwrap_or(0),
            // The server's clock as it will be shown from now on begins with what was promised.
            options: options(said.clocks.map(|(_, echo)| (promise.clock, echo))),
        };
        Halves { to_server, to_client }
    }
}

fn datagram(sending: &Sending) -> Option<Vec<u8>> {
    answer::segment(sending.from.0, sending.to.0, sending.octets())
}
