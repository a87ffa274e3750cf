//! A namespace's own addresses, and the ports it listens on, as `/proc/net` lists them.
use crate::sysroot::{FileError, SysRoot};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most bytes of a list of sockets that are read. Those that listen come first; a million connections may come behind them.
const MAX_SOCKET_LIST_BYTES: u64 = 1 << 18;

/// A router with all routes of the Internet lists some 200 MB.
const MAX_FIB_TRIE_BYTES: u64 = 1 << 30;

/// More addresses than this are not listed.
const MAX_ADDRESSES: usize = 4096;

/// The addresses that this thread's namespace, or the one whose files are below `root`, answers to.
///
/// # Errors
/// The routing table cannot be read.
pub fn local_addresses(root: &SysRoot) -> Result<Vec<IpAddr>, FileError> {
    let mut found = parse_fib_trie(&root.read_up_to("/proc/net/fib_trie", MAX_FIB_TRIE_BYTES)?);
    // Without IPv6 there is no such file.
    found.extend(parse_if_inet6(&root.read("/proc/net/if_inet6").unwrap_or_default()));
    found.truncate(MAX_ADDRESSES);
    Ok(found)
}

/// Does a socket listen on this TCP port? Also returns the file that shows it.
///
/// # Errors
/// Neither family's list can be read.
pub fn find_tcp_listener(root: &SysRoot, port: u16) -> Result<Option<&'static str>, FileError> {
    let mut unreadable = None;
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let mut bytes = Vec::new();
        let read = root.open_file(path).and_then(|file| {
            let read = file.take(MAX_SOCKET_LIST_BYTES).read_to_end(&mut bytes);
            read.map_err(|source| FileError { path: root.path(path), operation: "read", source })
        });
        match read {
            Ok(_) if is_listening(&String::from_utf8_lossy(&bytes), port) => return Ok(Some(path)),
            Ok(_) => unreadable = None,
            Err(error) => unreadable = Some(error),
        }
    }
    unreadable.map_or(Ok(None), Err)
}

/// `  |-- 10.0.0.1` above `/32 host LOCAL`.
fn parse_fib_trie(trie: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            // The trie is printed once for each table that shares it.
            found.extend(last.map(IpAddr::V4).filter(|address| !found.contains(address)));
        }
        if found.len() >= MAX_ADDRESSES {
            break;
        }
    }
    found
}

/// Thirty-two hexadecimal digits begin each line.
fn parse_if_inet6(list: &str) -> Vec<IpAddr> {
    let address = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok();
    list.lines().filter_map(address).map(|address| IpAddr::V6(Ipv6Addr::from(address))).collect()
}

/// `sl local_address rem_address st`: state 0A is LISTEN.
fn is_listening(list: &str, port: u16) -> bool {
    let wanted = format!("{port:04X}");
    list.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().and_then(|local| local.rsplit_once(':'));
        local.is_some_and(|(_, port)| port == wanted) && words.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_fib_trie_if_inet6_and_tcp_listeners() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.0.0.5\n        /32 host LOCAL\n";
        assert_eq!(parse_fib_trie(&trie.repeat(2)), ["10.0.0.5".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            parse_if_inet6("fe800000000000000000000000000001 02 40 20 80 eth0\nx\n"),
            ["fe80::1".parse::<IpAddr>().unwrap()]
        );
        let tcp = "  sl  local_address rem_address   st\n   0: 00000000:0016 00000000:0000 0A 0\n   1: 0100007F:0050 0100007F:0016 01 0\n";
        assert!(is_listening(tcp, 22) && !is_listening(tcp, 80) && !is_listening("", 22));
    }
}
