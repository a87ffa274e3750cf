//! How existing interfaces are governed: what stays open when the gateway ends, and what goes on in the kernel.
use crate::duration::parse_millis;
use keepstate_linux::tc::FlowTableSize;
use std::str::FromStr;
use std::time::Duration;

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
    /// For how long they go on while no gateway runs.
    pub unattended: Unattended,
}

/// For how long packets of established connections go on while no gateway runs: a time, or `forever`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unattended(pub(super) Option<Duration>);

impl FromStr for Unattended {
    type Err = String;

    fn from_str(text: &str) -> Result<Unattended, String> {
        if text == "forever" {
            return Ok(Unattended(None));
        }
        match parse_millis(text) {
            Ok(time @ 10_000..=2_592_000_000) => Ok(Unattended(Some(Duration::from_millis(time)))),
            Ok(_) => Err("established connections go on without a gateway for 10s to 30d, or forever: sooner than after ten seconds nobody can tell that it died".into()),
            Err(_) => Err("write a time like 1h, or forever".into()),
        }
    }
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
