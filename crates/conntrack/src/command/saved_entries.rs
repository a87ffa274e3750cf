//! Entries as lines of `-o save`, there and back, for callers that carry them elsewhere than in a file.
use super::error::ConntrackError;
use super::grammar::Command;
use super::load_file::parse_lines;
use crate::format::{FlowWriter, OutputFormat, OutputOptions};
use keepstate_linux::ctnetlink::CtFlow;

/// The line that `conntrack -o save` prints for a connection, without its newline: options that create it again, and behind them what
/// conntrack has no options for.
pub fn saved_line(flow: &CtFlow) -> String {
    let output = OutputOptions { format: OutputFormat::Save, ..OutputOptions::default() };
    let mut line = Vec::new();
    let mut writer = FlowWriter::new(&mut line, output);
    // Writing to memory does not fail.
    let _ = writer.write_flow(flow).and_then(|()| writer.finish());
    drop(writer);
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

/// The connection that a line of [`saved_line`] creates. No part of it is looked for in the table: a helper or a master may not be there.
///
/// # Errors
/// What is wrong with the line.
pub fn parse_saved_line(line: &str) -> Result<CtFlow, String> {
    let requests = parse_lines(line).map_err(ConntrackError::into_text)?;
    match requests.as_slice() {
        [(_, request)] if matches!(request.command, Command::Create | Command::Add) => Ok(request.flow.clone()),
        _ => Err("it is not one line that creates one entry".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepstate_linux::ctnetlink::{CtProtoInfo, Status};

    const LINES: [&str; 3] = [
        "-A -t 119 -u ASSURED -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p tcp --sport 1004 --dport 80 --reply-port-src 80 \
         --reply-port-dst 1004 --state ESTABLISHED # keepstate tcp=0x03/7,0x03/9",
        "-A -t 29 -u SEEN_REPLY -s fd00::1 -d fd00::2 -r fd00::2 -q fd00::1 -p udp --sport 5 --dport 53 --reply-port-src 53 --reply-port-dst 5",
        "-A -t 9 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 7",
    ];

    #[test]
    fn a_line_is_what_it_was_after_there_and_back() {
        for line in LINES {
            let again = saved_line(&parse_saved_line(line).unwrap());
            // What is restored checks no windows.
            assert_eq!(again.replace("0x0b", "0x03"), line);
        }
    }

    /// Of an offloaded connection ctnetlink tells neither timeout nor state.
    #[test]
    fn an_offloaded_connection_can_be_restored() {
        for (line, timeout) in LINES.into_iter().zip([432_000, 120, 120]).take(2) {
            let mut flow = parse_saved_line(line).unwrap();
            flow.status = flow.status.map(|bits| bits | Status::OFFLOAD);
            flow.timeout = None;
            flow.protoinfo = CtProtoInfo::Empty;
            let saved = saved_line(&flow);
            let restored = parse_saved_line(&saved).unwrap();
            assert_eq!((restored.timeout, restored.original), (Some(timeout), flow.original), "{saved}");
            assert_eq!(saved.contains("--state ESTABLISHED"), line.contains("-p tcp"), "{saved}");
        }
    }

    #[test]
    fn what_creates_no_entry_is_refused() {
        let two = format!("{}\n{}", LINES[0], LINES[1]);
        for line in ["", "# nothing", "-D -p udp -s 10.0.0.1", "-F", "-A -p udp", "-A \0", two.as_str()] {
            assert!(parse_saved_line(line).is_err(), "{line}");
        }
    }
}
