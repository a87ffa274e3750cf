//! The driver between TUN devices, which it makes: what the machine routes into one is read here, what leaves is written to another.
use super::gso::{self, MAX_GSO_LEN};
use super::interface_args::InterfaceArg;
use super::main_loop::Driver;
use super::shared::SharedGateway;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::poll;
use keepstate_linux::tun::Tun;
use keepstate_router::{Egress, Router};
use keepstate_wire::gso::GsoPacket;
use keepstate_wire::rewrite;
use std::os::fd::AsFd;

/// Datagrams taken from one device before the next has its turn.
const RX_BATCH: usize = 64;

/// The devices, numbered from 1 on as the map has them; they are gone when this is dropped.
pub(super) struct TunDriver {
    devices: Vec<Tun>,
    /// Room for the longest datagram.
    buffer: Vec<u8>,
    /// Others as large, not in use.
    spare_buffers: Vec<Vec<u8>>,
}

impl TunDriver {
    /// Makes the devices.
    ///
    /// # Errors
    /// One may not be made, or its name is taken.
    pub(super) fn new(names: &[InterfaceArg]) -> Result<TunDriver> {
        let mut devices = Vec::new();
        for device in names {
            let made = Tun::create_with_offloads(&device.name).with_context(|| {
                format!(
                    "TUN device {}: making it needs /dev/net/tun and root (CAP_NET_ADMIN), and a name that is not taken",
                    device.name
                )
            })?;
            devices.push(made);
        }
        Ok(TunDriver { devices, buffer: vec![0; MAX_GSO_LEN], spare_buffers: Vec::new() })
    }

    /// What waits in one device, as far as its turn goes.
    fn process_interface(&mut self, at: usize, router: &mut Router, now: Instant) -> Result<usize> {
        for count in 0..RX_BATCH {
            let Some(tun) = self.devices.get_mut(at) else { return Ok(count) };
            let read = tun.read(&mut self.buffer).context("a device is gone")?;
            let Some((length, offload)) = read else { return Ok(count) };
            let index = u32::try_from(at + 1).unwrap_or(u32::MAX);
            let Some(datagram) = self.buffer.get_mut(..length) else { continue };
            let train = offload.gso_size.and_then(|size| GsoPacket::parse(datagram, size));
            // A loss is counted, and told to whom it must be.
            match (&train, offload.needs_csum) {
                (Some(train), Some(_)) => {
                    self.buffer.truncate(length);
                    gso::route_gso(router, train, &mut self.buffer, index, now);
                    self.restore_buffer();
                }
                (_, open) => {
                    if let Some((from, at)) = open {
                        rewrite::finish_partial_checksum(datagram, from.into(), at.into());
                    }
                    let _ = router.handle(datagram, index, now);
                }
            }
            self.send(train.as_ref(), router)?;
        }
        Ok(RX_BATCH)
    }

    /// There is room for the longest datagram again.
    fn restore_buffer(&mut self) {
        if self.buffer.capacity() < MAX_GSO_LEN {
            self.buffer = self.spare_buffers.pop().unwrap_or_default();
        }
        self.buffer.resize(MAX_GSO_LEN, 0);
    }

    /// Sends what has left, cut again as it came.
    fn send(&mut self, train: Option<&GsoPacket>, router: &mut Router) -> Result<()> {
        while let Some(left) = router.poll_output() {
            let Egress::Forward { oif: index, packet: mut bytes, .. } = left else { continue };
            if let Some(tun) = (index as usize).checked_sub(1).and_then(|at| self.devices.get_mut(at)) {
                let offload = gso::tx_offload(train, &mut bytes);
                tun.write(&bytes, offload).context("a device is gone")?;
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
        poll::poll_readable(self.devices.iter().map(AsFd::as_fd), milliseconds)
            .map(drop)
            .context("waiting for datagrams")
    }

    fn process_batch(&mut self, core: &SharedGateway, now: Instant) -> Result<usize> {
        let router = &mut core.lock().router;
        let mut count = 0;
        for at in 0..self.devices.len() {
            count += self.process_interface(at, router, now)?;
        }
        Ok(count)
    }
}
