//! How existing interfaces are governed: what stays open when the gateway ends, and what goes on in the kernel.
use keepstate_linux::tc::FlowTableSize;
use std::str::FromStr;

/// What becomes of the governed interfaces when the gateway is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// They stay closed: nothing passes until a gateway runs again.
    Closed,
    /// They are given back to the kernel.
    Open,
}

/// How the interfaces are governed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcOptions {
    /// What becomes of them at the end.
    pub on_exit: OnExit,
    /// While no gateway runs, this TCP port of the machine stays open on the interface of this name.
    pub lifeline: Option<Lifeline>,
    /// Packets of established connections that the rules provably judge alike go on in the kernel.
    pub offload: bool,
    /// New TCP connections that the rules provably judge as others before are opened in the kernel, and told afterwards.
    pub offload_new: bool,
    /// Where packets of known flows are sent on at XDP.
    pub offload_xdp: OffloadXdp,
    /// How many of them the kernel has room for.
    pub offload_size: FlowTableSize,
}

/// Where packets of known flows are sent on at XDP, before the kernel has made a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffloadXdp {
    /// At interfaces of hardware whose driver has native XDP.
    #[default]
    Auto,
    /// Wherever the driver has native XDP, also at software interfaces (veth).
    Native,
    /// Nowhere.
    Off,
}

/// A TCP port of the machine that stays open on an interface while no gateway runs: `eth0`, or `eth0:2222`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifeline {
    pub(crate) interface: String,
    pub(crate) port: u16,
}

impl FromStr for Lifeline {
    type Err = String;

    fn from_str(text: &str) -> Result<Lifeline, String> {
        const SSH: u16 = 22;
        let (interface, port) = match text.rsplit_once(':') {
            None => (text, Some(SSH)),
            Some((interface, port)) => (interface, port.parse().ok().filter(|port| *port > 0)),
        };
        match port.filter(|_| !interface.is_empty()) {
            Some(port) => Ok(Lifeline { interface: interface.to_owned(), port }),
            None => Err(format!("{text:?}: write an interface and a port, like eth0:22; without a port it is 22")),
        }
    }
}
