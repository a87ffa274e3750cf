//! The program on a device that diverts its datagrams (`bpf/gateway.bpf.c`).
//!
//! Its life: loaded and attached by [`Diversion::attach`]; diverts nothing until a socket is [entered](Diversion::enter); taken off when dropped, or with the process.
use super::XskSocket;
use aya::Ebpf;
use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use std::os::fd::AsFd;

/// The program, as the compiler made it from the source beside it.
static BPF_OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/gateway.bpf.o");

/// Its name there.
pub(super) const PROGRAM_NAME: &str = "gateway";

/// Why a device's datagrams cannot be diverted.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct XdpError {
    what: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

pub(super) fn xdp_error<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &'static str,
) -> impl FnOnce(E) -> XdpError {
    move |error| XdpError { what, source: error.into() }
}

/// The program on one device.
#[derive(Debug)]
pub struct XdpRedirect {
    ebpf: Ebpf,
    driver_mode: bool,
}

impl XdpRedirect {
    /// Loads the program and puts it on the device with this index: into its driver, or, where the driver has no place for it, behind it.
    ///
    /// # Errors
    /// It may not be loaded (CAP_BPF, CAP_NET_ADMIN), or another program is on the device.
    pub fn attach(device: u32) -> Result<XdpRedirect, XdpError> {
        let mut program = Ebpf::load(BPF_OBJECT).map_err(xdp_error("the program cannot be loaded"))?;
        let xdp = program.program_mut(PROGRAM_NAME).ok_or("it is not in its object file");
        let xdp: &mut Xdp = xdp
            .map_err(xdp_error("the program cannot be found"))?
            .try_into()
            .map_err(xdp_error("the program is of another kind"))?;
        xdp.load().map_err(xdp_error("the kernel does not take the program"))?;
        let by_driver = xdp.attach_to_if_index(device, XdpMode::Driver).is_ok();
        if !by_driver {
            xdp.attach_to_if_index(device, XdpMode::Skb).map_err(xdp_error("it cannot be put on the device"))?;
        }
        Ok(XdpRedirect { ebpf: program, driver_mode: by_driver })
    }

    /// Does it run in the device's driver, before the kernel has made anything of a frame?
    pub fn is_driver_mode(&self) -> bool {
        self.driver_mode
    }

    pub(super) fn ebpf(&self) -> &Ebpf {
        &self.ebpf
    }

    pub(super) fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// From now on what arrives on queue `queue` goes to this socket.
    ///
    /// # Errors
    /// The socket is bound to another queue or device; there are at most 64 queues.
    pub fn add_socket(&mut self, queue: u32, socket: &XskSocket) -> Result<(), XdpError> {
        let map = self.ebpf.map_mut("sockets").ok_or("it is not in its object file");
        let mut sockets: XskMap<_> = map
            .map_err(xdp_error("the map of sockets cannot be found"))?
            .try_into()
            .map_err(xdp_error("the map of sockets is of another kind"))?;
        sockets.set(queue, socket.as_fd(), 0).map_err(xdp_error("the socket cannot be entered"))
    }
}
