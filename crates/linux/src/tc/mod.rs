//! tc's hooks: the programs at ingress and egress of interfaces and at XDP (`bpf/datapath.bpf.c`), and the carrier on which their packets come to user space and go back.
//!
//! [`TcHooks`] loads the programs and attaches them; [`Carrier`] reads and writes packets. Both outlive the process: the programs' links are pinned (see [`PinDir`]) and the carrier is
//! persistent, so that a process that dies leaves the interfaces closed, and the next one takes them over without a gap. [`TcHooks::detach`] gives an interface back to the kernel.
mod carrier;
mod dead_pins;
mod detach;
mod detach_wait;
mod flow_line;
mod flow_record;
mod flow_table;
mod flow_table_size;
mod hooks;
mod hop_table;
mod line_memory;
mod loopback;
mod looped_flows;
mod pin_dir;
mod port_map;
mod segment_note;
mod syn_class;
mod tc_error;
mod xdp_devices;
mod xdp_hook;
mod xdp_pin;

pub use carrier::{CARRIER_NAME, CARRIER_OVERHEAD, CarriedPacket, Carrier, CarrierAction, TcHook};
pub use dead_pins::remove_dead_pins;
pub use flow_line::{FlowLine, TcFlow, TcFlowTarget};
pub use flow_record::{AdoptedFlow, FlowRecord};
pub use flow_table::FlowTable;
pub use flow_table_size::FlowTableSize;
pub use hooks::{HookCounters, HookOptions, HookSecrets, TcHooks};
pub use hop_table::{Hop, HopKey, HopTable};
pub use line_memory::{FlowCounts, now_ms};
pub use looped_flows::LoopedEnds;
pub use pin_dir::PinDir;
pub use port_map::PortMap;
pub use segment_note::SegmentNote;
pub use syn_class::{MAX_PORT_MAPS, SynClassTable, TcSynClass};
pub use tc_error::TcError;
