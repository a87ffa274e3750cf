//! What a packet driver is to the main loop: packets in, through the router, packets out.
use super::route_follower::FibUpdate;
use super::shared::SharedGateway;
use anyhow::Result;
use keepstate_engine::Instant;
use keepstate_linux::file_access::FileAccess;
use keepstate_router::Router;

/// Carries packets in and out. The main loop knows nothing of how.
pub(super) trait Driver {
    /// Waits until a packet has come, at most this long, or until a signal comes.
    ///
    /// # Errors
    /// The interface, queue or socket is gone.
    fn wait(&mut self, milliseconds: i32) -> Result<()>;

    /// Takes a batch of packets at most, gives them to the router, and sends what it gives out. Returns how many were received.
    ///
    /// # Errors
    /// The interface, queue or socket is gone.
    fn process_batch(&mut self, gateway: &SharedGateway, now: Instant) -> Result<usize>;

    /// Starts the threads that it needs; called once, before the first packet.
    ///
    /// # Errors
    /// There are none.
    fn start(&mut self) -> Result<()> {
        Ok(())
    }

    /// Adds the files that it needs after its start.
    fn allow_files(&self, access: FileAccess) -> FileAccess {
        access
    }

    /// Interfaces and routes, or changes of them, since the last call: a batch at most, and no wait.
    ///
    /// # Errors
    /// A new interface cannot be used as the others.
    fn poll_fib(&mut self) -> Result<Option<FibUpdate>> {
        Ok(None)
    }

    /// Takes over what the router says about connections that the driver may forward by itself. Called after every change of rules or routes, before anybody is told that it is made.
    ///
    /// # Errors
    /// The data path cannot be told.
    fn sync_flows(&mut self, router: &mut Router, now: Instant) -> Result<()> {
        let _ = (router, now);
        Ok(())
    }

    /// Leaves the interfaces as the user has chosen, at the end.
    ///
    /// # Errors
    /// They cannot be left so.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }

    /// Packets that the driver itself has dropped, by reason: for the closing line.
    fn drop_counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
