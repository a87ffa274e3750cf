//! Open vSwitch: flows that send packets through connection tracking, as `ovs-ofctl dump-flows` prints them.

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
