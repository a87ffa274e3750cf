//! `-E`: connection events, printed as they happen until a signal.
use super::error::{ConntrackError, print_message};
use super::event_reader::{EventReader, malformed_error, program_of_port};
use super::output::flow_writer;
use super::request::ConntrackRequest;
use crate::format::{EventInfo, EventOrigin};
use keepstate_engine::UnixTime;
use keepstate_linux::ctnetlink::{CtEvent, CtEventSocket, CtObject};
use keepstate_linux::netlink::NlMessages;

/// Prints events until a signal comes.
pub(super) fn run(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let mut out = flow_writer(request)?.for_events();
    let mut shown = 0_usize;
    let reader = EventReader::open(
        CtEventSocket::subscribe_connections(request.target.open_socket()?, request.events.iter().copied()),
        request.buffer_size,
    )?;
    while let Some(chunk) = reader.next_chunk(|| out.flush())? {
        // One program often causes many events: its name is looked up once per chunk.
        let mut program = (0, None);
        for message in NlMessages::new(&chunk.bytes) {
            let event = message.and_then(|message| CtEvent::decode(&message)).map_err(malformed_error)?;
            let Some(CtEvent { event_type, object: CtObject::Connection(flow), nlmsg_pid: portid }) = event else {
                continue;
            };
            if !request.filter.matches(&flow) {
                continue;
            }
            if portid != program.0 {
                program = (portid, program_of_port(portid));
            }
            let origin = (portid != 0).then_some(EventOrigin { portid, program: program.1.as_deref() });
            let at = flow.event_timestamp.map_or(chunk.read_at, UnixTime);
            out.write_flow_event(&flow, EventInfo { event_type, at, origin })?;
            shown += 1;
        }
    }
    out.finish()?;
    print_message(format!("{shown} flow events have been shown."));
    Ok(())
}
