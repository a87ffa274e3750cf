//! MQTT 3.1.1 and 5 for load tests: a pool of clients and a server, each with thousands of sessions in one thread.
//!
//! [`session`] is the protocol without I/O; [`ClientPool`] and [`StubBroker`] run it over TCP. It is no broker: no message is delivered to
//! others. [`hold_sessions`], [`hold_steadily`], [`churn`] and [`serve_sessions`] are the two ends with a line protocol on standard input and output.
mod broker;
mod churn;
mod clients;
mod file_limit;
mod line_input;
mod run;
pub mod session;
mod steady;

pub use broker::{BrokerStats, StubBroker};
pub use churn::{ChurnCounts, ChurnLoad, GIVE_UP, churn};
pub use clients::{ClientPool, SessionTotals};
pub use file_limit::raise_file_limit;
pub use run::{SessionLoad, hold_sessions, serve_sessions};
pub use steady::hold_steadily;
