//! What this namespace's own sockets do, as `/proc/net/snmp` counts it.
use crate::root::{Root, Unreadable};

/// Where the file stands.
pub const PATH: &str = "/proc/net/snmp";

/// TCP connections that sockets of this namespace have opened or accepted since it began; `None` if the file does not tell.
///
/// What is only forwarded is not among them, and a connection of the machine with itself counts twice.
///
/// # Errors
/// Why the file cannot be read.
pub fn opens(root: &Root) -> Result<Option<u64>, Unreadable> {
    root.read(PATH).map(|text| opens_in(&text))
}

/// The file has two lines a protocol: names, then numbers.
fn opens_in(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let cells: Vec<(&str, &str)> = names.split_whitespace().zip(numbers.split_whitespace()).collect();
    let named = |name: &str| cells.iter().find(|cell| cell.0 == name)?.1.parse::<u64>().ok();
    named("ActiveOpens")?.checked_add(named("PassiveOpens")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opened_and_accepted() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens\nTcp: 1 -1 86 6\nUdp: InDatagrams\nUdp: 3\n";
        assert_eq!(opens_in(text), Some(92));
        for other in [
            "",
            "Tcp: ActiveOpens\n",
            "Tcp: ActiveOpens PassiveOpens\nTcp: 1\n",
            "Tcp: ActiveOpens PassiveOpens\nTcp: x 1\n",
        ] {
            assert_eq!(opens_in(other), None, "{other}");
        }
    }
}
