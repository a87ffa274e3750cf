//! What goes wrong in `conntrack`, and how it is said: as conntrack says it, with what to do where conntrack leaves that open.
use keepstate_linux::netlink::Failure;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// What stands before each note and error. Scripts that look at it see the version whose command line this is.
pub(super) const NAME: &str = concat!("conntrack v1.4.7 (keepstate ", env!("CARGO_PKG_VERSION"), ")");

/// Why a command came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// It was right, and failed: exit code 1.
    Failed(String),
    /// Whoever reads our output had enough: success.
    Closed,
}

impl Fault {
    /// A wrong command line.
    pub(super) fn usage(text: impl Into<String>) -> Fault {
        Fault::Usage(text.into())
    }

    /// What the kernel made of `doing`.
    pub(super) fn kernel(doing: Doing, failure: &Failure) -> Fault {
        let reason = match (failure.errno(), doing) {
            (Some(libc::EPERM | libc::EACCES), _) => {
                "sorry, you must be root or get CAP_NET_ADMIN capability to do this: sudo, or --cap-add NET_ADMIN for a container".into()
            }
            (Some(libc::EEXIST), Doing::Create) => "Such conntrack exists, try -U to update".into(),
            (Some(libc::ENOENT), Doing::Find | Doing::Delete | Doing::Update) => "such conntrack doesn't exist".into(),
            (Some(libc::ENOENT), Doing::CreateExpectation) => "master conntrack not found".into(),
            (Some(libc::EINVAL), Doing::List | Doing::Create | Doing::Find | Doing::Delete | Doing::Update) => {
                "invalid parameters".into()
            }
            (Some(libc::ENOSPC), Doing::Update) => {
                "No space left on device: the kernel keeps labels only while a rule uses them (nft: ct label)".into()
            }
            (Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT), Doing::Open) => {
                "this kernel has no ctnetlink: load the module with `modprobe nf_conntrack_netlink`".into()
            }
            (Some(number), _) => without_number(&io::Error::from_raw_os_error(number)),
            (None, _) => failure.to_string(),
        };
        Fault::Failed(format!("Operation failed: {reason}"))
    }

    /// Says it on standard error; gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Fault::Usage(text) => {
                say(text);
                line("Try `conntrack -h' or 'conntrack --help' for more information.");
                ExitCode::from(2)
            }
            Fault::Failed(text) => {
                say(text);
                ExitCode::FAILURE
            }
            Fault::Closed => ExitCode::SUCCESS,
        }
    }
}

/// Output that cannot be written: a closed pipe is no failure.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Fault::Closed,
            _ => Fault::Failed(format!("standard output cannot be written: {}", without_number(&error))),
        }
    }
}

/// What the kernel was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Open,
    List,
    Find,
    Create,
    Add,
    Update,
    Delete,
    Flush,
    Count,
    Listen,
    CreateExpectation,
    FindExpectation,
}

/// A note or error behind the program's name.
pub(super) fn say(text: impl fmt::Display) {
    line(&format!("{NAME}: {text}"));
}

/// A line on standard error; nobody being there to read it is no failure.
pub(super) fn line(text: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{text}");
}

/// The C library's words for an error, without Rust's number behind them.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
