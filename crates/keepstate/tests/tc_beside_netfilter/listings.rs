//! What nft and conntrack show of both: rules' counters, sets, connections.
use crate::twin::{Lab, PATIENCE};
use std::process::Command;
use std::time::Instant;

impl Lab {
    /// A program that asks the router: the kernel's, or the gateway by these words.
    fn ask(&self, kernel: &str, gateway: &[&str], words: &[&str]) -> (bool, String) {
        let mut command = match self.gateway {
            None => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &self.netns.name("r"), kernel]);
                command
            }
            Some(_) => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_keepstate"));
                command.args(gateway);
                command
            }
        };
        let ran = command.args(words).output().unwrap();
        print!("{}", String::from_utf8_lossy(&ran.stderr));
        (ran.status.success(), String::from_utf8_lossy(&ran.stdout).into_owned())
    }

    /// What nft prints, in one line.
    pub fn nft(&self, words: &[&str]) -> String {
        let (_, text) = self.ask("nft", &["control", "--socket", &self.socket, "nft"], words);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The counters of a table that have counted since the last call: `NAME PACKETS/BYTES`.
    pub fn counters(&self, table: &[&str]) -> String {
        let text = self.nft(&[&["reset", "counters", "table"][..], table].concat());
        let words: Vec<&str> = text.split(' ').collect();
        let mut shown: Vec<String> = words
            .windows(7)
            .filter(|window| window[0] == "counter" && window[3] == "packets" && window[4] != "0")
            .map(|window| format!("{} {}/{}", window[1], window[4], window[6]))
            .collect();
        shown.sort_unstable();
        shown.join(", ")
    }

    /// The elements of a set, sorted.
    pub fn elements(&self, set: &[&str]) -> String {
        let text = self.nft(&[&["list", "set"][..], set].concat());
        let inside = text.split_once("elements = {").and_then(|(_, rest)| rest.split_once('}'));
        let mut elements: Vec<&str> = inside.map_or(Vec::new(), |(all, _)| all.split(',').map(str::trim).collect());
        elements.sort_unstable();
        elements.join(", ")
    }

    /// Sets a variable of connection tracking.
    pub fn sysctl(&self, name: &str, value: &str) -> String {
        let (done, said) = match self.gateway {
            None => (self.command(&format!("r echo {value} > /proc/sys/net/netfilter/{name}")), String::new()),
            Some(_) => self.ask("", &["control", "--socket", &self.socket, "set"], &[&format!("{name}={value}")]),
        };
        assert!(done, "{name}: {said}");
        String::new()
    }

    /// Has conntrack done it? And what it prints.
    pub fn conntrack(&self, words: &[&str]) -> (bool, String) {
        let gateway = format!("--gateway={}", self.socket);
        let (done, text) = self.ask("conntrack", &["conntrack", &gateway], words);
        (done, text.trim().to_owned())
    }

    /// All connections.
    pub fn table(&self) -> Vec<String> {
        let families = ["ipv4", "ipv6"].map(|family| self.connections(&["-f", family]));
        families.concat()
    }

    /// The connections that these options of conntrack choose, in one line.
    pub fn table_of(&self, words: &[&str]) -> String {
        self.connections(words).join("; ")
    }

    /// The connections that these options of conntrack delete, in one line.
    pub fn deleted(&self, words: &[&str]) -> String {
        self.printed("-D", words).join("; ")
    }

    fn connections(&self, words: &[&str]) -> Vec<String> {
        self.printed("-L", words)
    }

    fn printed(&self, what: &str, words: &[&str]) -> Vec<String> {
        let (_, text) = self.conntrack(&[&[what][..], words].concat());
        let mut lines: Vec<String> = text.lines().filter_map(without_chance).collect();
        lines.sort_unstable();
        lines
    }

    /// Segments that the kernel has sent on by itself are told a moment later.
    pub fn wait_for_table(&self, name: &str, kernel: &[String]) {
        let until = Instant::now() + PATIENCE;
        loop {
            // Both families are always tracked here; in Linux only those that a rule asks for.
            let has_v6 = kernel.iter().any(|line| line.contains(':'));
            let ours: Vec<String> = self.table().into_iter().filter(|line| has_v6 || !line.contains(':')).collect();
            if ours == kernel {
                return;
            }
            if Instant::now() > until {
                let differs = |one: &[String], other: &[String]| {
                    one.iter().filter(|line| !other.contains(line)).cloned().collect::<Vec<_>>().join("\n  ")
                };
                let (missing, more) = (differs(kernel, &ours), differs(&ours, kernel));
                panic!("{name}: the table: the kernel has also\n  {missing}\nkeepstate has also\n  {more}");
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// The router's addresses.
const OWN: [&str; 8] = ["127.0.0.1", "::1", "10.0.1.1", "10.0.2.1", "10.0.3.1", "fd00:1::1", "fd00:2::1", "fd00:3::1"];

/// A line of `conntrack -L` without what depends on the moment or on chance: timeouts, ports that were chosen anew, and whether a datagram came two seconds after the first. `None` if it is
/// of the machine with itself.
fn without_chance(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let value = |name: &str, nth: usize| words.iter().filter_map(|word| word.strip_prefix(name)).nth(nth);
    let is_own = |name| value(name, 0).is_some_and(|address| OWN.contains(&address));
    let is_translated = value("dst=", 0) != value("src=", 1);
    if is_own("src=") && is_own("dst=") && !is_translated {
        return None;
    }
    let is_offloaded = words.contains(&"[OFFLOAD]");
    let protocol = *words.first()?;
    let mut kept = vec![protocol.to_owned()];
    let mut ends = [0; 3];
    for word in words.iter().skip(2) {
        let (name, number) = word.split_once('=').unwrap_or(("", ""));
        let at = ["sport", "dport", "id"].iter().position(|known| *known == name);
        let nth = at.map_or(0, |at| {
            ends[at] += 1;
            ends[at]
        });
        match name {
            "use" | "packets" | "bytes" => (),
            // The end that the reply comes to.
            "dport" if nth == 2 && value("sport=", 0) != Some(number) => kept.push("dport=other".to_owned()),
            // Of a socket that has chosen none.
            "sport" | "dport" if number.parse::<u16>().is_ok_and(|port| port >= 32768) => {
                kept.push(format!("{name}=any"))
            }
            "id" if nth == 1 => kept.push("id=any".to_owned()),
            "id" if value("id=", 0) != Some(number) => kept.push("id=other".to_owned()),
            "id" => kept.push("id=same".to_owned()),
            "" if word.parse::<u64>().is_ok() || ["[OFFLOAD]", "[ASSURED]"].contains(word) => (),
            _ => kept.push((*word).to_owned()),
        }
    }
    if protocol == "tcp" && (is_offloaded || words.contains(&"[ASSURED]")) {
        kept.push("assured".to_owned());
    }
    Some(kept.join(" "))
}
