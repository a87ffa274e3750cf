//! Pins of the program at XDP.
use super::pin_dir::PinDir;
use crate::rtnetlink;
use std::fs;
use std::io;
use std::time::Duration;

/// Behind the index in the name of its pin.
const PIN_SUFFIX: &str = "-xdp";

/// The name of the pin of the program at this interface.
pub(super) fn pin_name(ifindex: u32) -> String {
    format!("{ifindex}{PIN_SUFFIX}")
}

/// The indices of the interfaces that have the program.
pub(super) fn attached(pins: &PinDir) -> Vec<u32> {
    pins.names().iter().filter_map(|name| name.strip_suffix(PIN_SUFFIX)?.parse().ok()).collect()
}

/// Removes the program from an interface, if it is there, and waits until the kernel has done it: until then packets would still be sent on.
pub(super) fn detach(pins: &PinDir, ifindex: u32) -> io::Result<()> {
    let path = pins.path(&pin_name(ifindex));
    if !path.exists() {
        return Ok(());
    }
    fs::remove_file(path)?;
    for _ in 0..DETACH_CHECKS {
        let links = rtnetlink::dump_links().map_err(io::Error::other)?;
        if !links.iter().any(|link| link.index == ifindex && link.has_xdp) {
            return Ok(());
        }
        std::thread::sleep(DETACH_CHECK_INTERVAL);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel has not detached it within a second"))
}

/// How often it is looked whether the program is detached: for a second in all.
const DETACH_CHECKS: u32 = 200;
const DETACH_CHECK_INTERVAL: Duration = Duration::from_millis(5);
