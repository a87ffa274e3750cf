//! The notrack rules: an nftables table of their own, which is loaded atomically and can be loaded again.
use super::rule_conflict::{NotrackRequest, NotrackScope, RuleFix};
use super::service::{PortProtocol, ServicePort};
use std::fmt::Write;

/// The table's name; its family is `inet`, for IPv4 and IPv6.
pub const TABLE: &str = "keepstate_notrack";

/// The content of the file.
#[derive(Clone, Debug)]
pub struct NotrackFile<'a> {
    /// The services that are not tracked.
    pub requests: &'a [NotrackRequest],
    /// The management port, which stays reachable when the table is full.
    pub mgmt_port: Option<ServicePort>,
    /// What must be fixed first; listed in the file's header.
    pub fixes: &'a [RuleFix],
    /// What could not be checked.
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
            "Incoming packets, before tracking: raw is priority -300, tracking -200.",
            self.lines(true),
        );
        chain("output", "Locally generated packets, before tracking.", self.lines(false));
        text.push_str("}\n");
        text
    }

    fn header(&self) -> String {
        let ports: Vec<String> = self.requests.iter().map(|wish| wish.service.to_string()).collect();
        let mut text = format!(
            "#!/usr/sbin/nft -f\n# No connection tracking for {}; written by keepstate {}.\n#\n",
            ports.join(", "),
            env!("CARGO_PKG_VERSION")
        );
        text.push_str("# Load:   nft -f THIS-FILE      (at each boot: include it in /etc/nftables.conf)\n");
        let _ = writeln!(text, "# Remove: nft delete table inet {TABLE}");
        text.push_str(
            "#\n# ICMP errors about these connections are no longer `related`. If rules accept them only as related, accept\n\
             # destination-unreachable and packet-too-big explicitly, or path MTU discovery fails.\n",
        );
        for fix in self.fixes {
            let _ = writeln!(text, "#\n# FIX FIRST, in {}: {} would be dropped. Run:", fix.location, fix.packets());
            let _ = writeln!(text, "#   {}", fix.command);
        }
        for input in self.unchecked {
            let _ = writeln!(text, "#\n# NOT CHECKED: {}", input.replace('\n', " "));
        }
        text.push_str(
            "\n# Loading replaces the table atomically. The first line creates it so that the second can delete it.\n",
        );
        let _ = writeln!(text, "table inet {TABLE}\ndelete table inet {TABLE}\n\ntable inet {TABLE} {{");
        text
    }

    /// The lines of one chain.
    fn lines(&self, incoming: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(ServicePort { protocol, port }) = self.mgmt_port {
            let protocol = protocol.name();
            lines.push(format!("# Lifeline: {protocol}/{port} stays reachable when the table is full."));
            lines.push(match incoming {
                true => format!("fib daddr type local {protocol} dport {port} notrack comment \"lifeline: requests\""),
                false => format!("{protocol} sport {port} notrack comment \"lifeline: replies\""),
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
                        lines.push(line(format!("{protocol} sport {ports}"), "replies of the services here"))
                    }
                    (true, false) => {
                        lines.push(line(format!("{protocol} dport {ports}"), "to the services, local or forwarded"));
                        lines.push(line(format!("{protocol} sport {ports}"), "replies to clients, local or forwarded"));
                    }
                    (false, false) => {
                        lines.push(line(format!("{protocol} sport {ports}"), "replies of the services here"));
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

/// Commands that delete the existing entries, which would otherwise stay until they time out.
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
                "tcp dport { 1883, 8883 } notrack comment \"to the services, local or forwarded\"",
                "tcp sport { 1883, 8883 } notrack comment \"replies to clients, local or forwarded\"",
                "fib daddr type local udp dport 53 notrack comment \"to the services here\"",
                "tcp sport 22 notrack comment \"lifeline: replies\"",
                "tcp sport { 1883, 8883 } notrack comment \"replies of the services here\"",
                "tcp dport { 1883, 8883 } notrack comment \"from clients here\"",
                "udp sport 53 notrack comment \"replies of the services here\"",
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
