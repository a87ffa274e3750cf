//! A collector behind TLS: IPFIX (RFC 7011, 10.4) and syslog (RFC 5425), where this end is the client, with a certificate of its own if it has one.
//!
//! Certificates and keys are read once, when the gateway starts: the thread of a log cannot read files.
use super::config::LogAccess;
use anyhow::{Context, Result, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the handshake waits for a packet.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How one collector is spoken to.
pub(super) struct TlsConnector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsConnector {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be used, and why; a name that is none.
    pub(super) fn new(access: &LogAccess, address: SocketAddr) -> Result<TlsConnector> {
        let name = match &access.server_name {
            Some(name) => ServerName::try_from(name.clone())
                .with_context(|| format!("server-name = \"{name}\" is neither a name nor an address"))?,
            None => ServerName::IpAddress(address.ip().into()),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authorities(access.servers.ca_file.as_deref())?);
        let config = match (&access.servers.certificate, &access.servers.key) {
            (Some(certificate), Some(key)) => {
                let chain = certificates("certificate", certificate)?;
                let secret = PrivateKeyDer::from_pem_file(key)
                    .with_context(|| format!("key {}: a private key in PEM is needed", key.display()))?;
                config
                    .with_client_auth_cert(chain, secret)
                    .with_context(|| format!("certificate {} with key {}", certificate.display(), key.display()))?
            }
            (None, None) => config.with_no_client_auth(),
            _ => bail!("a certificate needs its key, and a key its certificate: give both"),
        };
        Ok(TlsConnector { config: Arc::new(config), name })
    }

    /// The handshake over a connection that stands.
    ///
    /// # Errors
    /// The collector does not speak TLS, or one of both does not trust the other.
    pub(super) fn handshake(&self, mut stream: TcpStream) -> io::Result<TlsStream> {
        let write_timeout = stream.write_timeout()?;
        stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
        stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT))?;
        let mut session =
            ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream).map_err(|error| explain(error, &self.name))?;
        }
        stream.set_write_timeout(write_timeout)?;
        Ok(TlsStream(StreamOwned::new(session, stream)))
    }
}

/// Of an error of the handshake, what to do.
fn explain(error: io::Error, name: &ServerName<'_>) -> io::Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let remedy = match tls {
        Some(rustls::Error::InvalidCertificate(_)) => {
            format!("; its certificate must be for {} and of the authority in ca-file", name.to_str())
        }
        Some(rustls::Error::AlertReceived(_)) => "; does it ask for a certificate? give certificate and key".to_owned(),
        _ => return error,
    };
    io::Error::new(error.kind(), format!("TLS: {error}{remedy}"))
}

/// Those of a file, or the system's.
fn authorities(file: Option<&Path>) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match file {
        Some(path) => {
            for certificate in certificates("ca-file", path)? {
                store.add(certificate).with_context(|| format!("ca-file {}", path.display()))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                bail!(
                    "this system trusts no authority (package ca-certificates); name the collector's: ca-file = \"ca.pem\""
                );
            }
        }
    }
    Ok(store)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.with_context(|| format!("{key} {}: a certificate in PEM is needed", path.display()))?;
    if read.is_empty() {
        bail!("{key} {}: it has no certificate; PEM is needed", path.display());
    }
    Ok(read)
}

/// A connection to a collector; dropped, it is closed in order.
pub(super) struct TlsStream(StreamOwned<ClientConnection, TcpStream>);

impl TlsStream {
    /// Writes and sends all of it.
    ///
    /// # Errors
    /// A part of it may have been sent.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// Has the collector ended it? What else it says (session tickets, new keys) is taken in.
    pub(super) fn has_hung_up(&mut self) -> bool {
        if self.0.sock.set_nonblocking(true).is_err() {
            return true;
        }
        let ended = self.read_all();
        self.0.sock.set_nonblocking(false).is_err() || ended
    }

    /// Reads what there is; true at the end.
    fn read_all(&mut self) -> bool {
        let mut unused = [0; 256];
        loop {
            match self.0.conn.read_tls(&mut self.0.sock) {
                Ok(0) => return true,
                Ok(_) => match self.0.conn.process_new_packets() {
                    Ok(state) if !state.peer_has_closed() => {
                        // A collector says nothing; if this one does, it is not looked at.
                        while self.0.conn.reader().read(&mut unused).is_ok_and(|count| count > 0) {}
                    }
                    _ => return true,
                },
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.0.conn.send_close_notify();
        // Whoever has gone already does not hear it.
        let _ = self.0.sock.set_write_timeout(Some(CLOSE_TIMEOUT)).and_then(|()| self.0.flush());
    }
}
