//! `-E`: what happens to connections, as it happens, until a signal ends it.
use super::error::{ConntrackError, print_message};
use super::event_reader::{EventReader, malformed_error, program_of_port};
use super::flow_writer;
use super::request::ConntrackRequest;
use crate::format::{EventInfo, EventOrigin};
use keepstate_engine::Instant;
use keepstate_linux::ctnetlink::{CtEvent, CtEventSocket, CtObject};
use keepstate_linux::netlink::NlMessages;

/// Prints events until a signal comes.
pub(super) fn run(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let mut out = flow_writer(request)?.for_events();
    let mut shown = 0_usize;
    let ear = EventReader::open(
        CtEventSocket::subscribe_connections(request.target.open_socket()?, request.events.iter().copied()),
        request.buffer_size,
    )?;
    while let Some(piece) = ear.next_chunk(|| out.flush())? {
        // One program often causes many: its name is looked up once a read.
        let mut known = (0, None);
        for message in NlMessages::new(&piece.bytes) {
            let event = message.and_then(|message| CtEvent::decode(&message)).map_err(malformed_error)?;
            let Some(CtEvent { event_type: happening, object: CtObject::Connection(flow), nlmsg_pid: port }) = event
            else {
                continue;
            };
            if !request.filter.matches(&flow) {
                continue;
            }
            if port != known.0 {
                known = (port, program_of_port(port));
            }
            let cause = (port != 0).then_some(EventOrigin { portid: port, program: known.1.as_deref() });
            let at = flow.event_timestamp.map_or(piece.read_at, Instant);
            out.write_flow_event(&flow, EventInfo { event_type: happening, at, origin: cause })?;
            shown += 1;
        }
    }
    out.finish()?;
    print_message(format!("{shown} flow events have been shown."));
    Ok(())
}
