//! The XDP program that redirects an interface's packets to sockets (`bpf/gateway.bpf.c`).
//!
//! Its life: loaded and attached by [`XdpRedirect::attach`]; redirects nothing until a [socket is added](XdpRedirect::add_socket); detached when dropped, or with the process.
use super::socket::XskSocket;
use aya::Ebpf;
use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use std::os::fd::AsFd;

/// The compiled program; `scripts/check-bpf` compares it with its source.
static BPF_OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/gateway.bpf.o");

/// Its name in the object.
pub(super) const PROGRAM_NAME: &str = "gateway";

/// Why packets of an interface cannot be redirected.
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

/// The program on one interface.
#[derive(Debug)]
pub struct XdpRedirect {
    ebpf: Ebpf,
    driver_mode: bool,
}

impl XdpRedirect {
    /// Loads the program and attaches it to the interface with this index: native XDP if the driver has it, else generic XDP.
    ///
    /// # Errors
    /// Permission denied (CAP_BPF, CAP_NET_ADMIN), or the interface has another XDP program.
    pub fn attach(ifindex: u32) -> Result<XdpRedirect, XdpError> {
        let mut program = Ebpf::load(BPF_OBJECT).map_err(xdp_error("cannot load the BPF object"))?;
        let xdp = program.program_mut(PROGRAM_NAME).ok_or("not in the object file");
        let xdp: &mut Xdp = xdp
            .map_err(xdp_error("BPF program not found"))?
            .try_into()
            .map_err(xdp_error("BPF program of the wrong type"))?;
        xdp.load().map_err(xdp_error("cannot load the BPF program"))?;
        let driver_mode = xdp.attach_to_if_index(ifindex, XdpMode::Driver).is_ok();
        if !driver_mode {
            xdp.attach_to_if_index(ifindex, XdpMode::Skb).map_err(xdp_error("cannot attach the XDP program"))?;
        }
        Ok(XdpRedirect { ebpf: program, driver_mode })
    }

    /// Is it native XDP, run by the driver before a socket buffer is allocated?
    pub fn is_driver_mode(&self) -> bool {
        self.driver_mode
    }

    pub(super) fn ebpf(&self) -> &Ebpf {
        &self.ebpf
    }

    pub(super) fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Sends the packets of queue `queue` to this socket from now on.
    ///
    /// # Errors
    /// The socket is bound to another queue or interface, or `queue` is not below 64.
    pub fn add_socket(&mut self, queue: u32, socket: &XskSocket) -> Result<(), XdpError> {
        let map = self.ebpf.map_mut("sockets").ok_or("not in the object file");
        let mut sockets: XskMap<_> = map
            .map_err(xdp_error("BPF map of sockets not found"))?
            .try_into()
            .map_err(xdp_error("BPF map of sockets of the wrong type"))?;
        sockets.set(queue, socket.as_fd(), 0).map_err(xdp_error("cannot add the socket to the BPF map"))
    }
}
