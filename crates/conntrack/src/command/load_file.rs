//! `-R`: commands from a file, one per line, as `-o save` writes them. All lines are parsed before the first is executed, so that a bad
//! line changes nothing.
use super::error::ConntrackError;
use super::grammar::{Command, Table};
use super::modify;
use super::parse::parse;
use super::request::ConntrackRequest;
use super::target::Target;
use std::io::Read;
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
    for (line, request) in &requests {
        let done = match request.command {
            Command::Create => modify::create(&mut table, request).map(drop),
            Command::Add => modify::add(&mut table, request).map(drop),
            Command::Update => modify::update(request).map(drop),
            Command::Delete => modify::delete(request).map(drop),
            _ => modify::flush(request),
        };
        done.map_err(|error| at_line(*line, error))?;
    }
    Ok(ExitCode::SUCCESS)
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
        let request = parse(&words).map_err(|error| at_line(number, error))?;
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
