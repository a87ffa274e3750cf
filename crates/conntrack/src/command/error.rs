//! Errors of the command, in conntrack's words, with what to do where conntrack leaves that open.
use keepstate_linux::netlink::NetlinkError;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// The prefix of each note and error: scripts find the version whose command line this is.
pub(super) const VERSION_TEXT: &str = concat!("conntrack v1.4.7 (keepstate ", env!("CARGO_PKG_VERSION"), ")");

/// Why a command failed.
#[derive(Debug)]
pub(super) enum ConntrackError {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// The command failed: exit code 1.
    Failed(String),
    /// The reader of our output has closed the pipe: success.
    ClosedPipe,
}

impl ConntrackError {
    /// A usage error.
    pub(super) fn usage(text: impl Into<String>) -> ConntrackError {
        ConntrackError::Usage(text.into())
    }

    /// The kernel's error for this operation.
    pub(super) fn from_kernel(operation: Operation, failure: &NetlinkError) -> ConntrackError {
        let reason = match (failure.errno(), operation) {
            // Whoever may not change entries may not list them either, and they were listed before.
            (Some(libc::EPERM), Operation::Update) => {
                "Operation not permitted: the timeout of an entry with FIXED_TIMEOUT cannot be changed".into()
            }
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
                "No space left on device: the kernel stores labels only while a rule uses them (nft: ct label)".into()
            }
            (Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT), Operation::Open) => {
                "this kernel has no ctnetlink: load the module with `modprobe nf_conntrack_netlink`".into()
            }
            (Some(number), _) => strip_os_error_number(&io::Error::from_raw_os_error(number)),
            (None, _) => failure.to_string(),
        };
        ConntrackError::Failed(format!("Operation failed: {reason}"))
    }

    /// What it says.
    pub(super) fn into_text(self) -> String {
        match self {
            ConntrackError::Usage(text) | ConntrackError::Failed(text) => text,
            ConntrackError::ClosedPipe => "the pipe was closed".into(),
        }
    }

    /// Prints it on standard error; returns the exit code.
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

/// Output that cannot be written; a closed pipe is no failure.
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

/// An operation on the kernel's table.
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

/// Prints a note or error after the program's name.
pub(super) fn print_message(text: impl fmt::Display) {
    print_line(&format!("{VERSION_TEXT}: {text}"));
}

/// Prints a line on standard error; a closed standard error is no failure.
pub(super) fn print_line(text: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{text}");
}

/// The C library's text for an error, without the number that Rust appends.
fn strip_os_error_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
