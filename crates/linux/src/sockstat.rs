//! Socket counts of a namespace: `/proc/net/sockstat` and `sockstat6` (the numbers of `ss -s`).
use crate::sysroot::{FileError, SysRoot};

/// Sockets of one namespace, by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SockStat {
    /// TCP sockets that are connected or listen, of both families.
    pub tcp: u64,
    /// Orphaned TCP sockets.
    pub orphans: u64,
    /// TCP sockets in TIME_WAIT.
    pub time_wait: u64,
    /// UDP sockets of both families.
    pub udp: u64,
}

/// The sockets of this thread's namespace, or of the files below `root`.
///
/// # Errors
/// `sockstat` cannot be read. (Without IPv6 there is no `sockstat6`: that is no error.)
pub fn read(root: &SysRoot) -> Result<SockStat, FileError> {
    let four = root.read("/proc/net/sockstat")?;
    let six = root.read("/proc/net/sockstat6").unwrap_or_default();
    Ok(parse(&four, &six))
}

/// Parses the text of both files.
///
/// ```
/// let sockets = keepstate_linux::sockstat::parse("TCP: inuse 3 orphan 0 tw 7 alloc 4 mem 1\nUDP: inuse 2 mem 0\n", "TCP6: inuse 1\n");
/// assert_eq!((sockets.tcp, sockets.time_wait, sockets.udp), (4, 7, 2));
/// ```
pub fn parse(four: &str, six: &str) -> SockStat {
    let number = |text: &str, head: &str, key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(head)).unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        words.find(|word| *word == key);
        words.next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    SockStat {
        tcp: number(four, "TCP:", "inuse").saturating_add(number(six, "TCP6:", "inuse")),
        orphans: number(four, "TCP:", "orphan"),
        time_wait: number(four, "TCP:", "tw"),
        udp: number(four, "UDP:", "inuse").saturating_add(number(six, "UDP6:", "inuse")),
    }
}
