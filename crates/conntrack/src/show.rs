//! What to show and how: output formats, events, counters, filters.
use crate::filter::EntryFilter;
use crate::format::{OutputFormat, OutputOptions};
use keepstate_engine::{Sysctl, Sysctls};

/// What to show and how.
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[derive(Clone, Debug)]
#[cfg_attr(feature = "clap", command(next_help_heading = "Output"))]
pub struct OutputArgs {
    /// Format, separated by commas: extended, id, timestamp, ktimestamp, labels, xml, save, json
    #[cfg_attr(feature = "clap", arg(short, long = "output", value_name = "LIST", value_parser = OutputOptions::parse))]
    outputs: Vec<OutputOptions>,
    /// Print each event, as conntrack -E does, instead of the table
    #[cfg_attr(feature = "clap", arg(long))]
    pub events: bool,
    /// Print the counters of conntrack -S (instead of the table, unless --events or --each is given too)
    #[cfg_attr(feature = "clap", arg(long))]
    pub stats: bool,
    /// Zero the counters after printing, as conntrack -z; nothing is left to be counted, so it changes nothing here
    #[cfg_attr(feature = "clap", arg(short = 'z', long))]
    pub zero: bool,
    /// Which entries and events.
    #[cfg_attr(feature = "clap", command(flatten))]
    pub filter: EntryFilter,
}

impl OutputArgs {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.outputs.iter().try_fold(OutputOptions::default(), |sum, more| sum.merge(*more))?;
        if self.stats && self.events && self.is_document() {
            return Err(
                "counters are no part of a document of events: ask for --stats, or for --events with -o xml or json"
                    .into(),
            );
        }
        self.filter.check()
    }

    /// All that was asked for with `-o`.
    pub fn output(&self) -> OutputOptions {
        self.outputs.iter().fold(OutputOptions::default(), |sum, more| sum.merge(*more).unwrap_or(sum))
    }

    /// Was no format asked for?
    pub fn is_default_format(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Is the output a document, between whose lines nothing else may stand?
    pub fn is_document(&self) -> bool {
        matches!(self.output().format, OutputFormat::Xml | OutputFormat::Json)
    }

    /// What the sysctls keep from being shown, if anything: a note for the user.
    pub fn missing(&self, knobs: &Sysctls) -> Option<&'static str> {
        (self.output().ktimestamp && knobs[Sysctl::Timestamp] == 0).then_some(
            "-o ktimestamp has no times to show, as in Linux, unless they are kept: --set nf_conntrack_timestamp=1",
        )
    }
}
