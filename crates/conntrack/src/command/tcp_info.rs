//! TCP's attributes of an entry that is created or updated with `--state`.
//!
//! The command line has no windows or window scale, so the kernel would check the next segments against nothing: a large transfer over a
//! restored entry would become INVALID at the first scaled window. conntrack 1.4.7 therefore makes such entries liberal
//! (docs/kernel-facts/conntrack-tool.md), and so do we.
use keepstate_linux::ctnetlink::{CtTcpInfo, TcpState};

/// `IP_CT_TCP_FLAG_SACK_PERM`, `_CLOSE_INIT`, `_BE_LIBERAL` of `nf_conntrack_tcp.h`.
const SACK_PERM: u8 = 0x02;
const CLOSE_INIT: u8 = 0x04;
const BE_LIBERAL: u8 = 0x08;

/// This state, and both directions liberal. From TIME_WAIT on, both have closed.
pub(super) fn liberal_tcp_info(state: u8) -> CtTcpInfo {
    let closed = if state >= TcpState::TimeWait.number() { CLOSE_INIT } else { 0 };
    let flags = SACK_PERM | BE_LIBERAL | closed;
    CtTcpInfo { state: Some(state), flags: [Some([flags, flags]); 2], ..CtTcpInfo::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What conntrack 1.4.7 sends for each state (measured).
    #[test]
    fn flags_and_mask_are_those_of_conntrack() {
        for (state, flags) in [(0, 10), (1, 10), (2, 10), (3, 10), (4, 10), (5, 10), (6, 10), (7, 14), (8, 14), (9, 14)]
        {
            assert_eq!(liberal_tcp_info(state).flags, [Some([flags, flags]); 2], "{state}");
        }
    }
}
