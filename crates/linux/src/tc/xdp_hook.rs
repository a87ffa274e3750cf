//! The program at XDP of governed interfaces, which sends packets of known flows on before the kernel has made a buffer (`bpf/xdp.h`). It goes by the same table as those at tc's hooks, and all that it does not
//! send on goes to them.
use super::hooks::{TcHooks, array};
use super::hop_table::{HOPS_LEN, HopTable};
use super::tc_error::{TcError, tc_error};
use super::xdp_devices::XdpDevices;
use super::xdp_pin::{attached, detach, pin_name};
use crate::mapped_memory::MappedMemory;
use aya::Ebpf;
use aya::maps::xdp::DevMap;
use aya::maps::{Array, MapError};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{Xdp, XdpMode};
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

/// `struct station` of the programs, and how many there are.
type Station = [u8; 12];
const STATIONS: u32 = 1024;

impl TcHooks {
    /// Loads the program, and puts it in the place of those that an earlier process has left: what that one knew of neighbours is old. They send nothing on before [`TcHooks::attach_xdp`].
    pub(super) fn load_xdp(&mut self) -> Result<(), TcError> {
        xdp(&mut self.ebpf)?.load().map_err(tc_error("cannot load the BPF program xdp"))?;
        for ifindex in attached(&self.pins) {
            let path = self.pins.path(&pin_name(ifindex));
            if replace(&mut self.ebpf, &path).is_err() {
                // Its interface is gone.
                fs::remove_file(&path).map_err(tc_error(format!("cannot remove {}", path.display())))?;
            }
        }
        Ok(())
    }

    /// Sends packets of known flows that come in by an interface, to this MAC address, on at XDP.
    ///
    /// # Errors
    /// Its driver has no native XDP, or not with its settings; another program is there; another interface has its place.
    pub fn attach_xdp(&mut self, ifindex: u32, mac: [u8; 6]) -> Result<(), TcError> {
        let path = self.pins.path(&pin_name(ifindex));
        if self.station(ifindex)?.is_some_and(|owner| owner != ifindex) {
            return Err(tc_error("cannot forward by XDP")("another interface has its place in the map `stations`"));
        }
        if !path.exists() {
            let program = xdp(&mut self.ebpf)?;
            let attached = program.attach_to_if_index(ifindex, XdpMode::Driver);
            let id = attached.map_err(tc_error("cannot attach the XDP program"))?;
            let link = program.take_link(id).map_err(tc_error("cannot keep the link"))?;
            let link: FdLink = link.try_into().map_err(tc_error("a link of the wrong type"))?;
            link.pin(&path).map_err(tc_error(format!("cannot pin the link at {}", path.display())))?;
        }
        self.set_station(ifindex, Some(mac))
    }

    /// Sends nothing on at XDP any more that comes in by an interface.
    ///
    /// # Errors
    /// The pin cannot be removed.
    pub fn detach_xdp(&mut self, ifindex: u32) -> Result<(), TcError> {
        if self.station(ifindex)? == Some(ifindex) {
            self.set_station(ifindex, None)?;
        }
        detach(&self.pins, ifindex).map_err(tc_error("cannot detach the XDP program"))
    }

    /// The indices of the interfaces that have the program, of this process or an earlier one.
    pub fn attached_xdp(&self) -> Vec<u32> {
        attached(&self.pins)
    }

    /// The neighbours that the program sends to; once.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn hop_table(&mut self) -> Result<HopTable, TcError> {
        let devices = self.ebpf.take_map("devices").ok_or("not in the object file, or taken");
        let devices = DevMap::try_from(devices.map_err(tc_error("BPF map devices"))?);
        let devices = XdpDevices::new(Some(devices.map_err(tc_error::<MapError>("BPF map devices"))?));
        let memory = MappedMemory::bpf_map(array(&self.ebpf, "hops")?.fd().as_fd(), HOPS_LEN);
        Ok(HopTable::new(memory.map_err(tc_error("cannot map the BPF map hops"))?, devices))
    }

    /// The index of the interface that has this one's place.
    fn station(&self, ifindex: u32) -> Result<Option<u32>, TcError> {
        let map = self.ebpf.map("stations").ok_or("not in the object file").map_err(tc_error("BPF map stations"))?;
        let stations: Array<_, Station> = map.try_into().map_err(tc_error::<MapError>("BPF map stations"))?;
        let station = stations.get(&(ifindex % STATIONS), 0);
        let station = station.map_err(tc_error::<MapError>("cannot read the BPF map stations"))?;
        let owner = station.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        Ok(Some(owner).filter(|owner| *owner != 0))
    }

    fn set_station(&mut self, ifindex: u32, mac: Option<[u8; 6]>) -> Result<(), TcError> {
        let map = self.ebpf.map_mut("stations").ok_or("not in the object file");
        let map = map.map_err(tc_error("BPF map stations"))?;
        let mut stations: Array<_, Station> = map.try_into().map_err(tc_error::<MapError>("BPF map stations"))?;
        let mut station = [0; 12];
        if let Some(mac) = mac {
            let bytes = ifindex.to_ne_bytes().into_iter().chain(mac);
            station.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        }
        let written = stations.set(ifindex % STATIONS, station, 0);
        written.map_err(tc_error::<MapError>("cannot write the BPF map stations"))
    }
}

fn replace(ebpf: &mut Ebpf, path: &Path) -> Result<(), TcError> {
    let pinned = PinnedLink::from_pin(path).map_err(tc_error(format!("cannot open {}", path.display())))?;
    let link = XdpLink::try_from(FdLink::from(pinned)).map_err(tc_error("a pin of the wrong type"))?;
    let program = xdp(ebpf)?;
    let id = program.attach_to_link(link).map_err(tc_error("cannot replace the program"))?;
    program.take_link(id).map(drop).map_err(tc_error("cannot keep the link"))
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, TcError> {
    let program = ebpf.program_mut("xdp").ok_or("not in the object file").map_err(tc_error("BPF program xdp"))?;
    program.try_into().map_err(tc_error("BPF program xdp of the wrong type"))
}
