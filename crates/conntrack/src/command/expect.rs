//! The expectation table: `-L expect`, `-G expect`, `-I expect`, `-D expect`, `-F expect`, `-E expect`.
use super::error::{ConntrackError, Operation, print_message};
use super::event_reader::{EventReader, malformed_error};
use super::output::stdout_file;
use super::request::ConntrackRequest;
use crate::format::ExpectationWriter;
use keepstate_linux::ctnetlink::{CtEvent, CtEventSocket, CtExpectation, CtFamily, CtObject};
use keepstate_linux::netlink::NlMessages;

/// Lists expectations.
pub(super) fn list(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let family = request.family.map_or(0, CtFamily::number);
    let expectations = request
        .target
        .open_table()?
        .dump_expectations(family)
        .map_err(|failure| ConntrackError::from_kernel(Operation::List, &failure))?;
    print_all(request, &expectations)?;
    print_message(format!("{} expectations have been shown.", expectations.len()));
    Ok(())
}

/// Shows one.
pub(super) fn get(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let found = request.target.open_table()?.get_expectation(&request.expectation);
    print_all(request, &found.map_err(|failure| ConntrackError::from_kernel(Operation::GetExpectation, &failure))?)
}

fn print_all(request: &ConntrackRequest, expectations: &[CtExpectation]) -> Result<(), ConntrackError> {
    let mut out = ExpectationWriter::new(stdout_file()?, request.output);
    for expectation in expectations {
        out.write_expectation(expectation)?;
    }
    Ok(out.finish()?)
}

/// Creates one.
pub(super) fn create(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let done = request.target.open_table()?.create_expectation(&request.expectation);
    done.map_err(|failure| ConntrackError::from_kernel(Operation::CreateExpectation, &failure))
}

/// Deletes one.
pub(super) fn delete(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let done = request.target.open_table()?.delete_expectation(&request.expectation);
    done.map_err(|failure| ConntrackError::from_kernel(Operation::GetExpectation, &failure))
}

/// Deletes all.
pub(super) fn flush(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    request
        .target
        .open_table()?
        .flush_expectations(0)
        .map_err(|failure| ConntrackError::from_kernel(Operation::Flush, &failure))?;
    print_message("expectation table has been emptied.");
    Ok(())
}

/// Prints their events until a signal.
pub(super) fn monitor(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let mut out = ExpectationWriter::new(stdout_file()?, request.output).events_only();
    let mut shown = 0_usize;
    let reader = EventReader::open(
        CtEventSocket::subscribe_expectations(request.target.open_socket()?, request.events.iter().copied()),
        request.buffer_size,
    )?;
    while let Some(chunk) = reader.next_chunk(|| out.flush())? {
        for message in NlMessages::new(&chunk.bytes) {
            let event = message.and_then(|message| CtEvent::decode(&message)).map_err(malformed_error)?;
            if let Some(CtEvent { event_type, object: CtObject::Expectation(expectation), .. }) = event {
                out.write_event(&expectation, event_type, chunk.read_at)?;
                shown += 1;
            }
        }
    }
    out.finish()?;
    print_message(format!("{shown} expectation events have been shown."));
    Ok(())
}
