//! Open vSwitch: flows that use connection tracking, as `ovs-ofctl dump-flows` prints them.
use super::finding::{Confidence, CtUser, CtUserKind, NotChecked};
use super::known_service;
use crate::command;
use crate::sysroot::SysRoot;

/// The flows of Open vSwitch, on every bridge.
pub(super) fn list_flows(root: &SysRoot, found: &mut Vec<CtUser>, unseen_list: &mut Vec<NotChecked>) {
    let Some(process) = known_service::pid_of(root, "ovs-vswitchd") else { return };
    let dependent = |place: String, what: String, sure| CtUser {
        kind: CtUserKind::OpenVswitch,
        listed_by: "openvswitch",
        location: place,
        number: None,
        description: what,
        owner: Some("Open vSwitch"),
        confidence: sure,
    };
    let bridges = match command::listing(&["ovs-vsctl", "--timeout=10", "list-br"]) {
        Ok(bridges) => bridges,
        Err(why) => {
            found.push(dependent(format!("process {process}"), "ovs-vswitchd runs".into(), Confidence::Possible));
            return unseen_list.push(NotChecked::command("Open vSwitch's flows", &why));
        }
    };
    for bridge in bridges.lines().map(str::trim).filter(|bridge| !bridge.is_empty()) {
        let versions = "OpenFlow10,OpenFlow11,OpenFlow12,OpenFlow13,OpenFlow14,OpenFlow15";
        match command::listing(&["ovs-ofctl", "--timeout=10", "-O", versions, "dump-flows", bridge]) {
            Ok(flows) => {
                let flows = parse_ct_flows(&flows).into_iter();
                found.extend(flows.map(|flow| dependent(format!("bridge {bridge}"), flow, Confidence::Certain)));
            }
            Err(why) => unseen_list.push(NotChecked::command(&format!("the flows of bridge {bridge}"), &why)),
        }
    }
}

/// The flows that use `ct(…)` or match on what it found, without their counters.
pub fn parse_ct_flows(text: &str) -> Vec<String> {
    let uses = |line: &&str| {
        let parts: Vec<&str> = line.split([' ', ',']).collect();
        parts.iter().any(|part| {
            let action = part.strip_prefix("actions=").unwrap_or(part);
            action == "ct"
                || action.starts_with("ct(")
                || action.starts_with("ct_")
                || action == "nat"
                || action.starts_with("nat(")
        })
    };
    let without_counters = |line: &str| {
        let parts = line.split(", ").filter(|part| {
            !["cookie=", "duration=", "n_packets=", "n_bytes=", "idle_age=", "hard_age="]
                .iter()
                .any(|counter| part.trim_start().starts_with(counter))
        });
        parts.collect::<Vec<_>>().join(", ").trim().to_owned()
    };
    text.lines().filter(uses).map(without_counters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_with_ct() {
        let text = "\
NXST_FLOW reply (xid=0x4):
 cookie=0x0, duration=4.2s, table=0, n_packets=0, n_bytes=0, priority=100,ip,ct_state=-trk actions=ct(table=1)
 cookie=0x0, duration=4.2s, table=1, n_packets=0, n_bytes=0, priority=10,in_port=1 actions=ct(commit),output:2
 cookie=0x0, duration=4.2s, table=0, n_packets=9, n_bytes=9, priority=0 actions=NORMAL
";
        assert_eq!(
            parse_ct_flows(text),
            [
                "table=0, priority=100,ip,ct_state=-trk actions=ct(table=1)",
                "table=1, priority=10,in_port=1 actions=ct(commit),output:2"
            ]
        );
    }
}
