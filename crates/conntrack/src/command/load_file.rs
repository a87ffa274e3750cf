//! `-R`: commands from a file, one a line, as `-o save` writes them. All of them are read before the first is carried out, so that a bad line
//! changes nothing.
use super::error::ConntrackError;
use super::grammar::{Command, Table};
use super::modify;
use super::parse::parse;
use super::request::ConntrackRequest;
use super::target::Target;
use std::io::Read;
use std::process::ExitCode;

/// Reads the file that `option` names, or standard input, and carries out its lines.
pub(super) fn run(place: &Target, option: &str, rest: &[String]) -> Result<ExitCode, ConntrackError> {
    let attached = option.split_once('=').map(|(_, file)| file);
    let Some(file) = attached.or_else(|| rest.first().map(String::as_str)) else {
        return Err(ConntrackError::usage(format!(
            "unknown option `{option}': the file is missing, or - for standard input"
        )));
    };
    let mut requests = parse_lines(&read_text(file)?)?;
    requests.iter_mut().for_each(|(_, request)| request.target = place.clone());
    let mut table = place.open_table()?;
    for (line, request) in &requests {
        let done = match request.command {
            Command::Create => modify::create(&mut table, request).map(drop),
            Command::Add => modify::add(&mut table, request).map(drop),
            Command::Update => modify::update(request).map(drop),
            Command::Delete => modify::delete(request).map(drop),
            _ => modify::flush(request),
        };
        done.map_err(|fault| at_line(*line, fault))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_text(file: &str) -> Result<String, ConntrackError> {
    let mut octets = Vec::new();
    let done = match file {
        "-" => std::io::stdin().read_to_end(&mut octets).map(drop),
        file => std::fs::read(file).map(|read| octets = read),
    };
    done.map_err(|error| ConntrackError::usage(format!("Failed to open file {file} for reading: {error}")))?;
    String::from_utf8(octets).map_err(|_| ConntrackError::usage(format!("{file} is no text")))
}

/// The commands of a file, each with the number of its line. Blank lines and those that begin with `#` are none.
fn parse_lines(text: &str) -> Result<Vec<(usize, ConntrackRequest)>, ConntrackError> {
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
        let request = parse(&words).map_err(|fault| at_line(number, fault))?;
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
        requests.push((number, request));
    }
    Ok(requests)
}

/// The words of a line; what stands in double quotes is one, without them.
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

/// A fault, and in which line it is.
fn at_line(line: usize, fault: ConntrackError) -> ConntrackError {
    match fault {
        ConntrackError::Usage(text) => ConntrackError::Usage(format!("{text}: in line {line}")),
        ConntrackError::Failed(text) => ConntrackError::Failed(format!("{text}: in line {line}")),
        ConntrackError::ClosedPipe => ConntrackError::ClosedPipe,
    }
}
