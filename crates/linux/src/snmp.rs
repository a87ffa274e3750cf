//! TCP counters of this namespace's own sockets: `/proc/net/snmp`.
use crate::sysroot::{FileError, SysRoot};

/// The file.
pub const PATH: &str = "/proc/net/snmp";

/// TCP connections that sockets of this namespace have opened or accepted since it was created; `None` if the file does not contain it.
///
/// Forwarded connections are not counted; a connection of the machine with itself counts twice.
///
/// # Errors
/// The file cannot be read.
pub fn read_tcp_opens(root: &SysRoot) -> Result<Option<u64>, FileError> {
    root.read(PATH).map(|text| parse_tcp_opens(&text))
}

/// The file has two lines a protocol: names, then numbers.
fn parse_tcp_opens(text: &str) -> Option<u64> {
    tcp_counter(text, "ActiveOpens")?.checked_add(tcp_counter(text, "PassiveOpens")?)
}

/// TCP resets that this namespace has sent since it was created (`OutRsts`); `None` if the file does not contain it.
///
/// # Errors
/// The file cannot be read.
pub fn read_tcp_resets_sent(root: &SysRoot) -> Result<Option<u64>, FileError> {
    root.read(PATH).map(|text| tcp_counter(&text, "OutRsts"))
}

/// TCP segments that this namespace's sockets got with a wrong checksum (`InCsumErrors`); `None` if the file does not contain it.
///
/// # Errors
/// The file cannot be read.
pub fn read_tcp_checksum_errors(root: &SysRoot) -> Result<Option<u64>, FileError> {
    root.read(PATH).map(|text| tcp_counter(&text, "InCsumErrors"))
}

fn tcp_counter(text: &str, wanted: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut cells = names.split_whitespace().zip(numbers.split_whitespace());
    cells.find(|(name, _)| *name == wanted)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_active_and_passive_opens() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens\nTcp: 1 -1 86 6\nUdp: InDatagrams\nUdp: 3\n";
        assert_eq!(parse_tcp_opens(text), Some(92));
        assert_eq!(tcp_counter("Tcp: A OutRsts\nTcp: 1 7\n", "OutRsts"), Some(7));
        for other in [
            "",
            "Tcp: ActiveOpens\n",
            "Tcp: ActiveOpens PassiveOpens\nTcp: 1\n",
            "Tcp: ActiveOpens PassiveOpens\nTcp: x 1\n",
        ] {
            assert_eq!(parse_tcp_opens(other), None, "{other}");
        }
    }
}
