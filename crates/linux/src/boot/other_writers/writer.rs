//! One writer, and the lines of files that reveal it.
use crate::boot::file_line::{FileLine, config_lines};
use crate::boot::setting::canonical_key;

/// Another program that writes a conntrack sysctl, after sysctl.d and over its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherWriter {
    /// The program: `kube-proxy`, `tuned`, `cloud-init`, `rc.local`, `cron`, …
    pub name: String,
    /// What it does and when, in a sentence without a subject.
    pub description: String,
    /// The evidence, where its value is changed.
    pub location: FileLine,
    /// The key, as `net.netfilter.nf_conntrack_…`, where the line tells.
    pub key: Option<String>,
    /// The value, where it is known.
    pub value: Option<String>,
}

/// The key that a line of a script or configuration sets, and the value, as far as they can be told from the line:
/// `sysctl -w KEY=VALUE`, `KEY = VALUE`, `echo VALUE > /proc/sys/…`.
fn parse_assignment(line: &str) -> Option<(Option<String>, Option<String>)> {
    let at = line.find("nf_conntrack")?;
    let (before, after) = line.split_at_checked(at)?;
    let name = after.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(after.len());
    let (name, after) = after.split_at_checked(name)?;
    let prefix = before.rsplit(|letter: char| !letter.is_ascii_alphanumeric() && !"._/-".contains(letter)).next();
    // A leading sign is sysctl.d's (failure is no error), which is no part of the key.
    let prefix = prefix.unwrap_or_default().trim_start_matches('-');
    let key = canonical_key(&format!("{}{name}", prefix.strip_prefix("/proc/sys").unwrap_or(prefix)));
    let echoed =
        before.rsplit_once('>').and_then(|(command, _)| command.trim_end_matches(['>', ' ']).rsplit(' ').next());
    let assigned = after.trim_start_matches(['"', '\'', ' ']).strip_prefix(['=', ':']).map(str::trim_start);
    let value = assigned.or(echoed).map(|value| value.trim_start_matches(['"', '\'']));
    let value =
        value.map(|value| value.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or_default());
    Some((key, value.filter(|value| value.starts_with(|first: char| first.is_ascii_digit())).map(str::to_owned)))
}

/// The lines of a file that mention conntrack, each as a writer. Comments mention nothing.
pub(super) fn conntrack_lines(file: &str, text: &str, name: &str, what: impl Fn(usize) -> String) -> Vec<OtherWriter> {
    let lines = config_lines(text);
    let found = lines.filter_map(|(number, line)| {
        let (key, value) = parse_assignment(line)?;
        Some(OtherWriter {
            name: name.to_owned(),
            description: what(number),
            location: FileLine::new(file, number),
            key,
            value,
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_key_and_value_from_script_lines() {
        let max = Some("net.netfilter.nf_conntrack_max".to_owned());
        for line in [
            "sysctl -w net.netfilter.nf_conntrack_max=17",
            "sysctl -w \"net.netfilter.nf_conntrack_max=17\" || true",
            "net/netfilter/nf_conntrack_max = 17",
            "echo 17 > /proc/sys/net/netfilter/nf_conntrack_max",
            "echo 17 >/proc/sys/net/nf_conntrack_max",
            "- [ sysctl, -w, net.nf_conntrack_max=17 ]",
            "-net.nf_conntrack_max=17",
        ] {
            assert_eq!(parse_assignment(line), Some((max.clone(), Some("17".to_owned()))), "{line}");
        }
        assert_eq!(parse_assignment("modprobe nf_conntrack"), Some((None, None)));
        assert_eq!(parse_assignment("net.netfilter.nf_conntrack_max=${max}"), Some((max, None)));
        assert_eq!(parse_assignment("sysctl -w net.ipv4.ip_forward=1"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_lines_do_not_panic(line in "[ =:>\"'./é-]{0,4}(nf_conntrack)?[_a-zé=:>\" 0-9]{0,12}") {
            let _ = parse_assignment(&line);
        }
    }
}
