//! The kernel's devices, addresses and routes, as the router's map.
use crate::notes;
use keepstate_linux::rtnetlink::{RtLink, RtMessage};
use keepstate_router::{FibTable, Interface, Route};
use std::fs;
use std::path::Path;

/// The routing table of who asks for no other.
const RT_TABLE_MAIN: u32 = 254;
/// The most queues a device's program can divert.
const MAX_QUEUES: usize = 64;

/// The links in what the kernel has told.
pub(super) fn links(known: &[RtMessage]) -> Vec<&RtLink> {
    known.iter().filter_map(|told| if let RtMessage::Link(link) = told { Some(link) } else { None }).collect()
}

/// A map of what the kernel has told: devices that are up, their addresses, the routes of its main table.
pub(super) fn build_fib(known: &[RtMessage]) -> FibTable {
    let mut interfaces: Vec<Interface> = links(known)
        .into_iter()
        .filter(|link| link.is_up)
        .map(|link| Interface {
            index: link.index,
            name: link.name.clone(),
            mtu: link.mtu,
            group: link.group,
            addresses: Vec::new(),
        })
        .collect();
    let mut routes = Vec::new();
    for told in known {
        match told {
            RtMessage::Address(address) => {
                if let Some(interface) = interfaces.iter_mut().find(|interface| interface.index == address.ifindex) {
                    interface.addresses.push((address.address, address.prefix_length));
                }
            }
            RtMessage::Route(route) if route.table == RT_TABLE_MAIN => routes.push(*route),
            _ => (),
        }
    }
    // Of routes to one prefix the one with the smallest metric is taken.
    routes.sort_by_key(|route| route.metric);
    let routes = routes.into_iter().map(|route| Route {
        prefix: route.prefix,
        length: route.prefix_length,
        device: route.ifindex.unwrap_or(0),
        gateway: route.gateway,
    });
    FibTable::new(interfaces, routes.collect())
}

/// The queues of a device that frames arrive on.
pub(super) fn rx_queue_count(device: &str) -> u32 {
    let folder = Path::new("/sys/class/net").join(device).join("queues");
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let count = names.filter(|name| name.to_string_lossy().starts_with("rx-")).count();
    u32::try_from(count.clamp(1, MAX_QUEUES)).unwrap_or(1)
}

/// What comes by the device to the host is not to be asked where it ought to have come from.
pub(super) fn disable_rp_filter(host: &str) {
    let conf = Path::new("/proc/sys/net/ipv4/conf");
    if fs::write(conf.join(host).join("rp_filter"), "0").is_err() {
        notes::note(format!("net.ipv4.conf.{host}.rp_filter could not be set to 0"));
    }
    if fs::read_to_string(conf.join("all/rp_filter")).is_ok_and(|value| value.trim() == "1") {
        notes::note(
            "net.ipv4.conf.all.rp_filter is 1: the kernel will refuse what the gateway hands to this machine itself (ssh, ping). \
             Type: sysctl -w net.ipv4.conf.all.rp_filter=0, and set it for single devices",
        );
    }
}
