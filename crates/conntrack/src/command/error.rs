//! What goes wrong in `conntrack`, and how it is said: as conntrack says it, with what to do where conntrack leaves that open.
use keepstate_linux::netlink::NetlinkError;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// What stands before each note and error. Scripts that look at it see the version whose command line this is.
pub(super) const VERSION_TEXT: &str = concat!("conntrack v1.4.7 (keepstate ", env!("CARGO_PKG_VERSION"), ")");

/// Why a command came to nothing.
#[derive(Debug)]
pub(super) enum ConntrackError {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// It was right, and failed: exit code 1.
    Failed(String),
    /// Whoever reads our output had enough: success.
    ClosedPipe,
}

impl ConntrackError {
    /// A wrong command line.
    pub(super) fn usage(text: impl Into<String>) -> ConntrackError {
        ConntrackError::Usage(text.into())
    }

    /// What the kernel made of `doing`.
    pub(super) fn from_kernel(doing: Operation, failure: &NetlinkError) -> ConntrackError {
        let reason = match (failure.errno(), doing) {
            (Some(libc::EPERM | libc::EACCES), _) => {
                "sorry, you must be root or get CAP_NET_ADMIN capability to do this: sudo, or --cap-add NET_ADMIN for a container".into()
            }
            (Some(libc::EEXIST), Operation::Create) => "Such conntrack exists, try -U to update".into(),
            (Some(libc::ENOENT), Operation::Get | Operation::Delete | Operation::Update) => "such conntrack doesn't exist".into(),
            (Some(libc::ENOENT), Operation::CreateExpectation) => "master conntrack not found".into(),
            (Some(libc::EINVAL), Operation::List | Operation::Create | Operation::Get | Operation::Delete | Operation::Update) => {
                "invalid parameters".into()
            }
            (Some(libc::ENOSPC), Operation::Update) => {
                "No space left on device: the kernel keeps labels only while a rule uses them (nft: ct label)".into()
            }
            (Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT), Operation::Open) => {
                "this kernel has no ctnetlink: load the module with `modprobe nf_conntrack_netlink`".into()
            }
            (Some(number), _) => strip_os_error_number(&io::Error::from_raw_os_error(number)),
            (None, _) => failure.to_string(),
        };
        ConntrackError::Failed(format!("Operation failed: {reason}"))
    }

    /// Says it on standard error; gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            ConntrackError::Usage(text) => {
                print_message(text);
                print_line("Try `conntrack -h' or 'conntrack --help' for more information.");
                ExitCode::from(2)
            }
            ConntrackError::Failed(text) => {
                print_message(text);
                ExitCode::FAILURE
            }
            ConntrackError::ClosedPipe => ExitCode::SUCCESS,
        }
    }
}

/// Output that cannot be written: a closed pipe is no failure.
impl From<io::Error> for ConntrackError {
    fn from(error: io::Error) -> ConntrackError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => ConntrackError::ClosedPipe,
            _ => {
                ConntrackError::Failed(format!("standard output cannot be written: {}", strip_os_error_number(&error)))
            }
        }
    }
}

/// What the kernel was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Open,
    List,
    Get,
    Create,
    Add,
    Update,
    Delete,
    Flush,
    Count,
    Monitor,
    CreateExpectation,
    GetExpectation,
}

/// A note or error behind the program's name.
pub(super) fn print_message(text: impl fmt::Display) {
    print_line(&format!("{VERSION_TEXT}: {text}"));
}

/// A line on standard error; nobody being there to read it is no failure.
pub(super) fn print_line(text: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{text}");
}

/// The C library's words for an error, without Rust's number behind them.
fn strip_os_error_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
