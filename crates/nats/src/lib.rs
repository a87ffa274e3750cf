//! NATS with JetStream as what carries a cluster's state and leases, and the fleet's answers.
//!
//! All work is done on a thread with a runtime of its own, behind bounded queues: who drives packets never waits and knows nothing of tokio. State goes
//! through one stream a shard, leases through a bucket; both are made when they are missing. [`MessageSender`] is for who may wait: it sends plain messages and confirms them.
mod connect;
mod connectivity;
mod error;
pub mod fleet;
mod inbox;
mod leaders;
mod lease;
mod messages;
mod publisher;
mod quota;
mod reader;
mod stream;
mod transport;

pub use connect::NatsOptions;
pub use error::NatsError;
pub use messages::MessageSender;
pub use stream::{ClusterOptions, StreamStorage};
pub use transport::NatsTransport;
