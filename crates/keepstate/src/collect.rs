//! `keepstate collect`: a support bundle of this machine, for `keepstate doctor --from` on another one.
use crate::stderr;
use crate::unit_args;
use anyhow::Result;
use clap::Args;
use keepstate_bundle::BundleOptions;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Collect a support bundle of this machine, to be examined elsewhere with `keepstate doctor --from`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Collect {
    /// Output path: a file if it ends in .tar.gz or .tgz, else a directory [default: keepstate-DATE.tar.gz here]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Also replace addresses by pseudonyms (secrets are always replaced): the same address by the same pseudonym, of the same family, private if it was
    #[arg(long)]
    redact: bool,
    /// Limit the size of the bundle before packing; files that do not fit are cut and listed in manifest.json
    #[arg(long, value_name = "SIZE", default_value = "10M", value_parser = crate::shared_args::parse_size)]
    max_size: u64,
    /// Collect at most this many entries of each conntrack table
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    sample: usize,
    /// Collect from at most this many network namespaces
    #[arg(long, value_name = "NUMBER", default_value_t = 256)]
    namespaces: usize,
    /// Read the counters twice, this long apart; 0 reads them once
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = unit_args::parse_interval)]
    interval: Duration,
}

const EXAMPLES: &str = "\
Examples:
  # everything, as root, to send to support
  sudo keepstate collect -o host.tar.gz
  # the same without real addresses
  sudo keepstate collect --redact -o host.tar.gz
  # a directory, to see what would be sent
  sudo keepstate collect --redact -o host
  # and on the other machine
  keepstate doctor --from host.tar.gz

Secrets are always replaced: values of options, settings and headers named token, password,
secret, credential, key and the like, passwords in URLs, private keys. --redact also
replaces IP and MAC addresses, also in names (node-10-0-0-5, ip-10-1-2-3.ec2.internal). Other
names of machines, interfaces and processes stay.
Of configuration files only the lines about connection tracking are kept. manifest.json
lists what is in the bundle, what was replaced (by class), what was left out, and why.
Exit codes: 0 done, 1 the bundle could not be written, 2 usage error";

impl Collect {
    /// Checks that the options fit together.
    ///
    /// # Errors
    /// What does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.max_size < 1 << 16 {
            return Err("--max-size must be at least 64K: a smaller bundle cannot be examined".into());
        }
        Ok(())
    }

    /// Collects, and prints the path of the bundle.
    ///
    /// # Errors
    /// If the bundle cannot be written.
    pub fn run(&self) -> Result<ExitCode> {
        let output = self.output.clone().unwrap_or_else(|| {
            // No colons: the file name must work on other systems.
            let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
            PathBuf::from(format!("keepstate-{now}.tar.gz"))
        });
        let options = BundleOptions {
            max_bytes: self.max_size,
            redact: self.redact,
            sample: self.sample,
            namespaces: self.namespaces,
            interval: self.interval,
        };
        let manifest = keepstate_bundle::create(&output, &options)?;
        println!("{}", output.display());
        for class in manifest.replaced.iter().filter(|class| class.number > 0) {
            stderr::note(format!("replaced: {} {}", class.number, class.class));
        }
        for missing in &manifest.left_out {
            stderr::note(format!("left out: {}: {}", missing.what, missing.why));
        }
        Ok(ExitCode::SUCCESS)
    }
}
