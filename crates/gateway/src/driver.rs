//! What a packet driver is to the main loop: packets in, through the router, packets out.
use super::shared::SharedGateway;
use anyhow::Result;
use keepstate_engine::Instant;
use keepstate_router::FibTable;

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

    /// Further drivers that carry packets beside this one, each on a thread of its own; asked once.
    fn workers(&mut self) -> Vec<Box<dyn Driver + Send>> {
        Vec::new()
    }

    /// Interfaces and routes, if they have changed since the last call.
    ///
    /// # Errors
    /// They cannot be read any more.
    fn poll_fib(&mut self) -> Result<Option<FibTable>> {
        Ok(None)
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
