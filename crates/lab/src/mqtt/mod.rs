//! MQTT 3.1.1 and 5 for load tests: a pool of clients and a server, each with thousands of sessions in one thread.
//!
//! [`session`] is the protocol without I/O; [`ClientPool`] and [`StubBroker`] run it over TCP. It is no broker: no message is delivered to
//! others. [`hold_sessions`] and [`serve_sessions`] are the two ends with a line protocol on standard input and output.
mod broker;
mod clients;
mod file_limit;
mod run;
pub mod session;

pub use broker::{BrokerStats, StubBroker};
pub use clients::{ClientPool, SessionTotals};
pub use file_limit::raise_file_limit;
pub use run::{SessionLoad, hold_sessions, serve_sessions};
