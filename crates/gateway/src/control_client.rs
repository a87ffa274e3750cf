//! The client side of the control socket.
use super::control_protocol::{CTNETLINK, ControlRequest, DEFAULT_SOCKET, PROTOCOL_VERSION, ReplyLine, RequestLine};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The longest first line of an answer, in bytes.
const MAX_REPLY_LINE: usize = 1 << 20;

/// Sends a request; the answer's text is then read from the stream.
///
/// # Errors
/// No gateway listens, or the request is refused.
pub fn send_request(path: &Path, request: ControlRequest) -> Result<UnixStream> {
    connect(path, &RequestLine { v: PROTOCOL_VERSION, request: Some(request), speak: None })
}

/// As [`send_request`], with bytes that follow the request's line.
///
/// # Errors
/// No gateway listens, or the request is refused.
pub fn send_request_with(path: &Path, request: ControlRequest, payload: &[u8]) -> Result<UnixStream> {
    connect_with(path, &RequestLine { v: PROTOCOL_VERSION, request: Some(request), speak: None }, payload)
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// No gateway listens, the request is refused, or the gateway closes the connection early.
pub fn fetch(path: &Path, request: ControlRequest) -> Result<String> {
    let mut text = String::new();
    send_request(path, request)?.read_to_string(&mut text).context("the gateway closed the connection")?;
    Ok(text)
}

/// Opens a connection for ctnetlink messages.
///
/// # Errors
/// No gateway listens, or access is denied.
pub fn open_ctnetlink(path: &Path) -> Result<UnixStream> {
    connect(path, &RequestLine { v: PROTOCOL_VERSION, request: None, speak: Some(CTNETLINK.to_owned()) })
}

fn connect(path: &Path, request: &RequestLine) -> Result<UnixStream> {
    connect_with(path, request, &[])
}

fn connect_with(path: &Path, request: &RequestLine, payload: &[u8]) -> Result<UnixStream> {
    let shown = path.display();
    let mut stream = UnixStream::connect(path).with_context(|| match path.exists() {
        true => format!("{shown}: cannot connect. Try as root; if the gateway has ended, start it again: keepstate gateway --control {shown}"),
        false => format!(
            "{shown}: no gateway listens there. One with --interface listens at {DEFAULT_SOCKET}, unless its --control says otherwise; any other needs --control PATH. Name the path that yours has, or start one: keepstate gateway --control {shown}"
        ),
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    const CLOSED: &str =
        "the gateway closed the connection (too many control connections?); retry later, or see its log";
    line.extend(payload);
    // A refusal closes the connection before all was read; its reason can be read nevertheless.
    let sent = stream.write_all(&line);
    if payload.is_empty() {
        sent.context(CLOSED)?;
    }
    let reply = read_line(&mut stream).context(CLOSED)?;
    let reply: ReplyLine =
        serde_json::from_slice(&reply).with_context(|| format!("{shown}: the answer is not a gateway's"))?;
    if reply.v != PROTOCOL_VERSION {
        bail!(
            "{shown}: the gateway speaks version {} of the control protocol, this program version {PROTOCOL_VERSION}: use the keepstate version that the gateway was started with",
            reply.v
        );
    }
    if let Some(error) = reply.error {
        bail!("{}", error.trim_end());
    }
    reply.notes.iter().for_each(|note| tracing::warn!("{note}"));
    Ok(stream)
}

/// The first line, and not a byte more: the caller reads the rest.
fn read_line(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        match byte {
            [b'\n'] => return Ok(line),
            [byte] if line.len() < MAX_REPLY_LINE => line.push(byte),
            _ => bail!("its first line is too long"),
        }
    }
}
