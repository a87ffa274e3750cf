//! Standard output of a command.
use super::error::ConntrackError;
use super::request::ConntrackRequest;
use crate::format::FlowWriter;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

/// Standard output without a buffer of its own: the writers above it have one.
pub(super) fn stdout_file() -> Result<File, ConntrackError> {
    Ok(File::from(std::io::stdout().as_fd().try_clone_to_owned()?))
}

/// A writer of connections to standard output.
pub(super) fn flow_writer(request: &ConntrackRequest) -> Result<FlowWriter<File>, ConntrackError> {
    Ok(FlowWriter::new(stdout_file()?, request.output).with_labels(request.label_names.clone()))
}

/// Prints one line.
pub(super) fn print_line(text: &str) -> Result<(), ConntrackError> {
    Ok(writeln!(stdout_file()?, "{text}")?)
}
