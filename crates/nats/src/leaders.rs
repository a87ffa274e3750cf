//! Keeps what decides about leases off the machine of the gateway that holds one. If that machine dies with its NATS server, and the server led the group that keeps the leases, nobody could take them over until NATS has
//! elected another leader: some seconds. So the holder of a lease asks a leader that is on its own machine to step down, once it is connected to it; another server leads then, and goes on when this machine dies.
//!
//! With several shards every gateway holds a lease, and each would send the leader on to the next one's machine, again and again: then nobody asks.
use crate::connectivity::Connectivity;
use crate::stream::ClusterOptions;
use async_nats::{Client, ServerAddr, ServerInfo};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two looks: a change of leaders takes a moment in which nobody answers, so it is not made often.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// What the looks need.
pub(crate) struct LeaderWatch {
    pub(crate) client: Client,
    pub(crate) options: Arc<ClusterOptions>,
    pub(crate) connectivity: Arc<Connectivity>,
    /// This node holds a lease.
    pub(crate) holds: Arc<AtomicBool>,
}

impl LeaderWatch {
    /// Looks, for as long as the client lives.
    pub(crate) async fn run(self) {
        if self.options.replicas < 3 || self.options.shards.len() > 1 {
            return;
        }
        let context = async_nats::jetstream::new(self.client.clone());
        let buckets = [self.options.leases().name, self.options.epochs().name];
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.connectivity.connected().await;
            let server = self.client.server_info();
            if !self.holds.load(Ordering::Relaxed) || !is_on_this_machine(&server) {
                continue;
            }
            for name in &buckets {
                let Ok(stream) = context.get_stream(name).await else { continue };
                let leader = stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone());
                if leader.as_ref() != Some(&server.server_name) {
                    continue;
                }
                let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{name}");
                match self.client.request(subject, "".into()).await {
                    Ok(_) => tracing::debug!("{name}: {} leads no more, it is on this machine", server.server_name),
                    // Perhaps this user may not; all works as it did.
                    Err(error) => tracing::debug!("{name}: its leader does not step down: {error}"),
                }
                // One at a time.
                break;
            }
        }
    }
}

/// The server listens on the very address that we come from. One that listens on all addresses does not tell.
fn is_on_this_machine(server: &ServerInfo) -> bool {
    let (ours, theirs) = (server.client_ip.parse::<IpAddr>(), server.host.parse::<IpAddr>());
    ours.is_ok_and(|ours| ours.is_loopback() || theirs == Ok(ours))
}

/// Servers on this machine come first; whether there are any.
pub(crate) fn local_first(addresses: &mut [ServerAddr]) -> bool {
    let is_local = |address: &ServerAddr| {
        let host = address.host();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        // Only an address of this machine can be bound.
        address.is_ok_and(|address| UdpSocket::bind((address, 0)).is_ok())
    };
    addresses.sort_by_cached_key(|address| !is_local(address));
    addresses.first().is_some_and(is_local)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn a_server_on_this_machine_comes_first() {
        let parse = |text: &str| text.parse::<ServerAddr>().unwrap();
        let mut all =
            [parse("nats://192.0.2.1:4222"), parse("nats://nats.example.net"), parse("nats://127.0.0.1:4222")];
        assert!(local_first(&mut all));
        assert_eq!(all.map(|address| address.host().to_owned()), ["127.0.0.1", "192.0.2.1", "nats.example.net"]);
        assert!(!local_first(&mut [parse("nats://192.0.2.1:4222"), parse("nats://nats.example.net")]));
        assert!(!local_first(&mut []));
    }

    #[test]
    fn a_server_is_known_to_be_on_this_machine_by_its_address() {
        let server = |host: &str, client_ip: &str| {
            let (host, client_ip) = (host.to_owned(), client_ip.to_owned());
            is_on_this_machine(&ServerInfo { host, client_ip, ..ServerInfo::default() })
        };
        assert!(server("192.0.2.1", "192.0.2.1") && server("0.0.0.0", "127.0.0.1") && server("::1", "::1"));
        assert!(!server("192.0.2.2", "192.0.2.1") && !server("0.0.0.0", "192.0.2.1") && !server("", ""));
    }
}
