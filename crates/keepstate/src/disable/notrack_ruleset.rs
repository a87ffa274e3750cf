//! The file that keeps services from being tracked: an nftables table of its own, which loads in one piece and may be loaded again.
use super::rule_conflict::{NotrackRequest, NotrackScope, RuleFix};
use super::service::{PortProtocol, ServicePort};
use std::fmt::Write;

/// The table's name; its family is `inet`, for IPv4 and IPv6.
pub const TABLE: &str = "keepstate_notrack";

/// What the file is to say.
#[derive(Clone, Debug)]
pub struct NotrackFile<'a> {
    /// Whose packets are not to be tracked.
    pub requests: &'a [NotrackRequest],
    /// The service by which the machine is reached, and stays reachable when the table is full.
    pub mgmt_port: Option<ServicePort>,
    /// What is to be mended first; said in the file's head.
    pub fixes: &'a [RuleFix],
    /// What could not be looked at.
    pub unchecked: &'a [String],
}

impl NotrackFile<'_> {
    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = self.header();
        let mut chain = |hook: &str, why: &str, lines: Vec<String>| {
            let _ = writeln!(text, "\t# {why}\n\tchain {hook} {{");
            let _ = writeln!(text, "\t\ttype filter hook {hook} priority raw; policy accept;");
            for line in lines {
                let _ = writeln!(text, "\t\t{line}");
            }
            text.push_str("\t}\n");
        };
        chain(
            "prerouting",
            "What comes in, before tracking sees it: raw is priority -300, tracking -200.",
            self.lines(true),
        );
        chain("output", "What is sent from here, before tracking sees it.", self.lines(false));
        text.push_str("}\n");
        text
    }

    fn header(&self) -> String {
        let ports: Vec<String> = self.requests.iter().map(|wish| wish.service.to_string()).collect();
        let mut text = format!(
            "#!/usr/sbin/nft -f\n# No connection tracking for {}; made by keepstate {}.\n#\n",
            ports.join(", "),
            env!("CARGO_PKG_VERSION")
        );
        text.push_str("# Load it:      nft -f THIS-FILE      (again at each boot: include it in /etc/nftables.conf)\n");
        let _ = writeln!(text, "# Take it away: nft delete table inet {TABLE}");
        text.push_str(
            "#\n# ICMP errors about these connections are no longer `related`: where rules accept them only as such, accept\n\
             # destination-unreachable and packet-too-big as well, or large packets are lost on narrow paths.\n",
        );
        for mend in self.fixes {
            let _ = writeln!(text, "#\n# MEND FIRST, in {}: {} would be dropped. Type:", mend.location, mend.packets());
            let _ = writeln!(text, "#   {}", mend.command);
        }
        for unseen in self.unchecked {
            let _ = writeln!(text, "#\n# NOT CHECKED: {}", unseen.replace('\n', " "));
        }
        text.push_str(
            "\n# Loading replaces the table at one stroke. The first line is there so that the second finds one.\n",
        );
        let _ = writeln!(text, "table inet {TABLE}\ndelete table inet {TABLE}\n\ntable inet {TABLE} {{");
        text
    }

    /// The lines of one chain.
    fn lines(&self, incoming: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(ServicePort { protocol, port }) = self.mgmt_port {
            let protocol = protocol.name();
            lines.push(format!("# The lifeline: {protocol}/{port} can be reached even when the table is full."));
            lines.push(match incoming {
                true => format!("fib daddr type local {protocol} dport {port} notrack comment \"lifeline: requests\""),
                false => format!("{protocol} sport {port} notrack comment \"lifeline: answers\""),
            });
        }
        for (reach, served) in [(NotrackScope::All, false), (NotrackScope::LocalOnly, true)] {
            for protocol in PortProtocol::ALL {
                let of = |wish: &&NotrackRequest| wish.scope == reach && wish.service.protocol == protocol;
                let mut ports: Vec<u16> = self.requests.iter().filter(of).map(|wish| wish.service.port).collect();
                ports.sort_unstable();
                ports.dedup();
                if ports.is_empty() {
                    continue;
                }
                let ports = port_set(&ports);
                let protocol = protocol.name();
                let line = |match_: String, comment: &str| format!("{match_} notrack comment \"{comment}\"");
                match (incoming, served) {
                    (true, true) => lines
                        .push(line(format!("fib daddr type local {protocol} dport {ports}"), "to the services here")),
                    (false, true) => {
                        lines.push(line(format!("{protocol} sport {ports}"), "answers of the services here"))
                    }
                    (true, false) => {
                        lines.push(line(format!("{protocol} dport {ports}"), "to the services, here or beyond"));
                        lines.push(line(format!("{protocol} sport {ports}"), "answers to clients here or beyond"));
                    }
                    (false, false) => {
                        lines.push(line(format!("{protocol} sport {ports}"), "answers of the services here"));
                        lines.push(line(format!("{protocol} dport {ports}"), "from clients here"));
                    }
                }
            }
        }
        lines
    }
}

/// One port, or a set of them.
fn port_set(ports: &[u16]) -> String {
    let words: Vec<String> = ports.iter().map(u16::to_string).collect();
    if words.len() == 1 { words.concat() } else { format!("{{ {} }}", words.join(", ")) }
}

/// What deletes the entries that are already there: they would stay until they time out.
pub fn delete_commands(services: &[ServicePort]) -> Vec<String> {
    let line = |service: &ServicePort| format!("conntrack -D -p {} --dport {}", service.protocol.name(), service.port);
    services.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notrack_lines_by_scope() {
        let wish = |service: &str, reach| NotrackRequest { service: service.parse().unwrap(), scope: reach };
        let wishes = [
            wish("tcp/8883", NotrackScope::All),
            wish("tcp/1883", NotrackScope::All),
            wish("udp/53", NotrackScope::LocalOnly),
        ];
        let lifeline = "tcp/22".parse().ok();
        let text =
            NotrackFile { requests: &wishes, mgmt_port: lifeline, fixes: &[], unchecked: &["a\nb".into()] }.text();
        let rules: Vec<&str> = text.lines().filter(|line| line.contains("notrack comment")).map(str::trim).collect();
        assert_eq!(
            rules,
            [
                "fib daddr type local tcp dport 22 notrack comment \"lifeline: requests\"",
                "tcp dport { 1883, 8883 } notrack comment \"to the services, here or beyond\"",
                "tcp sport { 1883, 8883 } notrack comment \"answers to clients here or beyond\"",
                "fib daddr type local udp dport 53 notrack comment \"to the services here\"",
                "tcp sport 22 notrack comment \"lifeline: answers\"",
                "tcp sport { 1883, 8883 } notrack comment \"answers of the services here\"",
                "tcp dport { 1883, 8883 } notrack comment \"from clients here\"",
                "udp sport 53 notrack comment \"answers of the services here\"",
            ]
        );
        assert!(text.contains("# NOT CHECKED: a b\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }

    #[test]
    fn entries_are_deleted_by_port_and_never_all() {
        let services = ["tcp/1883".parse().unwrap(), "udp/53".parse().unwrap()];
        assert_eq!(delete_commands(&services), ["conntrack -D -p tcp --dport 1883", "conntrack -D -p udp --dport 53"]);
    }
}
