//! The TUN driver: creates TUN interfaces; packets that the host routes into one are read here, packets that leave are written to another.
use super::driver::Driver;
use super::gso::{self, MAX_GSO_LEN};
use super::shared::SharedGateway;
use super::static_fib::InterfaceConfig;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::poll;
use keepstate_linux::tun::Tun;
use keepstate_router::{Egress, Router};
use keepstate_wire::gso::GsoPacket;
use keepstate_wire::rewrite;
use std::os::fd::AsFd;

/// Packets read from one interface before the next has its turn.
const RX_BATCH: usize = 64;

/// The interfaces, numbered from 1 on as in the FIB; they are removed when this is dropped.
pub(super) struct TunDriver {
    interfaces: Vec<Tun>,
    /// Room for the longest packet.
    buffer: Vec<u8>,
    /// Unused buffers of that size.
    spare_buffers: Vec<Vec<u8>>,
}

impl TunDriver {
    /// Creates the interfaces.
    ///
    /// # Errors
    /// Missing capabilities, or a name is taken.
    pub(super) fn new(configs: &[InterfaceConfig]) -> Result<TunDriver> {
        let mut interfaces = Vec::new();
        for InterfaceConfig { name, .. } in configs {
            interfaces.push(Tun::create_with_offloads(name).with_context(|| {
                format!("cannot create TUN interface {name}: needs /dev/net/tun, root (CAP_NET_ADMIN), and a name that is not taken")
            })?);
        }
        Ok(TunDriver { interfaces, buffer: vec![0; MAX_GSO_LEN], spare_buffers: Vec::new() })
    }

    /// The packets of one interface, a batch at most.
    fn process_interface(&mut self, at: usize, router: &mut Router, now: Instant) -> Result<usize> {
        for count in 0..RX_BATCH {
            let Some(tun) = self.interfaces.get_mut(at) else { return Ok(count) };
            let read = tun.read(&mut self.buffer).context("a TUN interface is gone")?;
            let Some((length, offload)) = read else { return Ok(count) };
            let index = u32::try_from(at + 1).unwrap_or(u32::MAX);
            let Some(packet) = self.buffer.get_mut(..length) else { continue };
            let gso = offload.gso_size.and_then(|size| GsoPacket::parse(packet, size));
            // Drops are counted and answered by the router.
            match (&gso, offload.needs_csum) {
                (Some(gso), Some(_)) => {
                    self.buffer.truncate(length);
                    gso::route_gso(router, gso, &mut self.buffer, index, now);
                    self.restore_buffer();
                }
                (_, needs_csum) => {
                    if let Some((from, at)) = needs_csum {
                        rewrite::finish_partial_checksum(packet, from.into(), at.into());
                    }
                    let _ = router.handle(packet, index, now);
                }
            }
            self.send(gso.as_ref(), router)?;
        }
        Ok(RX_BATCH)
    }

    /// Makes room for the longest packet again.
    fn restore_buffer(&mut self) {
        if self.buffer.capacity() < MAX_GSO_LEN {
            self.buffer = self.spare_buffers.pop().unwrap_or_default();
        }
        self.buffer.resize(MAX_GSO_LEN, 0);
    }

    /// Sends the packets that the router gave out; a GSO packet leaves as one.
    fn send(&mut self, gso: Option<&GsoPacket>, router: &mut Router) -> Result<()> {
        while let Some(egress) = router.poll_output() {
            let Egress::Forward { oif: index, packet: mut bytes, .. } = egress else { continue };
            if let Some(tun) = (index as usize).checked_sub(1).and_then(|at| self.interfaces.get_mut(at)) {
                let offload = gso::tx_offload(gso, &mut bytes);
                tun.write(&bytes, offload).context("a TUN interface is gone")?;
            }
            if bytes.capacity() < MAX_GSO_LEN {
                router.recycle_buffer(bytes);
            } else if self.spare_buffers.len() < RX_BATCH {
                self.spare_buffers.push(bytes);
            }
        }
        Ok(())
    }
}

impl Driver for TunDriver {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        poll::poll_readable(self.interfaces.iter().map(AsFd::as_fd), milliseconds)
            .map(drop)
            .context("waiting for packets")
    }

    fn process_batch(&mut self, gateway: &SharedGateway, now: Instant) -> Result<usize> {
        let router = &mut gateway.lock().router;
        let mut count = 0;
        for at in 0..self.interfaces.len() {
            count += self.process_interface(at, router, now)?;
        }
        Ok(count)
    }
}
