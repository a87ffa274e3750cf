//! A gateway that a test or a bench has started: when it routes.
use std::io::{BufRead, BufReader};
use std::process::Child;

/// Reads what a gateway says on standard error, which must be a pipe, until it routes. What it says later is read too, so that the pipe does not fill, and thrown away.
///
/// # Errors
/// It ended before; what it had said by then.
pub fn wait_until_it_routes(gateway: &mut Child) -> Result<String, String> {
    let Some(stderr) = gateway.stderr.take() else { return Err("its standard error is no pipe".to_owned()) };
    let (mut notes, mut said) = (BufReader::new(stderr), String::new());
    while !said.contains("Ctrl-C stops") {
        if !notes.read_line(&mut said).is_ok_and(|length| length > 0) {
            return Err(said);
        }
    }
    std::thread::spawn(move || std::io::copy(&mut notes, &mut std::io::sink()));
    Ok(said)
}
