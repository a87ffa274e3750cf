//! Target `control`: any octets as what somebody says at a gateway's control socket: a first line, then pieces of the kernel's messages.

use keepstate_gateway::{control_server, run_control_session};

/// Lets `data` be said to a gateway. Whatever it is, the gateway answers a line of JSON, and its table stays sound.
pub fn control(data: &[u8]) {
    let line = data.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let request = control_server::parse_request(line);
    // To wait until something happens, or until nothing is left, is not what is looked for.
    let waits = |word: &String| word.starts_with("ev") || word.starts_with("drain");
    if request.as_ref().is_ok_and(|request| request.words.iter().any(waits)) {
        return;
    }
    let (answered, router) = run_control_session(data).expect("sockets and threads");
    router.engine().check_invariants().expect("a sound table");
    if let Some(end) = answered.iter().position(|octet| *octet == b'\n') {
        let head: Result<control_server::ControlReply, _> =
            serde_json::from_slice(answered.get(..end).unwrap_or_default());
        let head = head.expect("a line of JSON");
        assert!(head.error.is_some() || request.is_ok(), "what is no request is refused");
    }
}
