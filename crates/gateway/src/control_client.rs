//! The other side of the control socket: whoever asks a gateway.
use super::control_server::{ControlReply, ControlRequest, PROTOCOL_VERSION};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The longest first line of an answer.
const MAX_REPLY_HEADER: usize = 1 << 20;

/// Asks in words; the text of the answer is still to be read from the stream.
///
/// # Errors
/// Nobody listens, or what was asked is refused.
pub fn send_command(path: &Path, words: Vec<String>) -> Result<UnixStream> {
    connect(path, &ControlRequest { v: PROTOCOL_VERSION, words, speak: None })
}

/// Asks in words, and reads all of the answer's text.
///
/// # Errors
/// Nobody listens, what was asked is refused, or the gateway ends in the middle.
pub fn text(path: &Path, words: &[&str]) -> Result<String> {
    let mut text = String::new();
    let mut answer = send_command(path, words.iter().map(|word| (*word).to_owned()).collect())?;
    answer.read_to_string(&mut text).context("the gateway hung up")?;
    Ok(text)
}

/// Begins to speak in the kernel's messages.
///
/// # Errors
/// Nobody listens, or does not let us in.
pub fn open_ctnetlink(path: &Path) -> Result<UnixStream> {
    connect(
        path,
        &ControlRequest {
            v: PROTOCOL_VERSION,
            words: Vec::new(),
            speak: Some(super::control_server::CTNETLINK.to_owned()),
        },
    )
}

fn connect(path: &Path, request: &ControlRequest) -> Result<UnixStream> {
    let shown = path.display();
    let mut stream = UnixStream::connect(path).with_context(|| match path.exists() {
        true => format!("{shown}: it may not be opened, or the gateway has ended: try as root, or start keepstate gateway --control {shown}"),
        false => format!("{shown}: no gateway listens there. keepstate gateway --control {shown} does"),
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).context("the gateway hung up: perhaps too many visitors are there; try again")?;
    let head = read_line(&mut stream)
        .context("the gateway hung up: perhaps too many visitors are there; try again, or look at its log")?;
    let head: ControlReply =
        serde_json::from_slice(&head).with_context(|| format!("{shown}: this is no gateway's answer"))?;
    if head.v != PROTOCOL_VERSION {
        bail!(
            "{shown}: the gateway speaks version {} of the control protocol, this program version {PROTOCOL_VERSION}: use the keepstate that the gateway was started with",
            head.v
        );
    }
    if let Some(error) = head.error {
        bail!("{}", error.trim_end());
    }
    Ok(stream)
}

/// The first line, and not an octet more: what follows is another's to read.
fn read_line(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut octet = [0];
    loop {
        stream.read_exact(&mut octet)?;
        match octet {
            [b'\n'] => return Ok(line),
            [octet] if line.len() < MAX_REPLY_HEADER => line.push(octet),
            _ => bail!("its first line is too long"),
        }
    }
}
