//! What a gateway that governs interfaces says at its start of its end: what stays closed then, and how to get back in. Nothing is decided here.
use super::tc::{OnExit, TcOptions};
use keepstate_linux::rtnetlink::{RtRouteAnswer, RtRouteQuery, RtRouteSocket};
use std::net::IpAddr;

/// The SSH session that a gateway is started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorSession {
    /// Where it comes from.
    pub client: IpAddr,
    /// The TCP port of this machine.
    pub port: u16,
}

/// What becomes of the interfaces when the gateway ends.
pub(super) fn at_the_end(options: &TcOptions, names: &str) -> String {
    match (&options.on_exit, &options.lifeline) {
        (OnExit::Open, _) => {
            format!("when it ends, the kernel has {names} again, without this ruleset (--on-exit open)")
        }
        (OnExit::Closed, Some(lifeline)) => format!(
            "when it ends, {names} stay closed, but for TCP port {} on {} (--lifeline); keepstate gateway --detach gives them back",
            lifeline.port, lifeline.interface
        ),
        (OnExit::Closed, None) => format!(
            "when it ends, {names} stay closed, for SSH to this machine too: --lifeline keeps that, --on-exit open gives them back at the end, keepstate gateway --detach afterwards"
        ),
    }
}

/// A warning, if the session comes by a governed interface that will be closed to it. `name_of` has the name of an interface that is governed, by its index.
pub(super) fn warn_operator<'a>(
    options: &TcOptions,
    session: OperatorSession,
    name_of: impl Fn(u32) -> Option<&'a str>,
) -> Option<String> {
    let asked = RtRouteSocket::open().and_then(|mut socket| socket.ask(&RtRouteQuery::to(session.client)));
    match asked {
        Ok(Some(RtRouteAnswer::Unicast { oif, .. })) => cut_off(options, session, name_of(oif)?),
        _ => None,
    }
}

fn cut_off(options: &TcOptions, session: OperatorSession, name: &str) -> Option<String> {
    let is_kept = options.lifeline.as_ref().is_some_and(|of| of.interface == name && of.port == session.port);
    if options.on_exit == OnExit::Open || is_kept {
        return None;
    }
    let port = if session.port == 22 { String::new() } else { format!(":{}", session.port) };
    Some(format!(
        "this SSH session comes by {name}, which stays closed when the gateway ends: you would be locked out. Start it with --lifeline {name}{port}, or with --on-exit open"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::super::tc::OffloadXdp;
    use super::*;

    fn options(on_exit: OnExit, lifeline: Option<&str>) -> TcOptions {
        let lifeline = lifeline.map(|text| text.parse().unwrap());
        let (offload, offload_new, offload_xdp) = (true, true, OffloadXdp::Auto);
        TcOptions {
            on_exit,
            lifeline,
            offload,
            offload_new,
            offload_xdp,
            offload_size: Default::default(),
            unattended: Default::default(),
        }
    }

    #[test]
    fn an_operator_is_told_before_being_locked_out() {
        let session = |port| OperatorSession { client: IpAddr::from([192, 0, 2, 7]), port };
        let of = |options: &TcOptions, port| cut_off(options, session(port), "eth0");
        let closed = |lifeline| options(OnExit::Closed, lifeline);
        assert!(of(&closed(None), 22).unwrap().contains("--lifeline eth0, or"));
        assert!(of(&closed(None), 2222).unwrap().contains("--lifeline eth0:2222, or"));
        assert!(of(&closed(Some("eth1")), 22).is_some());
        assert!(of(&closed(Some("eth0")), 2222).is_some());
        assert_eq!(of(&closed(Some("eth0")), 22), None);
        assert_eq!(of(&options(OnExit::Open, None), 22), None);
    }

    #[test]
    fn what_the_end_brings_is_said() {
        assert!(at_the_end(&options(OnExit::Closed, None), "eth0").contains("eth0 stay closed, for SSH"));
        assert!(at_the_end(&options(OnExit::Closed, Some("eth0:2222")), "eth0").contains("TCP port 2222 on eth0"));
        assert!(at_the_end(&options(OnExit::Open, None), "eth0").contains("without this ruleset"));
    }
}
