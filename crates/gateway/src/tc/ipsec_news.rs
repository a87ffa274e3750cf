//! IPsec policies (xfrm) read at the start, and followed by a thread.
use super::ipsec::concerning_forwarded;
use super::kernel_routes::RoutingState;
use keepstate_linux::netlink::NetlinkError;
use keepstate_linux::xfrm::{XfrmPolicyMonitor, xfrm_policies};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long the thread waits before it looks whether the gateway ends.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads the policies. A kernel without IPsec has none.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn read(state: &RoutingState) -> Result<(), NetlinkError> {
    match xfrm_policies() {
        Err(NetlinkError::Io(error)) if is_absent(&error) => Ok(()),
        Err(error) => Err(error),
        Ok(policies) => {
            state.set_ipsec(concerning_forwarded(policies));
            Ok(())
        }
    }
}

/// Starts the thread that follows them.
///
/// # Errors
/// There is none.
pub(super) fn follow(state: &Arc<RoutingState>) -> io::Result<()> {
    let monitor = match XfrmPolicyMonitor::open() {
        Err(error) if is_absent(&error) => return Ok(()),
        monitor => monitor?,
    };
    let state = Arc::clone(state);
    std::thread::Builder::new().name("ipsec".into()).spawn(move || watch(monitor, &state)).map(drop)
}

fn watch(mut monitor: XfrmPolicyMonitor, state: &Arc<RoutingState>) {
    // What has changed before it listened.
    let mut is_due = true;
    while Arc::strong_count(state) > 1 {
        if is_due && let Err(error) = read(state) {
            tracing::error!("reading IPsec policies: {error}; those read before stand");
        }
        is_due = match monitor.wait(PATIENCE) {
            Ok(is_due) => is_due,
            Err(error) => {
                tracing::error!("following IPsec policies: {error}");
                std::thread::sleep(PATIENCE);
                true
            }
        };
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT))
}
