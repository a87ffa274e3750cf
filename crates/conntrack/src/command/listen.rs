//! `-E`: what happens to connections, as it happens, until a signal ends it.
use super::ear::{Ear, malformed, program};
use super::fault::{Fault, say};
use super::request::Request;
use super::writer;
use crate::format::{Cause, Occasion};
use keepstate_engine::Instant;
use keepstate_linux::ctnetlink::{Event, Events, Subject};
use keepstate_linux::netlink::Messages;

/// Prints events until a signal comes.
pub(super) fn run(request: &Request) -> Result<(), Fault> {
    let mut out = writer(request)?.of_events();
    let mut shown = 0_usize;
    let ear =
        Ear::open(Events::of_connections(request.place.socket()?, request.events.iter().copied()), request.buffer)?;
    while let Some(piece) = ear.next(|| out.flush())? {
        // One program often causes many: its name is looked up once a read.
        let mut known = (0, None);
        for message in Messages::new(&piece.octets) {
            let event = message.and_then(|message| Event::decode(&message)).map_err(malformed)?;
            let Some(Event { happening, subject: Subject::Connection(flow), port }) = event else { continue };
            if !request.pick.fits(&flow) {
                continue;
            }
            if port != known.0 {
                known = (port, program(port));
            }
            let cause = (port != 0).then_some(Cause { port, name: known.1.as_deref() });
            let at = flow.happened.map_or(piece.at, Instant);
            out.flow_event(&flow, Occasion { happening, at, cause })?;
            shown += 1;
        }
    }
    out.finish()?;
    say(format!("{shown} flow events have been shown."));
    Ok(())
}
