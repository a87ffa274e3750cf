//! Interfaces given back to the kernel: which have programs, and how they lose them.
use super::detach_wait::wait_until_gone;
use super::pin_dir::PinDir;
use super::xdp_pin;
use crate::tun;
use aya::programs::{SchedClassifier, TcAttachType};
use std::fs;
use std::io;

const HOOKS: [(&str, TcAttachType); 2] = [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)];

/// The indices of the interfaces that have programs.
pub(super) fn attached(pins: &PinDir) -> Vec<u32> {
    let names = pins.names();
    let mut indices: Vec<u32> = names.iter().filter_map(|name| name.strip_suffix("-ingress")?.parse().ok()).collect();
    indices.sort_unstable();
    indices
}

/// Gives an interface back, and waits until the kernel has it: until then its programs would take packets that nobody gives back.
pub(super) fn detach(pins: &PinDir, ifindex: u32) -> io::Result<()> {
    xdp_pin::detach(pins, ifindex)?;
    remove_pins(pins, ifindex)?;
    HOOKS.into_iter().try_for_each(|(program, attach_type)| wait_until_detached(ifindex, program, attach_type))
}

/// Gives an interface back, while somebody still takes what its programs send.
pub(super) fn let_go(pins: &PinDir, ifindex: u32) -> io::Result<()> {
    xdp_pin::let_go(pins, ifindex)?;
    remove_pins(pins, ifindex)
}

fn remove_pins(pins: &PinDir, ifindex: u32) -> io::Result<()> {
    for (program, _) in HOOKS {
        let path = pins.path(&format!("{ifindex}-{program}"));
        if path.exists() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A program of the same name that stands there is another process's.
fn wait_until_detached(ifindex: u32, program: &str, attach_type: TcAttachType) -> io::Result<()> {
    wait_until_gone(|| {
        // The interface may be gone.
        let Ok(name) = tun::name_of(ifindex) else { return Ok(true) };
        // An error: one of them went while they were listed.
        Ok(SchedClassifier::query_tcx(&name, attach_type)
            .is_ok_and(|(_, programs)| !programs.iter().any(|found| found.name_as_str() == Some(program))))
    })
}
