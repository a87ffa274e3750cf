//! Target `control`: any bytes as the input of a control connection: a first line, then frames of ctnetlink messages.

use keepstate_gateway::control_protocol::{self, ClientHello, ControlRequest, ReplyLine};
use keepstate_gateway::run_control_session;

/// Sends `data` to a gateway. Whatever it is, the gateway answers a line of JSON, and its table stays valid.
pub fn control(data: &[u8]) {
    let line = data.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let request = control_protocol::parse_request_line(line);
    // These wait until something happens, or until nothing is left.
    if matches!(
        request,
        Ok(ClientHello::Request(ControlRequest::Events(_) | ControlRequest::DrainAll { wait: true, .. }))
    ) {
        return;
    }
    let (answered, router) = run_control_session(data).expect("sockets and threads");
    router.engine().check_invariants().expect("a sound table");
    if let Some(end) = answered.iter().position(|octet| *octet == b'\n') {
        let head: Result<ReplyLine, _> = serde_json::from_slice(answered.get(..end).unwrap_or_default());
        let head = head.expect("a line of JSON");
        assert!(head.error.is_some() || request.is_ok(), "what is no request is refused");
    }
}
