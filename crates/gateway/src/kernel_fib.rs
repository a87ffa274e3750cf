//! The kernel's interfaces, addresses and routes, as the router's FIB.
use keepstate_linux::rtnetlink::message::ifa_flag;
use keepstate_linux::rtnetlink::{RtAddress, RtLink, RtMessage};
use keepstate_router::{FibTable, Interface, Route, SourceAddress};
use std::fs;
use std::path::Path;

/// The main routing table.
const RT_TABLE_MAIN: u32 = 254;
/// The most queues that the XDP program of an interface redirects.
const MAX_QUEUES: usize = 64;

/// The links among the messages of a dump.
pub(super) fn links(messages: &[RtMessage]) -> Vec<&RtLink> {
    messages.iter().filter_map(|message| if let RtMessage::Link(link) = message { Some(link) } else { None }).collect()
}

/// The FIB of a dump: interfaces that are up, their addresses, the routes of the main table.
pub(super) fn build_fib(messages: &[RtMessage]) -> FibTable {
    let mut interfaces: Vec<Interface> = links(messages)
        .into_iter()
        .filter(|link| link.is_up)
        .map(|link| Interface {
            index: link.index,
            name: link.name.clone(),
            mtu: link.mtu,
            group: link.group,
            link_type: link.link_type,
            kind: link.kind.clone(),
            addresses: Vec::new(),
        })
        .collect();
    let mut routes = Vec::new();
    let mut sources = Vec::new();
    for message in messages {
        match message {
            RtMessage::Address(address) => {
                if let Some(interface) = interfaces.iter_mut().find(|interface| interface.index == address.ifindex) {
                    interface.addresses.push((address.address, address.prefix_length));
                    sources.push(source_address(address));
                }
            }
            RtMessage::Route(route) if route.table == RT_TABLE_MAIN => routes.push(*route),
            _ => (),
        }
    }
    // Of several routes to one prefix the one with the smallest metric is used.
    routes.sort_by_key(|route| route.metric);
    let routes = routes.into_iter().map(|route| Route {
        prefix: route.prefix,
        length: route.prefix_length,
        device: route.ifindex.unwrap_or(0),
        gateway: route.gateway,
    });
    FibTable::new(interfaces, routes.collect()).with_source_addresses(sources)
}

fn source_address(address: &RtAddress) -> SourceAddress {
    let has = |flag| address.flags & flag != 0;
    SourceAddress {
        ifindex: address.ifindex,
        address: address.address,
        network: address.network,
        prefix_length: address.prefix_length,
        scope: address.scope,
        secondary: has(ifa_flag::SECONDARY),
        deprecated: has(ifa_flag::DEPRECATED | ifa_flag::OPTIMISTIC),
        tentative: has(ifa_flag::DADFAILED) || has(ifa_flag::TENTATIVE) && !has(ifa_flag::OPTIMISTIC),
    }
}

/// The number of receive queues of an interface.
pub(super) fn rx_queue_count(interface: &str) -> u32 {
    let queues = Path::new("/sys/class/net").join(interface).join("queues");
    let names = fs::read_dir(queues).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let count = names.filter(|name| name.to_string_lossy().starts_with("rx-")).count();
    u32::try_from(count.clamp(1, MAX_QUEUES)).unwrap_or(1)
}

/// Packets that the gateway hands to the host come in by `tun`, not by the interface that leads to their source: strict reverse path filtering would drop them.
pub(super) fn disable_rp_filter(tun: &str) {
    let conf = Path::new("/proc/sys/net/ipv4/conf");
    if fs::write(conf.join(tun).join("rp_filter"), "0").is_err() {
        tracing::warn!("net.ipv4.conf.{tun}.rp_filter could not be set to 0");
    }
    if fs::read_to_string(conf.join("all/rp_filter")).is_ok_and(|value| value.trim() == "1") {
        tracing::warn!(
            "net.ipv4.conf.all.rp_filter is 1: the kernel drops packets that the gateway hands to this host (ssh, ping). \
             Type: sysctl -w net.ipv4.conf.all.rp_filter=0, and set it for single interfaces"
        );
    }
}

#[cfg(test)]
mod tests;
