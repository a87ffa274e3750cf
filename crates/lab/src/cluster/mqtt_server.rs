//! The server of the MQTT sessions, as a process of its own: the limit of open files of one process bounds one end of a session, not both.
use crate::process::current_exe;
use anyhow::{Context, Result, ensure};
use keepstate_linux::netns::AnonNetns;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// It ends when this is dropped.
pub(super) struct MqttServer {
    child: Child,
    /// Open as long as it runs: it prints a line for each new address.
    output: BufReader<ChildStdout>,
}

impl MqttServer {
    /// `keepstate mqtt accept` in a namespace; it listens when this returns.
    ///
    /// # Errors
    /// It cannot be started, or does not listen.
    pub(super) fn start(netns: &AnonNetns, addresses: &[SocketAddr]) -> Result<MqttServer> {
        let mut command: Command = netns.command(current_exe()?);
        command.args(["mqtt", "accept"]).args(addresses.iter().map(ToString::to_string));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("the MQTT server cannot be started")?;
        let output = child.stdout.take().context("the MQTT server has no output")?;
        let mut server = MqttServer { child, output: BufReader::new(output) };
        let mut line = String::new();
        server.output.read_line(&mut line).context("the MQTT server does not listen")?;
        ensure!(line.trim_end() == "listening", "the MQTT server does not listen: it says {line:?}");
        Ok(server)
    }
}

impl Drop for MqttServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
