//! `keepstate man`: the manual, one page per command, made from the same definition as the parser and the help.
//!
//! Name, synopsis and options are written by clap_mangen. The examples and exit codes at the end of a command's help are written here,
//! line by line: filled text would run them together.
use anyhow::{Context, Result, bail};
use clap::{Args, Command};
use keepstate_conntrack::command as conntrack;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

/// Print the manual page of keepstate or of one of its commands, or write all pages.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Man {
    /// The command; without one, the page of keepstate itself
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
    /// Write the pages of all commands into this directory: keepstate.1, keepstate-replay.1, ...
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  # read one
  keepstate man replay | man -l -
  # install all of them
  sudo keepstate man --dir /usr/local/share/man/man1";

impl Man {
    /// Do the options fit together? They always do.
    ///
    /// # Errors
    /// None.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Prints one page of the program `program`, or writes all.
    ///
    /// # Errors
    /// An unknown command; a directory that cannot be written.
    pub fn run(&self, program: Command) -> Result<()> {
        let pages = render_all(program)?;
        if let Some(directory) = &self.dir {
            fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
            for (name, page) in pages {
                let file = directory.join(format!("{name}.1"));
                fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
            }
            return Ok(());
        }
        let wanted = self.command.as_ref().map_or_else(|| "keepstate".to_owned(), |name| format!("keepstate-{name}"));
        let Some((_, page)) = pages.iter().find(|(name, _)| *name == wanted) else {
            let known: Vec<&str> = pages.iter().filter_map(|(name, _)| name.strip_prefix("keepstate-")).collect();
            bail!("no command {:?}; there are: {}", self.command.as_deref().unwrap_or_default(), known.join(", "));
        };
        let mut out = io::stdout().lock();
        out.write_all(page)?;
        Ok(out.flush()?)
    }
}

/// Every page with its name, the program's page first.
///
/// # Errors
/// None if the definition of the command line is correct.
pub fn render_all(program: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut pages = vec![("keepstate".to_owned(), render_page(&program)?)];
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        pages.push((format!("keepstate-{}", command.get_name()), render_page(command)?));
    }
    Ok(pages)
}

fn render_page(command: &Command) -> io::Result<Vec<u8>> {
    let title = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let man = clap_mangen::Man::new(command.clone()).title(title).manual("keepstate");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    if command.get_name() == "conntrack" {
        // Its options are not clap's.
        let (options, ending) = conntrack::HELP.split_once("\nExamples:\n").unwrap_or((conntrack::HELP, ""));
        let usage = options.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or_default();
        write_verbatim(&mut page, "SYNOPSIS", &format!("keepstate {usage}\n{usage}"))?;
        write_verbatim(&mut page, "DESCRIPTION", options)?;
        write_after_help(&mut page, &format!("Examples:\n{ending}"))?;
        return Ok(page);
    }
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let ending = command.get_after_long_help().or(command.get_after_help());
    write_after_help(&mut page, &ending.map(ToString::to_string).unwrap_or_default())?;
    Ok(page)
}

/// The end of a help text: examples, sentences, exit codes.
fn write_after_help(page: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let (text, codes) = text.split_once("Exit codes:").map_or((text, None), |(text, codes)| (text, Some(codes)));
    let (examples, notes) = match text.strip_prefix("Examples:\n") {
        Some(rest) => rest.split_once("\n\n").unwrap_or((rest, "")),
        None => ("", text),
    };
    if !examples.trim().is_empty() {
        write_verbatim(page, "EXAMPLES", examples)?;
    }
    for (heading, text) in [("NOTES", notes), ("EXIT STATUS", codes.unwrap_or_default())] {
        if !text.trim().is_empty() {
            writeln!(page, ".SH \"{heading}\"")?;
            for line in text.trim().lines() {
                writeln!(page, "{}", escape_roff(line.trim()))?;
            }
        }
    }
    Ok(())
}

/// A section whose lines are not filled.
fn write_verbatim(page: &mut Vec<u8>, heading: &str, text: &str) -> io::Result<()> {
    writeln!(page, ".SH {heading}\n.nf")?;
    for line in text.trim_end().lines() {
        writeln!(page, "{}", escape_roff(line))?;
    }
    writeln!(page, ".fi")
}

/// Escapes a line for roff: backslashes, a leading period or apostrophe, and minus signs, which would become hyphens.
fn escape_roff(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roff_special_characters_are_escaped() {
        assert_eq!(escape_roff(".x"), "\\&.x");
        assert_eq!(escape_roff("a -b 'c' \\"), "a \\-b \\(aqc\\(aq \\e");
    }

    #[test]
    fn after_help_is_split_into_sections() {
        let mut page = Vec::new();
        write_after_help(&mut page, "Examples:\n  # one\n  a\n\nA note.\nMore of it.\nExit codes: 0 done").unwrap();
        let page = String::from_utf8(page).unwrap();
        assert_eq!(
            page,
            ".SH EXAMPLES\n.nf\n  # one\n  a\n.fi\n.SH \"NOTES\"\nA note.\nMore of it.\n.SH \"EXIT STATUS\"\n0 done\n"
        );
    }
}
