//! The TUN driver: creates TUN interfaces; packets that the host routes into one are read here, packets that leave are written to another.
use super::driver::Driver;
use super::gso::{self, MAX_GSO_LEN};
use super::packet_batch::{PacketBatch, RxPacket, TxPacket};
use super::shared::SharedGateway;
use super::static_fib::InterfaceConfig;
use super::turns::TurnKind;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::poll;
use keepstate_linux::tun::Tun;
use keepstate_router::Egress;
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
    batch: PacketBatch,
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
        Ok(TunDriver { interfaces, buffer: vec![0; MAX_GSO_LEN], batch: PacketBatch::default() })
    }

    /// Reads the packets of one interface, a batch at most.
    fn read_interface(&mut self, at: usize) -> Result<()> {
        let Some(tun) = self.interfaces.get(at) else { return Ok(()) };
        let ifindex = u32::try_from(at + 1).unwrap_or(u32::MAX);
        while self.batch.len() < RX_BATCH {
            let read = tun.read(&mut self.buffer).context("a TUN interface is gone")?;
            let Some((length, offload)) = read else { break };
            let Some(packet) = self.buffer.get_mut(..length) else { continue };
            let gso = offload.gso_size.and_then(|size| GsoPacket::parse(packet, size));
            let gso = gso.filter(|_| offload.needs_csum.is_some());
            if let (None, Some((from, at))) = (&gso, offload.needs_csum) {
                rewrite::finish_partial_checksum(packet, from.into(), at.into());
            }
            let bytes = self.batch.buffers.take_packet(&mut self.buffer, length);
            self.batch.push_owned(RxPacket { bytes, gso, ifindex, id: 0 });
        }
        Ok(())
    }

    /// Writes the packets that the router gave out; a GSO packet leaves as one.
    fn write_outputs(&mut self) -> Result<()> {
        let mut outputs = self.batch.take_outputs();
        for TxPacket { egress, gso, .. } in outputs.drain(..) {
            let bytes = match egress {
                Egress::Forward { oif: index, packet: mut bytes, .. } => {
                    if let Some(tun) = (index as usize).checked_sub(1).and_then(|at| self.interfaces.get(at)) {
                        let offload = gso::tx_offload(gso.as_ref(), &mut bytes);
                        tun.write(&bytes, offload).context("a TUN interface is gone")?;
                    }
                    bytes
                }
                Egress::LocalDeliver(bytes)
                | Egress::LetOut(bytes)
                | Egress::ToProxy { packet: bytes, .. }
                | Egress::Loop { packet: bytes, .. } => bytes,
            };
            self.batch.buffers.recycle(bytes);
        }
        self.batch.return_outputs(outputs);
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
        let mut count = 0;
        for at in 0..self.interfaces.len() {
            self.read_interface(at)?;
            if self.batch.is_empty() {
                continue;
            }
            count += self.batch.len();
            self.batch.route(&mut gateway.lock(TurnKind::Packets).router, now);
            self.write_outputs()?;
        }
        Ok(count)
    }
}
