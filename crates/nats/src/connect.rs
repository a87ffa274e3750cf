//! How NATS is reached: servers, credentials, TLS. The files are read and checked before anything is connected; passwords stand in files, never on a command line.
use crate::error::NatsError;
use crate::leaders::local_first;
use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerInfo};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The oldest server that is used: its ordered reading needs it.
const LEAST_SERVER: (u64, u64) = (2, 9);
/// The least message that a server must take: a frame of some records. A list of a fleet's connections may be longer.
const LEAST_PAYLOAD: usize = 16 << 10;
/// A server that does not answer two of these is left for another one.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two attempts to come back.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// Messages that may wait in one subscription.
const SUBSCRIPTION_CAPACITY: usize = 4_096;
/// No credentials file is longer.
const MAX_FILE_LEN: u64 = 64 * 1024;

/// Where NATS is and who we are there.
#[derive(Clone, Default)]
pub struct NatsOptions {
    /// Addresses: `nats://HOST:PORT`, or `tls://HOST:PORT`; one that works is used.
    pub servers: Vec<String>,
    /// A credentials file (JWT and seed), as nsc writes it.
    pub credentials: Option<PathBuf>,
    /// A file with the user on its first line and the password on its second.
    pub user_file: Option<PathBuf>,
    /// Certificates of the authority that signs the servers' ones (PEM); TLS is then required. Without it, a `tls://` address is checked by the system's.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate (PEM), for servers that ask for one.
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// What the server's list of connections shows.
    pub client_name: String,
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl NatsOptions {
    /// Reads the files and checks the addresses.
    ///
    /// # Errors
    /// What cannot be used, and why.
    pub fn check(&self) -> Result<(), NatsError> {
        self.connect_options().map(drop)?;
        self.addresses().map(drop)
    }

    fn addresses(&self) -> Result<Vec<ServerAddr>, NatsError> {
        if self.servers.is_empty() {
            return Err(NatsError::Option("no NATS server is given: nats://HOST:PORT".into()));
        }
        self.servers.iter().map(|server| address(server)).collect()
    }

    fn connect_options(&self) -> Result<ConnectOptions, NatsError> {
        let mut options = ConnectOptions::new()
            .name(&self.client_name)
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_TIMEOUT)
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .reconnect_delay_callback(|attempts| {
                let delay = Duration::from_millis(50).saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX));
                delay.min(MAX_RECONNECT_DELAY)
            });
        if let Some(path) = &self.credentials {
            const WHAT: &str = "credentials file";
            let text = read(WHAT, path)?;
            options = options.credentials(&text).map_err(|error| {
                NatsError::file(
                    WHAT,
                    path,
                    format!("{error}: it must have a NATS USER JWT and a USER NKEY SEED, as nsc writes it"),
                )
            })?;
        }
        if let Some(path) = &self.user_file {
            const WHAT: &str = "user file";
            let text = read(WHAT, path)?;
            let mut lines = text.lines().map(str::trim);
            let (user, password) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
            if user.is_empty() || password.is_empty() {
                return Err(NatsError::file(
                    WHAT,
                    path,
                    "the user's name must be on its first line, the password on its second",
                ));
            }
            options = options.user_and_password(user.to_owned(), password.to_owned());
        }
        if let Some(path) = &self.ca_file {
            check_pem("CA file", path, "CERTIFICATE")?;
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                check_pem("certificate", certificate, "CERTIFICATE")?;
                check_pem("key", key, "PRIVATE KEY")?;
                options = options.add_client_certificate(certificate.clone(), key.clone());
            }
            (None, None) => {}
            _ => {
                return Err(NatsError::Option(
                    "a client certificate needs its key, and a key its certificate: give both files".into(),
                ));
            }
        }
        Ok(options)
    }

    /// Connects once; afterwards the client comes back by itself. `event` is told of each change.
    pub(crate) async fn connect(&self, event: impl Fn(Event) + Send + Sync + 'static) -> Result<Client, NatsError> {
        let options = self.connect_options()?.event_callback(move |happened| {
            event(happened);
            std::future::ready(())
        });
        let mut addresses = self.addresses()?;
        // One on this machine is nearest; else any will do.
        let options = if local_first(&mut addresses) { options.retain_servers_order() } else { options };
        let client = options.connect(addresses).await.map_err(|error| NatsError::connect(&self.servers, &error))?;
        let ServerInfo { version, max_payload, .. } = client.server_info();
        if max_payload < LEAST_PAYLOAD {
            return Err(NatsError::Connect {
                servers: self.servers.join(", "),
                reason: format!("the server takes messages of {max_payload} bytes; keepstate needs {LEAST_PAYLOAD}"),
                remedy: "Raise max_payload in the server's configuration (1MB is usual)",
            });
        }
        if !is_new_enough(&version) {
            let (major, minor) = LEAST_SERVER;
            return Err(NatsError::Connect {
                servers: self.servers.join(", "),
                reason: format!("the server's version is {version}; keepstate needs {major}.{minor} or later"),
                remedy: "Debian 12's package nats-server is new enough",
            });
        }
        Ok(client)
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= LEAST_SERVER
}

fn address(server: &str) -> Result<ServerAddr, NatsError> {
    let address = server.parse::<ServerAddr>();
    let address = address.map_err(|error| {
        NatsError::Option(format!("NATS server {server}: {error}. Write nats://HOST:PORT or tls://HOST:PORT"))
    })?;
    if address.host().is_empty() || !matches!(address.scheme(), "nats" | "tls") {
        return Err(NatsError::Option(format!("NATS server \"{server}\": write nats://HOST:PORT or tls://HOST:PORT")));
    }
    if address.has_user_pass() {
        return Err(NatsError::Option(
            "a NATS server's address must not have a password: every user of this machine can read it. Write user and password into a file".into(),
        ));
    }
    Ok(address)
}

fn read(what: &'static str, path: &Path) -> Result<String, NatsError> {
    let metadata = std::fs::metadata(path).map_err(|error| NatsError::file(what, path, error))?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_LEN {
        return Err(NatsError::file(what, path, "it is no plain file, or longer than 64 KiB"));
    }
    std::fs::read_to_string(path).map_err(|error| NatsError::file(what, path, error))
}

fn check_pem(what: &'static str, path: &Path, kind: &str) -> Result<(), NatsError> {
    // Files of authorities may be long: only their beginning is looked for.
    let text = std::fs::read_to_string(path).map_err(|error| NatsError::file(what, path, error))?;
    if text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{kind}-----"))) {
        return Ok(());
    }
    Err(NatsError::file(what, path, format!("it has no BEGIN {kind} line: PEM is needed")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    fn with_file(text: &str, options: impl Fn(PathBuf) -> NatsOptions) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let options = NatsOptions { servers: vec!["nats://127.0.0.1".into()], ..options(file.path().to_owned()) };
        let error = options.check().err().map(|error| error.to_string()).unwrap_or_default();
        error.replace(&file.path().display().to_string(), "FILE")
    }

    #[test]
    fn each_file_that_cannot_be_used_is_said() {
        let user = |path| NatsOptions { user_file: Some(path), ..NatsOptions::default() };
        assert_eq!(with_file("joe\nsecret\n", user), "");
        assert!(with_file("joe\n", user).starts_with("user file FILE: the user's name must"));
        let credentials = |path| NatsOptions { credentials: Some(path), ..NatsOptions::default() };
        assert!(with_file("nothing", credentials).contains("as nsc writes it"));
        let ca = |path| NatsOptions { ca_file: Some(path), ..NatsOptions::default() };
        assert_eq!(with_file("-----BEGIN CERTIFICATE-----\n", ca), "");
        assert!(with_file("DER", ca).contains("PEM is needed"));
        let lone = |path| NatsOptions { key: Some(path), ..NatsOptions::default() };
        assert!(with_file("-----BEGIN PRIVATE KEY-----\n", lone).contains("give both"));
    }

    #[test]
    fn addresses_are_checked() {
        let check = |server: &str| NatsOptions { servers: vec![server.into()], ..NatsOptions::default() }.check();
        assert!(
            check("nats://[::1]:4222").is_ok() && check("tls://nats.example.net").is_ok() && check("10.0.0.1").is_ok()
        );
        assert!(check("nats://joe:secret@host").is_err_and(|error| error.to_string().contains("file")));
        assert!(check("http://host").is_err() && check("").is_err());
        assert!(NatsOptions::default().check().is_err());
    }

    #[test]
    fn versions_compare_as_numbers() {
        for (version, expected) in
            [("2.9.10", true), ("2.10.0", true), ("3.0.0-beta", true), ("2.8.4", false), ("", false)]
        {
            assert_eq!(is_new_enough(version), expected, "{version}");
        }
    }
}
