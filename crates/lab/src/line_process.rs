//! A process of this program in a namespace, that talks in lines over its standard input and output. It ends when this is dropped.
use crate::process::current_exe;
use anyhow::{Context, Result};
use keepstate_linux::netns::AnonNetns;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct LineProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl LineProcess {
    /// `keepstate mqtt` with these arguments.
    pub(super) fn spawn_mqtt(netns: &AnonNetns, args: &[String]) -> Result<LineProcess> {
        let mut command = netns.command(current_exe()?);
        let piped = command.arg("mqtt").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().context("cannot start keepstate mqtt")?;
        let (stdin, out) = (child.stdin.take(), child.stdout.take());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.into_iter().flat_map(|out| BufReader::new(out).lines().map_while(Result::ok)) {
                // The receiver may be gone.
                let _ = sender.send(line);
            }
        });
        Ok(LineProcess { child, stdin, lines })
    }

    /// Gives it a line.
    pub(super) fn send_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("a process has no standard input")?;
        match writeln!(stdin, "{line}").and_then(|()| stdin.flush()) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.exit_error()),
        }
    }

    /// Its next line.
    pub(super) fn recv_line(&mut self, timeout: Duration) -> Result<String> {
        self.lines.recv_timeout(timeout).map_err(|_| self.exit_error())
    }

    /// Its next line, if there is one.
    pub(super) fn try_recv_line(&mut self) -> Result<Option<String>> {
        match self.lines.try_recv() {
            Ok(line) => Ok(Some(line)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.exit_error()),
        }
    }

    /// The error of a process that has ended or does not answer: what it wrote to standard error.
    fn exit_error(&mut self) -> anyhow::Error {
        let mut text = String::new();
        // So that reading its standard error ends.
        let _ = self.child.kill();
        if let Some(mut err) = self.child.stderr.take() {
            // What was read before an error still counts.
            let _ = err.read_to_string(&mut text);
        }
        anyhow::anyhow!("keepstate mqtt has ended or does not answer: {}", text.trim_end())
    }
}

impl Drop for LineProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
