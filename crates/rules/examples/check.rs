//! Checks a ruleset file: prints its errors, or the compiled ruleset and its size.
//!
//! `cargo run -p keepstate-rules --example check -- /etc/nftables.conf`
use keepstate_rules::{IncludeResolver, compile, parse_with};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Reads included files relative to the including one. Patterns with wildcards are left to the reader of this example.
struct Files;

impl IncludeResolver for Files {
    fn resolve(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
        let path = Path::new(from).parent().unwrap_or(Path::new("")).join(pattern);
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        Ok(vec![(path.display().to_string(), text)])
    }
}

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        let _ = writeln!(std::io::stderr(), "usage: check FILE");
        return ExitCode::from(2);
    };
    let text = match std::fs::read_to_string(&name) {
        Ok(text) => text,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{name}: {error}");
            return ExitCode::from(2);
        }
    };
    let program = parse_with(&name, &text, &Files, &[]).and_then(|(tree, sources)| compile(&tree, &sources));
    match program {
        Ok(program) => {
            let (chains, rules, elements) = program.size();
            let _ = write!(std::io::stdout(), "{}", program.list());
            let _ = writeln!(std::io::stdout(), "# chains {chains} rules {rules} set elements {elements}");
            ExitCode::SUCCESS
        }
        Err(errors) => {
            let _ = write!(std::io::stderr(), "{errors}");
            ExitCode::FAILURE
        }
    }
}
