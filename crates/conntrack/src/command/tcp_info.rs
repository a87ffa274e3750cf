//! TCP's attributes of an entry that is created or updated with `--state`.
//!
//! The command line has no windows or window scale, so the kernel would check the next segments against nothing: a large transfer over a
//! restored entry would become INVALID at the first scaled window. conntrack 1.4.7 therefore makes such entries liberal
//! (docs/kernel-facts/conntrack-tool.md), and so do we.
use crate::format::liberal_tcp_flags;
use keepstate_linux::ctnetlink::CtTcpInfo;

/// This state, and both directions liberal.
pub(super) fn liberal_tcp_info(state: u8) -> CtTcpInfo {
    let flags = liberal_tcp_flags(state);
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
