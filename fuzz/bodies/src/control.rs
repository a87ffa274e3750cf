//! Target `control`: any bytes as the input of a control connection: a first line, then frames of ctnetlink messages.

use keepstate_gateway::control_protocol::{self, ClientHello, ControlRequest, ReplyLine};
use keepstate_gateway::run_control_session;

/// Sends `data` to a gateway. The gateway must answer with a line of JSON, and its table must stay valid.
pub fn control(data: &[u8]) {
    let line = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let request = control_protocol::parse_request_line(line);
    // These requests wait for an event, or until all connections are gone.
    if matches!(
        request,
        Ok(ClientHello::Request(ControlRequest::Events(_) | ControlRequest::DrainAll { wait: true, .. }))
    ) {
        return;
    }
    let (answered, router) = run_control_session(data).expect("sockets and threads");
    router.engine().check_invariants().expect("a sound table");
    if let Some(end) = answered.iter().position(|byte| *byte == b'\n') {
        let head: Result<ReplyLine, _> = serde_json::from_slice(answered.get(..end).unwrap_or_default());
        let head = head.expect("a line of JSON");
        assert!(head.error.is_some() || request.is_ok(), "what is no request is refused");
    }
}
