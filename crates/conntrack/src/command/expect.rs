//! The table of announced connections: `-L expect`, `-G expect`, `-I expect`, `-D expect`, `-F expect`, `-E expect`.
use super::ear::{Ear, malformed};
use super::fault::{Doing, Fault, say};
use super::output;
use super::request::Request;
use crate::format::ExpectationWriter;
use keepstate_linux::ctnetlink::{Event, Events, Expectation, Family, Subject};
use keepstate_linux::netlink::Messages;

/// Lists announced connections.
pub(super) fn list(request: &Request) -> Result<(), Fault> {
    let family = request.family.map_or(0, Family::number);
    let told = request.place.table()?.expectations(family).map_err(|failure| Fault::kernel(Doing::List, &failure))?;
    show(request, &told)?;
    say(format!("{} expectations have been shown.", told.len()));
    Ok(())
}

/// Shows the one that was named.
pub(super) fn find(request: &Request) -> Result<(), Fault> {
    let found = request.place.table()?.find_expectation(&request.expectation);
    show(request, &found.map_err(|failure| Fault::kernel(Doing::FindExpectation, &failure))?)
}

fn show(request: &Request, told: &[Expectation]) -> Result<(), Fault> {
    let mut out = ExpectationWriter::new(output()?, request.output);
    for expectation in told {
        out.listed(expectation)?;
    }
    Ok(out.finish()?)
}

/// Announces one.
pub(super) fn create(request: &Request) -> Result<(), Fault> {
    let done = request.place.table()?.create_expectation(&request.expectation);
    done.map_err(|failure| Fault::kernel(Doing::CreateExpectation, &failure))
}

/// Takes one back.
pub(super) fn delete(request: &Request) -> Result<(), Fault> {
    let done = request.place.table()?.delete_expectation(&request.expectation);
    done.map_err(|failure| Fault::kernel(Doing::FindExpectation, &failure))
}

/// Takes all back.
pub(super) fn flush(request: &Request) -> Result<(), Fault> {
    request.place.table()?.flush_expectations(0).map_err(|failure| Fault::kernel(Doing::Flush, &failure))?;
    say("expectation table has been emptied.");
    Ok(())
}

/// Prints what happens to them until a signal comes.
pub(super) fn listen(request: &Request) -> Result<(), Fault> {
    let mut out = ExpectationWriter::new(output()?, request.output).of_events();
    let mut shown = 0_usize;
    let ear =
        Ear::open(Events::of_expectations(request.place.socket()?, request.events.iter().copied()), request.buffer)?;
    while let Some(piece) = ear.next(|| out.flush())? {
        for message in Messages::new(&piece.octets) {
            let event = message.and_then(|message| Event::decode(&message)).map_err(malformed)?;
            if let Some(Event { happening, subject: Subject::Expectation(expectation), .. }) = event {
                out.happened(&expectation, happening, piece.at)?;
                shown += 1;
            }
        }
    }
    out.finish()?;
    say(format!("{shown} expectation events have been shown."));
    Ok(())
}
