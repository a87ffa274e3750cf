//! The options for the completion scripts of shells, from the same data as the parser.
use super::grammar::{COMMANDS, HasArg, OPTIONS, OptId, OptSpec, protocol_options};
use super::help::HELP_TEXT;

/// An option as a completion script needs it.
#[derive(Clone, Debug)]
pub struct CompletedOption {
    /// Its letter.
    pub short: Option<char>,
    /// Its name.
    pub long: &'static str,
    /// Its other names.
    pub aliases: Vec<&'static str>,
    /// Whether a value may follow.
    pub takes_value: bool,
    /// The values there are, if they are few.
    pub values: &'static [&'static str],
    /// What the help says of it; may be empty.
    pub help: String,
}

/// Every option, those of all protocols too, each name once.
pub fn completed_options() -> Vec<CompletedOption> {
    let protocols = [6, 33, 132, 47, 1, 58].into_iter().flat_map(protocol_options);
    let mut all: Vec<CompletedOption> = Vec::new();
    for spec in COMMANDS.iter().chain(OPTIONS).chain(protocols) {
        let known = |name: &str| all.iter().any(|one| one.long == name || one.aliases.contains(&name));
        let mut names = spec.long.iter().copied().filter(|name| !known(name));
        let Some(long) = names.next().filter(|_| spec.id != OptId::Deprecated) else { continue };
        let aliases = names.collect();
        all.push(CompletedOption { aliases, ..completed(spec, long) });
    }
    for (short, long, help) in [
        (Some('R'), "load-file", "execute the commands in a file (- is standard input)"),
        (None, "gateway", "a keepstate gateway's table, by its control socket"),
        (None, "fleet", "with -L: the tables of all nodes of a fleet, by its file"),
    ] {
        let help = help.to_owned();
        all.push(CompletedOption { short, long, aliases: Vec::new(), takes_value: true, values: &[], help });
    }
    all
}

fn completed(spec: &OptSpec, long: &'static str) -> CompletedOption {
    let values: &[&str] = match spec.id {
        OptId::Command(_) => &["conntrack", "expect", "dying", "unconfirmed"],
        OptId::Family => &["ipv4", "ipv6"],
        OptId::Protocol => &["tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "gre"],
        OptId::EventMask => &["ALL", "NEW", "UPDATES", "DESTROY"],
        OptId::Status => {
            &["ASSURED", "SEEN_REPLY", "UNREPLIED", "FIXED_TIMEOUT", "EXPECTED", "OFFLOAD", "HW_OFFLOAD", "UNSET"]
        }
        OptId::Output => &["xml", "json", "save", "extended", "id", "timestamp", "ktimestamp", "labels", "userspace"],
        OptId::Role => &["client", "server"],
        _ => &[],
    };
    let command = matches!(spec.id, OptId::Command(_)) && spec.has_arg != HasArg::None;
    CompletedOption {
        short: spec.short,
        long,
        aliases: Vec::new(),
        takes_value: command || matches!(spec.has_arg, HasArg::Required | HasArg::Optional),
        values,
        help: help_of(long),
    }
}

/// The words behind the option in the help's line for it.
fn help_of(long: &str) -> String {
    let of_this = |line: &&str| {
        let names = line.split("  ").find(|part| !part.is_empty()).unwrap_or_default();
        names.split([' ', ',']).any(|word| word.strip_prefix("--") == Some(long))
    };
    let line = HELP_TEXT.lines().find(of_this).unwrap_or_default();
    let mut parts = line.split("  ").map(str::trim).filter(|part| !part.is_empty());
    parts.nth(1).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_and_letter_is_there_once() {
        let all = completed_options();
        let mut names: Vec<&str> = all.iter().flat_map(|one| one.aliases.iter().chain([&one.long])).copied().collect();
        let mut letters: Vec<char> = all.iter().filter_map(|one| one.short).collect();
        let counts = (names.len(), letters.len());
        names.sort_unstable();
        names.dedup();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!((names.len(), letters.len()), counts);
        for name in
            ["src", "dport", "orig-port-src", "state", "icmpv6-type", "srckey", "reply-vtag", "role", "load-file"]
        {
            assert!(names.contains(&name), "{name}");
        }
        let dump = all.iter().find(|one| one.long == "dump").unwrap();
        assert_eq!((dump.short, dump.help.as_str()), (Some('L'), "list connections, or expectations"));
    }
}
