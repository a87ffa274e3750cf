//! Where a model is fed from: how to open its sockets, and what else its owner tells.
//!
//! This crate knows Linux's table; how to reach a gateway is given by the program, as functions.
use keepstate_linux::netlink::NetlinkSocket;
use keepstate_linux::netns::Netns;
use keepstate_linux::{SysRoot, sysctl};
use std::fmt;
use std::io;
use std::sync::Arc;

/// What the owner's settings mean for the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceSettings {
    /// Are packets and bytes counted?
    pub accounting: Option<bool>,
    /// Does it tell of changes?
    pub events: Option<bool>,
}

type Open = dyn Fn() -> io::Result<NetlinkSocket> + Send + Sync;
type Read<T> = dyn Fn() -> T + Send + Sync;
/// Counters by name.
type Reasons = io::Result<Vec<(String, u64)>>;

/// A table that can be followed. It is cloned for each thread that reads it.
#[derive(Clone)]
pub struct TableSource {
    name: String,
    /// Linux's, and not a gateway's.
    is_kernel: bool,
    /// The namespace of Linux's table, if it is not this thread's.
    netns: Option<Netns>,
    open: Arc<Open>,
    settings: Arc<Read<SourceSettings>>,
    /// Counters that the sockets do not tell.
    reasons: Arc<Read<Reasons>>,
}

impl TableSource {
    /// Linux's table, in a network namespace; `None` is this thread's.
    pub fn kernel(netns: Option<Netns>) -> TableSource {
        let name = netns.as_ref().map_or_else(|| "Linux".to_owned(), |netns| format!("Linux, {}", netns.name));
        let (for_socket, for_settings) = (netns.clone(), netns);
        TableSource {
            name,
            is_kernel: true,
            netns: for_socket.clone(),
            open: Arc::new(move || inside(for_socket.as_ref(), NetlinkSocket::open_netfilter)?),
            settings: Arc::new(move || inside(for_settings.as_ref(), kernel_settings).unwrap_or_default()),
            reasons: Arc::new(|| Ok(Vec::new())),
        }
    }

    /// A table that is reached otherwise: a running gateway's.
    pub fn other(
        name: String,
        open: impl Fn() -> io::Result<NetlinkSocket> + Send + Sync + 'static,
        settings: impl Fn() -> SourceSettings + Send + Sync + 'static,
        reasons: impl Fn() -> Reasons + Send + Sync + 'static,
    ) -> TableSource {
        TableSource {
            name,
            is_kernel: false,
            netns: None,
            open: Arc::new(open),
            settings: Arc::new(settings),
            reasons: Arc::new(reasons),
        }
    }

    /// What it is called in headings.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command that sets one of conntrack's sysctls (`nf_conntrack_acct`) where this table is.
    pub fn set_command(&self, name: &str, value: u32) -> String {
        if self.is_kernel {
            format!("sysctl -w net.netfilter.{name}={value}")
        } else {
            format!("keepstate control set {name}={value}")
        }
    }

    /// The namespace of Linux's table; `None`: this process's, or a gateway's.
    pub(crate) fn netns(&self) -> Option<&Netns> {
        self.netns.as_ref()
    }

    /// Is the namespace of Linux's table still there? Sockets that are open do not tell.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn check(&self) -> io::Result<()> {
        let Some(netns) = self.netns.as_ref().filter(|netns| !netns.is_current) else { return Ok(()) };
        netns.check().map_err(|error| {
            let text = match error.source.kind() {
                io::ErrorKind::NotFound => {
                    format!("network namespace {} is gone; start again when it is back", netns.name)
                }
                _ => error.to_string(),
            };
            io::Error::new(error.source.kind(), text)
        })
    }

    /// A ctnetlink socket to its owner.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(&self) -> io::Result<NetlinkSocket> {
        self.check()?;
        (self.open)()
    }

    /// Its settings now.
    pub fn settings(&self) -> SourceSettings {
        (self.settings)()
    }

    /// Counters that the sockets do not tell: a gateway's reasons.
    ///
    /// # Errors
    /// The owner cannot be reached.
    pub fn reasons(&self) -> Reasons {
        (self.reasons)()
    }
}

impl fmt::Debug for TableSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TableSource").field(&self.name).finish()
    }
}

/// Runs `work` in a namespace.
fn inside<T: Send>(netns: Option<&Netns>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    match netns {
        Some(netns) if !netns.is_current => {
            netns.enter(work).map_err(|error| io::Error::new(error.source.kind(), error))
        }
        _ => Ok(work()),
    }
}

fn kernel_settings() -> SourceSettings {
    let is_on = |name: &str| sysctl::read_u64(&SysRoot::live(), name).ok().flatten().map(|value| value != 0);
    SourceSettings {
        accounting: is_on("net.netfilter.nf_conntrack_acct"),
        events: is_on("net.netfilter.nf_conntrack_events"),
    }
}
