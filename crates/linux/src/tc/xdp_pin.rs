//! Pins of the program at XDP.
use super::detach_wait::wait_until_gone;
use super::pin_dir::PinDir;
use crate::rtnetlink;
use std::fs;
use std::io;

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
    if !let_go(pins, ifindex)? {
        return Ok(());
    }
    wait_until_gone(|| {
        let links = rtnetlink::dump_links().map_err(io::Error::other)?;
        Ok(!links.iter().any(|link| link.index == ifindex && link.has_xdp))
    })
}

/// The kernel removes the program from an interface soon. False: it has none.
pub(super) fn let_go(pins: &PinDir, ifindex: u32) -> io::Result<bool> {
    let path = pins.path(&pin_name(ifindex));
    let is_there = path.exists();
    if is_there {
        fs::remove_file(path)?;
    }
    Ok(is_there)
}
