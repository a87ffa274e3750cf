//! The carrier and the pins opened, with what to do if they cannot be; everything given back to the kernel.
use anyhow::{Context, Result, bail};
use keepstate_linux::tc::{CARRIER_NAME, Carrier, PinDir, TcHooks, remove_dead_pins};
use std::io::ErrorKind;

pub(super) fn open_carrier() -> Result<Carrier> {
    Carrier::open().map_err(|error| match error.kind() {
        ErrorKind::ResourceBusy => {
            anyhow::anyhow!(
                "another gateway runs in this network namespace (it has {CARRIER_NAME} open); stop it first"
            )
        }
        _ => anyhow::Error::new(error).context(format!(
            "cannot create the TAP interface {CARRIER_NAME}: needs /dev/net/tun and root (CAP_NET_ADMIN)"
        )),
    })
}

pub(super) fn open_pins() -> Result<PinDir> {
    let pins = PinDir::open().context("cannot use the BPF file system at /sys/fs/bpf, which keeps the interfaces closed when the gateway dies: needs root")?;
    let dead = remove_dead_pins(&pins);
    if dead > 0 {
        tracing::info!("removed what gateways have left of {dead} network namespaces that are gone");
    }
    Ok(pins)
}

/// Gives all interfaces that a gateway has left closed back to the kernel. Returns how many they were.
///
/// # Errors
/// A gateway runs; missing capabilities.
pub fn detach() -> Result<usize> {
    let mut carrier = open_carrier()?;
    let interfaces = TcHooks::detach_all(&open_pins()?).context("detaching from the interfaces")?;
    carrier.set_persistent(false).with_context(|| format!("removing {CARRIER_NAME}"))?;
    if interfaces.is_empty() {
        bail!("no gateway has left interfaces closed in this network namespace");
    }
    Ok(interfaces.len())
}
