//! The running router: drivers, control server, state store, services file, health checks, main loop.
//!
//! [`GatewayConfig`] says what to run, [`GatewayConfig::run`] runs it until a signal ends it. Nothing here reads a command line, a capture or an MQTT session:
//! that is the program's.
#![warn(clippy::disallowed_methods)]
mod client_stream;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod control_client;
mod control_cluster;
mod control_handler;
mod control_network;
mod control_nft;
pub mod control_protocol;
mod control_server;
mod control_services;
mod ctnl_convert;
mod ctnl_edit;
mod ctnl_session;
mod driver;
pub mod duration;
pub mod end_notice;
pub mod engine_settings;
pub mod flow_log;
mod flow_log_counters;
pub mod gateway_file;
mod gso;
mod health;
mod icmp_sysctls;
mod jobs;
mod kernel_fib;
mod load;
mod main_loop;
mod nearest_name;
mod nfqueue_driver;
mod packet_batch;
mod procfs;
mod reload;
mod route_follower;
pub mod ruleset;
mod sandbox;
mod sd_notify;
pub mod services_file;
mod shared;
mod signals;
pub mod state_store;
pub mod static_fib;
mod stats;
mod streaming;
mod system_names;
pub mod tc;
mod test_session;
pub mod toml_file;
mod tun_driver;
mod turns;
mod watch;

pub use config::GatewayConfig;
pub use test_session::run_control_session;
