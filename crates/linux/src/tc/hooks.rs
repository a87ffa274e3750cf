//! The programs at tc's ingress and egress of governed interfaces, and at the carrier.
//!
//! Their life: loaded by [`TcHooks::load`]; attached by [`TcHooks::attach`], each link pinned at once. A link that an earlier process has left gets the new program in the same instant that the
//! old one goes, so that no packet passes between them. Dropping this leaves everything attached. The maps are pinned too: the new programs go by the same flows as the old ones.
use super::carrier::Carrier;
use super::detach;
use super::flow_table::FlowTable;
use super::flow_table_size::FlowTableSize;
use super::loopback::{self, LoopbackSettings};
use super::pin_dir::PinDir;
use super::syn_class::{HEARTBEAT_LEN, PORT_MAPS_LEN, SynClassTable};
use super::tc_error::{TcError, tc_error};
use crate::file_access::FileAccess;
use crate::mapped_memory::MappedMemory;
use crate::tun;
use aya::Ebpf;
use aya::EbpfLoader;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use rustix::time::{ClockId, clock_gettime};
use siphasher::sip::SipHasher13;
use std::fmt;
use std::fs;
use std::hash::Hasher;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The compiled programs; `scripts/check-bpf` compares them with their source.
static BPF_OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/datapath.bpf.o");

impl HookSecrets {
    /// Those of this random number, each for its purpose.
    pub fn derive(secret: [u64; 2]) -> HookSecrets {
        let word = |purpose: u64| {
            let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
            hasher.write_u64(purpose);
            hasher.finish()
        };
        let cookie = word(0).to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = cookie;
        // A packet that nobody has marked has zeros there.
        let cookie = [u32::from_ne_bytes([a, b, c, d]) | 1, u32::from_ne_bytes([e, f, g, h])];
        HookSecrets { cookie, key: [word(1), word(2)] }
    }
}

/// What the programs count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookCounters {
    /// Sent to user space.
    pub to_user: u64,
    /// Let pass without being asked about: what netfilter does not see either, and neighbour discovery.
    pub passed: u64,
    /// Dropped: the kernel had forwarded it from an interface that is not governed.
    pub ungoverned: u64,
    /// Dropped: the kernel refused an operation on the packet.
    pub broken: u64,
    /// Packets of known flows, which have not come to user space.
    pub known: u64,
    /// Connections opened by class.
    pub opened: u64,
    /// Packets of known flows that were sent on at XDP.
    pub known_by_xdp: u64,
}

/// `struct config` of the programs: the carrier's index, the cookie that marks packets which user space has let go on, the generation of known flows, the key of their hash,
/// whether interfaces are open while no gateway runs, whose namespace it is.
type Config = [u32; 10];

/// The maps that the next gateway's programs use too. Their pins' names say which layout they have: whoever changes one changes [`MAP_PIN`].
const KEPT_MAPS: [&str; 9] =
    ["config", "heartbeat", "flows", "flows_v6", "records", "records_v6", "sides", "sides_v6", "notes"];
const MAP_PIN: &str = "map3-";

/// Secrets of the programs.
#[derive(Clone, Copy, Debug)]
pub struct HookSecrets {
    /// Marks packets that user space has let go on.
    pub cookie: [u32; 2],
    /// Keys the hash of known flows.
    pub key: [u64; 2],
}

/// The programs of this process.
pub struct TcHooks {
    pub(super) ebpf: Ebpf,
    pub(super) pins: PinDir,
    config: Config,
    heartbeat: MappedMemory,
    size: FlowTableSize,
    loopback: LoopbackSettings,
    at_loopback: bool,
}

impl fmt::Debug for TcHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcHooks").field("pins", &self.pins).finish_non_exhaustive()
    }
}

/// What the programs do beside.
#[derive(Clone, Copy, Debug, Default)]
pub struct HookOptions {
    /// Interfaces are open while no gateway runs, else closed.
    pub open_when_dead: bool,
    /// Packets go on by known flows for so long while no gateway runs, 49 days at most; `None`: without an end.
    pub unattended: Option<Duration>,
    /// The size of the table of known flows.
    pub size: FlowTableSize,
}

/// A place where a program is attached, and the name of its pin.
struct Place<'a> {
    program: &'static str,
    interface: &'a str,
    pin: String,
    attach_type: TcAttachType,
}

impl TcHooks {
    /// Loads the programs for this carrier, and attaches the one that stands there. The table of known flows gets the size given, unless an earlier gateway has left one: [`TcHooks::flow_table_size`] tells
    /// which it has.
    ///
    /// # Errors
    /// Permission denied (CAP_BPF, CAP_NET_ADMIN), or a kernel without what the programs need.
    pub fn load(
        carrier: &Carrier,
        secrets: HookSecrets,
        options: HookOptions,
        pins: PinDir,
    ) -> Result<TcHooks, TcError> {
        let netns = pins.netns().map_err(tc_error("cannot tell network namespaces apart"))?;
        let before = config_left(&pins, netns);
        if before.is_none() {
            remove_map_pins(&pins).map_err(tc_error("cannot remove the maps of an earlier gateway"))?;
        }
        let size = before.and_then(|_| size_left(&pins)).unwrap_or(options.size);
        let mut loader = EbpfLoader::new();
        let masks = [false, true].map(|is_v6| size.buckets(is_v6) - 1);
        loader.override_global("bucket_mask", &masks[0], true).override_global("bucket_mask_v6", &masks[1], true);
        // As many milliseconds as a number has room for are 49 days.
        let unattended_ms = options.unattended.map_or(0, |time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        loader.override_global("unattended_ms", &unattended_ms, true);
        loader.map_max_entries("notes", size.ring_bytes());
        for (is_v6, [lines, sides, records]) in
            [(false, ["flows", "sides", "records"]), (true, ["flows_v6", "sides_v6", "records_v6"])]
        {
            loader.map_max_entries(lines, size.buckets(is_v6)).map_max_entries(sides, size.buckets(is_v6));
            loader.map_max_entries(records, size.connections_of(is_v6));
        }
        for name in KEPT_MAPS {
            loader.map_pin_path(name, pins.path(&format!("{MAP_PIN}{name}")));
        }
        let mut ebpf = loader.load(BPF_OBJECT).map_err(tc_error("cannot load the BPF object"))?;
        let open = u32::from(options.open_when_dead);
        let config = match before {
            // The programs that still run, the packets under way and the lines in the table go by these.
            Some([_, first, second, generation, w0, w1, w2, w3, ..]) => {
                [carrier.index(), first, second, generation, w0, w1, w2, w3, open, netns]
            }
            None => {
                let [first, second] = secrets.cookie;
                let [w0, w1, w2, w3] = key_words(secrets.key);
                [carrier.index(), first, second, FIRST_GENERATION, w0, w1, w2, w3, open, netns]
            }
        };
        write_config(&mut ebpf, config)?;
        for name in ["ingress", "egress", "carrier", "loopback"] {
            classifier(&mut ebpf, name)?.load().map_err(tc_error(format!("cannot load the BPF program {name}")))?;
        }
        let heartbeat = map_heartbeat(&ebpf)?;
        let loopback = LoopbackSettings::open(&pins);
        let mut hooks = TcHooks { ebpf, pins, config, heartbeat, size, loopback, at_loopback: false };
        // Before it is seen that a gateway lives.
        hooks.load_xdp()?;
        hooks.beat();
        hooks.attach_at(&Place {
            program: "carrier",
            interface: super::CARRIER_NAME,
            pin: format!("{}-carrier", carrier.index()),
            attach_type: TcAttachType::Ingress,
        })?;
        if hooks.pins.path(LOOPBACK_PIN).exists() {
            hooks.attach_loopback()?;
        }
        Ok(hooks)
    }

    /// Attaches the programs to the interface of this index. Where an earlier process has left its own, they are replaced. False: the interface is gone, or gets another name at this moment.
    ///
    /// # Errors
    /// Permission denied; a kernel before 6.6.
    pub fn attach(&mut self, ifindex: u32) -> Result<bool, TcError> {
        // It may have another name than the one that the kernel has told, and another one may have that.
        let Ok(interface) = tun::name_of(ifindex) else { return Ok(false) };
        // Egress first: what comes in is answered only when the answer can be seen.
        for (program, attach_type) in [("egress", TcAttachType::Egress), ("ingress", TcAttachType::Ingress)] {
            let place = Place { program, interface: &interface, pin: format!("{ifindex}-{program}"), attach_type };
            let attached = self.attach_at(&place);
            if tun::name_of(ifindex).ok().as_ref() != Some(&interface) {
                // The programs may be at another one.
                detach::let_go(&self.pins, ifindex).map_err(tc_error("cannot remove a pin"))?;
                return Ok(false);
            }
            attached?;
        }
        Ok(true)
    }

    fn attach_at(&mut self, place: &Place<'_>) -> Result<(), TcError> {
        let Place { program: name, interface, attach_type, .. } = place;
        let path = self.pins.path(&place.pin);
        let program = classifier(&mut self.ebpf, name)?;
        if path.exists() {
            let replaced = pinned_link(&path).and_then(|link| {
                let id = program.attach_to_link(link).map_err(tc_error("cannot replace the program"))?;
                program.take_link(id).map_err(tc_error("cannot keep the link"))
            });
            match replaced {
                Ok(_) => return Ok(()),
                // Its interface is gone, and another one has the index now.
                Err(_) => fs::remove_file(&path).map_err(tc_error(format!("cannot remove {}", path.display())))?,
            }
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let attached = program.attach_with_options(interface, *attach_type, options);
        let id = attached.map_err(tc_error(format!("cannot attach the BPF program {name} to {interface}")))?;
        let link = program.take_link(id).map_err(tc_error("cannot keep the link"))?;
        let link: FdLink = link.try_into().map_err(tc_error("a link of the wrong type"))?;
        link.pin(&path).map_err(tc_error(format!("cannot pin the link at {}", path.display())))?;
        Ok(())
    }

    pub(super) fn attach_loopback(&mut self) -> Result<(), TcError> {
        if !self.at_loopback {
            self.loopback.set().map_err(tc_error("cannot set accept_local and route_localnet of lo"))?;
            let (program, attach_type) = ("loopback", TcAttachType::Egress);
            self.attach_at(&Place { program, interface: "lo", pin: LOOPBACK_PIN.to_owned(), attach_type })?;
            self.at_loopback = true;
        }
        Ok(())
    }

    /// The table of known flows, with those that an earlier gateway has left; once.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn flow_table(&mut self) -> Result<FlowTable, TcError> {
        let ring = self.ebpf.take_map("notes").ok_or("not in the object file, or taken");
        let ring = RingBuf::try_from(ring.map_err(tc_error("BPF map notes"))?);
        let ring = ring.map_err(tc_error::<MapError>("cannot map the BPF map notes"))?;
        let (v4, v6) = (array(&self.ebpf, "flows")?, array(&self.ebpf, "flows_v6")?);
        let (records, records_v6) = (array(&self.ebpf, "records")?, array(&self.ebpf, "records_v6")?);
        let (sides, sides_v6) = (array(&self.ebpf, "sides")?, array(&self.ebpf, "sides_v6")?);
        let maps = [v4, v6, records, records_v6, sides, sides_v6].map(|map| map.fd().as_fd());
        let [_, _, _, generation, w0, w1, w2, w3, ..] = self.config;
        let table = FlowTable::of_maps(self.size, maps, ring, key_of_words([w0, w1, w2, w3]), generation);
        table.map_err(tc_error("cannot map the table of known flows"))
    }

    /// The classes of new connections; once.
    ///
    /// # Errors
    /// A map cannot be mapped.
    pub fn syn_class_table(&mut self) -> Result<SynClassTable, TcError> {
        let mut take = |name: &str| {
            let map = self.ebpf.take_map(name).ok_or("not in the object file, or taken");
            map.map_err(tc_error(format!("BPF map {name}")))
        };
        let (v4, v6) = (HashMap::try_from(take("classes")?), HashMap::try_from(take("classes_v6")?));
        let maps = v4.and_then(|v4| Ok((v4, v6?))).map_err(tc_error::<MapError>("BPF maps classes, classes_v6"));
        let ports = MappedMemory::bpf_map(array(&self.ebpf, "port_maps")?.fd().as_fd(), PORT_MAPS_LEN);
        Ok(SynClassTable::new(
            maps?,
            map_heartbeat(&self.ebpf)?,
            ports.map_err(tc_error("cannot map the BPF map port_maps"))?,
        ))
    }

    /// All known flows are stale at once: for packets that come from now on, none of the lines entered so far exists.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn raise_generation(&mut self, table: &mut FlowTable) -> Result<(), TcError> {
        let [_, _, _, generation, ..] = &mut self.config;
        // Zero is that of no line.
        *generation = generation.wrapping_add(1).max(FIRST_GENERATION);
        table.set_generation(*generation);
        write_config(&mut self.ebpf, self.config)
    }

    /// The generation of the known flows.
    pub(super) fn generation(&self) -> u32 {
        self.config[3]
    }

    /// Tells the programs that user space lives. Ten seconds after the last time they take it for dead.
    pub fn beat(&self) {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let now = (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64);
        self.heartbeat.atomic_u64(0).store(now, Ordering::Relaxed);
    }

    /// While no gateway runs, this TCP port of the machine is open on an interface.
    ///
    /// # Errors
    /// The map cannot be written, or 64 interfaces have one.
    pub fn set_lifeline(&mut self, ifindex: u32, port: u16) -> Result<(), TcError> {
        let map = self.ebpf.map_mut("lifelines").ok_or("not in the object file");
        let map = map.map_err(tc_error("BPF map lifelines"))?;
        let mut lifelines: HashMap<_, u32, u32> = map.try_into().map_err(tc_error::<MapError>("BPF map lifelines"))?;
        lifelines
            .insert(ifindex, u32::from(port), 0)
            .map_err(tc_error::<MapError>("cannot write the BPF map lifelines"))
    }

    /// How many connections the table of known flows has room for.
    pub fn flow_table_size(&self) -> FlowTableSize {
        self.size
    }

    /// What a process with these programs may still do, once its access to files is limited.
    pub fn allow(&self, access: FileAccess) -> FileAccess {
        // A map with a value for each processor is read by their number.
        self.pins.allow(access).read("/sys/devices/system/cpu/possible")
    }

    /// The indices of the interfaces that have programs, of this process or an earlier one.
    pub fn attached(&self) -> Vec<u32> {
        detach::attached(&self.pins)
    }

    /// Gives an interface back to the kernel, which has it a moment later: nobody waits for that, and until then its packets are judged.
    ///
    /// # Errors
    /// The pin cannot be removed.
    pub fn detach(&mut self, ifindex: u32) -> io::Result<()> {
        detach::let_go(&self.pins, ifindex)
    }

    /// Gives all interfaces back to the kernel, also when this process may open no more files; see [`TcHooks::detach_all`].
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn give_back(&mut self) -> io::Result<Vec<u32>> {
        release(&self.pins, &self.loopback)
    }

    /// Gives all interfaces of this network namespace back to the kernel, whatever process has attached programs there, and the settings of the loopback interface. Returns their indices.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn detach_all(pins: &PinDir) -> io::Result<Vec<u32>> {
        release(pins, &LoopbackSettings::open(pins))
    }

    /// What the programs have counted since they were loaded.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<HookCounters, TcError> {
        let map = self.ebpf.map("counters").ok_or("not in the object file").map_err(tc_error("BPF map counters"))?;
        let counters: PerCpuArray<_, u64> = map.try_into().map_err(tc_error::<MapError>("BPF map counters"))?;
        let read = |at| {
            let values = counters.get(&at, 0).map_err(tc_error::<MapError>("cannot read the BPF map counters"))?;
            Ok(values.iter().sum())
        };
        Ok(HookCounters {
            to_user: read(0)?,
            passed: read(1)?,
            ungoverned: read(2)?,
            broken: read(3)?,
            known: read(4)?,
            opened: read(5)?,
            known_by_xdp: read(6)?,
        })
    }
}

/// The name of the pin of the program at the loopback interface.
const LOOPBACK_PIN: &str = "1-loopback";
/// The generation of known flows at the start.
const FIRST_GENERATION: u32 = 1;

fn key_words([low, high]: [u64; 2]) -> [u32; 4] {
    let [l0, l1, l2, l3, l4, l5, l6, l7] = low.to_ne_bytes();
    let [h0, h1, h2, h3, h4, h5, h6, h7] = high.to_ne_bytes();
    [[l0, l1, l2, l3], [l4, l5, l6, l7], [h0, h1, h2, h3], [h4, h5, h6, h7]].map(u32::from_ne_bytes)
}

fn key_of_words(words: [u32; 4]) -> [u64; 2] {
    let [[l0, l1, l2, l3], [l4, l5, l6, l7], [h0, h1, h2, h3], [h4, h5, h6, h7]] = words.map(u32::to_ne_bytes);
    [[l0, l1, l2, l3, l4, l5, l6, l7], [h0, h1, h2, h3, h4, h5, h6, h7]].map(u64::from_ne_bytes)
}

/// What an earlier gateway of this network namespace has told its programs, if all its maps are there.
fn config_left(pins: &PinDir, netns: u32) -> Option<Config> {
    let path = |name: &str| pins.path(&format!("{MAP_PIN}{name}"));
    if !KEPT_MAPS.iter().all(|name| path(name).exists()) {
        return None;
    }
    let map = Map::Array(MapData::from_pin(path("config")).ok()?);
    let config: Config = Array::try_from(map).ok()?.get(&0, 0).ok()?;
    // A directory is named by the namespace's number, which another one may have had before.
    (config[9] == netns).then_some(config)
}

/// The size of the table that an earlier gateway has left.
fn size_left(pins: &PinDir) -> Option<FlowTableSize> {
    let lines = MapData::from_pin(pins.path(&format!("{MAP_PIN}flows"))).ok()?;
    Some(FlowTableSize::of_buckets(lines.info().ok()?.max_entries()))
}

/// Gives everything back. Returns the indices of the interfaces.
fn release(pins: &PinDir, loopback: &LoopbackSettings) -> io::Result<Vec<u32>> {
    let attached = detach::attached(pins);
    for ifindex in &attached {
        detach::detach(pins, *ifindex)?;
    }
    if pins.path(LOOPBACK_PIN).exists() {
        loopback.put_back(pins)?;
    }
    loopback::forget_before(pins)?;
    for name in pins.names() {
        fs::remove_file(pins.path(&name))?;
    }
    pins.remove()?;
    Ok(attached)
}

fn remove_map_pins(pins: &PinDir) -> io::Result<()> {
    let names = pins.names();
    names.iter().filter(|name| name.starts_with("map")).try_for_each(|name| fs::remove_file(pins.path(name)))
}

fn map_heartbeat(ebpf: &Ebpf) -> Result<MappedMemory, TcError> {
    let map = array(ebpf, "heartbeat")?;
    MappedMemory::bpf_map(map.fd().as_fd(), HEARTBEAT_LEN).map_err(tc_error("cannot map the BPF map heartbeat"))
}

pub(super) fn array<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData, TcError> {
    match ebpf.map(name) {
        Some(Map::Array(map)) => Ok(map),
        _ => Err(tc_error(format!("BPF map {name}"))("not in the object file")),
    }
}

fn write_config(ebpf: &mut Ebpf, config: Config) -> Result<(), TcError> {
    let map = ebpf.map_mut("config").ok_or("not in the object file").map_err(tc_error("BPF map config"))?;
    let mut map: Array<_, Config> = map.try_into().map_err(tc_error::<MapError>("BPF map config"))?;
    map.set(0, config, 0).map_err(tc_error::<MapError>("cannot write the BPF map config"))
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, TcError> {
    let program = ebpf.program_mut(name).ok_or("not in the object file");
    let program = program.map_err(tc_error(format!("BPF program {name}")))?;
    program.try_into().map_err(tc_error(format!("BPF program {name} of the wrong type")))
}

fn pinned_link(path: &PathBuf) -> Result<SchedClassifierLink, TcError> {
    let pinned = PinnedLink::from_pin(path).map_err(tc_error(format!("cannot open {}", path.display())))?;
    SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(tc_error("a pin of the wrong type"))
}
