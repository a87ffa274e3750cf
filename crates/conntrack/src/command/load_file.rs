//! `-R`: commands from a file, one per line, as `-o save` writes them. All lines are parsed before the first is executed, so that a bad
//! line changes nothing.
use super::error::{ConntrackError, print_message};
use super::grammar::{Command, Table};
use super::modify;
use super::parse::parse_saved;
use super::request::ConntrackRequest;
use super::target::Target;
use crate::format::{SAVED_LEAD, SavedAttributes};
use keepstate_linux::ctnetlink::{CtClient, CtFlow, CtNatRange};
use std::io::Read;
use std::net::IpAddr;
use std::process::ExitCode;

/// Reads the file given with `option` (or standard input) and executes its lines.
pub(super) fn run(target: &Target, option: &str, rest: &[String]) -> Result<ExitCode, ConntrackError> {
    let attached = option.split_once('=').map(|(_, file)| file);
    let Some(file) = attached.or_else(|| rest.first().map(String::as_str)) else {
        return Err(ConntrackError::usage(format!(
            "unknown option `{option}': the file is missing, or - for standard input"
        )));
    };
    let mut requests = parse_lines(&read_text(file)?)?;
    requests.iter_mut().for_each(|(_, request)| request.target = target.clone());
    let mut table = target.open_table()?;
    let mut before_master = Vec::new();
    for (line, request) in &requests {
        match restore(&mut table, *line, request) {
            // A table is saved in no order: the master may stand further below.
            Err(_) if request.flow.master.is_some() => before_master.push((*line, request)),
            done => done?,
        }
    }
    restore_expected(&mut table, before_master)?;
    Ok(ExitCode::SUCCESS)
}

/// Executes a line. A helper that this table has not is no reason to lose the connection.
fn restore(table: &mut CtClient, line: usize, request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let Err(error) = execute(table, request) else { return Ok(()) };
    let Some(helper) = &request.flow.helper else { return Err(at_line(line, error)) };
    let without = ConntrackRequest { flow: CtFlow { helper: None, ..request.flow.clone() }, ..request.clone() };
    if execute(table, &without).is_err() {
        return Err(at_line(line, error));
    }
    print_message(format!(
        "restored without its helper `{}', which is not here (a kernel loads it with `modprobe nf_conntrack_{0}'): in line {line}",
        helper.escape_debug()
    ));
    Ok(())
}

/// Creates expected connections, whose masters may be expected ones themselves; at last those whose masters are nowhere.
fn restore_expected(table: &mut CtClient, mut waiting: Vec<(usize, &ConntrackRequest)>) -> Result<(), ConntrackError> {
    loop {
        let before = waiting.len();
        waiting.retain(|(line, request)| restore(table, *line, request).is_err());
        if waiting.len() == before {
            break;
        }
    }
    for (line, request) in waiting {
        let flow = CtFlow { master: None, ..request.flow.clone() };
        restore(table, line, &ConntrackRequest { flow, ..request.clone() })?;
        print_message(format!("restored without its master, which is not in the table: in line {line}"));
    }
    Ok(())
}

fn execute(table: &mut CtClient, request: &ConntrackRequest) -> Result<(), ConntrackError> {
    match request.command {
        Command::Create => modify::create(table, request).map(drop),
        Command::Add => modify::add(table, request).map(drop),
        Command::Update => modify::update(request).map(drop),
        Command::Delete => modify::delete(request).map(drop),
        _ => modify::flush(request),
    }
}

fn read_text(file: &str) -> Result<String, ConntrackError> {
    let mut bytes = Vec::new();
    let done = match file {
        "-" => std::io::stdin().read_to_end(&mut bytes).map(drop),
        file => std::fs::read(file).map(|read| bytes = read),
    };
    done.map_err(|error| ConntrackError::usage(format!("Failed to open file {file} for reading: {error}")))?;
    String::from_utf8(bytes).map_err(|_| ConntrackError::usage(format!("{file} is not UTF-8 text")))
}

/// The commands of a file, each with its line number. Blank lines and lines that begin with `#` are skipped.
pub(super) fn parse_lines(text: &str) -> Result<Vec<(usize, ConntrackRequest)>, ConntrackError> {
    let mut requests = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut words: Vec<String> = split_quoted(line);
        if words.first().is_some_and(|word| word == "conntrack") {
            words.remove(0);
        }
        if words.is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let number = index + 1;
        let saved = take_saved_attributes(&mut words).map_err(|error| at_line(number, error))?;
        let mut request = parse_saved(&words).map_err(|error| at_line(number, error))?;
        let fits = matches!(
            request.command,
            Command::Create | Command::Add | Command::Update | Command::Delete | Command::Flush
        );
        if !fits || request.table != Table::Connections {
            let first = words.iter().find(|word| word.starts_with('-')).map_or("unknown", String::as_str);
            return Err(at_line(
                number,
                ConntrackError::usage(format!("Cannot use command `{first}' with --load-file")),
            ));
        }
        if matches!(request.command, Command::Create | Command::Add) {
            if let Some(saved) = saved {
                saved.apply(&mut request.flow);
            }
            if request.reply_ports_given || request.flow.original.icmp_id.is_some() {
                pin_translated_ports(&mut request.flow);
            }
        }
        requests.push((number, request));
    }
    Ok(requests)
}

/// Has a translated entry take the ports that were saved and no others. Left the choice, Linux gives the port that another connection of the same
/// source has got, and another ICMP id than one in use; also for the side that is not translated.
fn pin_translated_ports(flow: &mut CtFlow) {
    if flow.source_nat.is_none() && flow.destination_nat.is_none() {
        return;
    }
    let reply = flow.reply;
    let pin = |side: &mut Option<CtNatRange>, address: Option<IpAddr>, port: Option<u16>| {
        let (Some(address), Some(port)) = (address, port) else { return };
        side.get_or_insert(CtNatRange { address, ports: None }).ports.get_or_insert([port, port]);
    };
    pin(&mut flow.destination_nat, reply.source, reply.source_port.or(reply.icmp_id));
    // The destination is translated first, and ICMP has one id for both sides.
    let icmp_id = reply.icmp_id.and_then(|_| flow.destination_nat?.ports).map(|[id, _]| id);
    pin(&mut flow.source_nat, reply.destination, reply.destination_port.or(icmp_id));
}

/// What stands behind `# keepstate`; those words are taken away.
fn take_saved_attributes(words: &mut Vec<String>) -> Result<Option<SavedAttributes>, ConntrackError> {
    let Some(at) = words.windows(SAVED_LEAD.len()).position(|pair| pair == SAVED_LEAD) else { return Ok(None) };
    let saved = words.split_off(at);
    let saved = SavedAttributes::parse(saved.get(SAVED_LEAD.len()..).unwrap_or_default());
    saved.map(Some).map_err(|word| {
        ConntrackError::usage(format!(
            "unknown attribute `{}' behind `# keepstate': a newer keepstate may know it; without the words from # on, the entry is \
             restored without its attributes",
            word.escape_debug()
        ))
    })
}

/// The words of a line; text in double quotes is one word.
fn split_quoted(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            letter if letter.is_whitespace() && !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The same error with its line number.
fn at_line(line: usize, error: ConntrackError) -> ConntrackError {
    match error {
        ConntrackError::Usage(text) => ConntrackError::Usage(format!("{text}: in line {line}")),
        ConntrackError::Failed(text) => ConntrackError::Failed(format!("{text}: in line {line}")),
        ConntrackError::ClosedPipe => ConntrackError::ClosedPipe,
    }
}
