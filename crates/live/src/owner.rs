//! Whose a connection is: the network namespace and the container, pod or service that one of its ends belongs to, as far as this machine's own sockets and addresses tell. Nobody is asked.
//!
//! An [`OwnerIndex`] is a picture of a moment, made by [`owner_gather`](crate::owner_gather) and never changed. What it cannot know it says: a socket that has been closed, an address that
//! several namespaces have.
use crate::flow_key::FlowKey;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The owners of a connection, by their numbers in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowOwner {
    pub(crate) namespace: u32,
    pub(crate) container: u32,
}

/// What is known of an address or an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    One(u32),
    /// More than one has it.
    Several,
}

/// See the module.
#[derive(Debug)]
pub struct OwnerIndex {
    /// Labels, each once; the first ones are those of what is not known.
    labels: Vec<String>,
    by_label: HashMap<String, u32>,
    /// Which namespace has an address.
    addresses: HashMap<IpAddr, Known>,
    /// The label of each namespace, and of its only container if all that it is for is one.
    namespaces: Vec<(u32, u32)>,
    /// The container of a socket by namespace, protocol, address and port.
    sockets: HashMap<(u32, u8, IpAddr, u16), Known>,
}

/// No end is an address of this machine.
const ELSEWHERE: u32 = 0;
/// Several namespaces have the address.
const AMBIGUOUS: u32 = 1;
/// The end is here, and no socket has it any more.
const NO_SOCKET: u32 = 2;
/// Several cgroups have a socket there.
const SHARED: u32 = 3;

impl Default for OwnerIndex {
    fn default() -> OwnerIndex {
        OwnerIndex {
            labels: Vec::new(),
            by_label: HashMap::new(),
            addresses: HashMap::new(),
            namespaces: Vec::new(),
            sockets: HashMap::new(),
        }
        .with_unknowns()
    }
}

impl OwnerIndex {
    fn with_unknowns(mut self) -> OwnerIndex {
        for text in [
            "none seen here: forwarded, or hidden",
            "unknown: address of several namespaces",
            "unknown: socket closed, or not seen",
            "unknown: socket of several",
        ] {
            self.label(text);
        }
        self
    }

    fn label(&mut self, text: &str) -> u32 {
        if let Some(at) = self.by_label.get(text) {
            return *at;
        }
        let at = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        self.labels.push(text.to_owned());
        self.by_label.insert(text.to_owned(), at);
        at
    }

    /// Adds a namespace: its name, its addresses, and the cgroup of a process that it is for; the one whose table is followed comes first. Returns its number.
    pub(crate) fn add_namespace(&mut self, name: &str, addresses: &[IpAddr], cgroup: Option<&str>) -> u32 {
        let at = u32::try_from(self.namespaces.len()).unwrap_or(u32::MAX);
        let label = self.label(name);
        // What runs in a namespace of its own is one thing; where the table is, there may be many.
        let container = match cgroup.filter(|_| at > 0).and_then(container_label) {
            Some(text) => self.label(&text),
            None => NO_SOCKET,
        };
        self.namespaces.push((label, container));
        for address in addresses {
            match self.addresses.entry(*address) {
                Entry::Vacant(free) => drop(free.insert(Known::One(at))),
                // Its own addresses are nearest: others have 127.0.0.1 too.
                Entry::Occupied(taken) if *taken.get() == Known::One(0) => (),
                Entry::Occupied(mut taken) => drop(taken.insert(Known::Several)),
            }
        }
        at
    }

    /// Adds the local end of a socket and the path of its cgroup.
    pub(crate) fn add_socket(&mut self, namespace: u32, (protocol, address, port): (u8, IpAddr, u16), cgroup: &str) {
        let label = self.label(&container_label(cgroup).unwrap_or_else(|| cgroup_label(cgroup)));
        match self.sockets.entry((namespace, protocol, address, port)) {
            Entry::Vacant(free) => drop(free.insert(Known::One(label))),
            Entry::Occupied(taken) if *taken.get() == Known::One(label) => (),
            Entry::Occupied(mut taken) => drop(taken.insert(Known::Several)),
        }
    }

    /// The text of a number.
    pub(crate) fn text(&self, label: u32) -> &str {
        usize::try_from(label).ok().and_then(|at| self.labels.get(at)).map_or("unknown", String::as_str)
    }

    /// Whose a connection is: of whoever opened it, or if that is not here, of whoever serves it. `server` is the source of the replies.
    pub(crate) fn owner(&self, key: &FlowKey, server: (IpAddr, u16)) -> FlowOwner {
        let client = self.end(key.protocol, key.source, key.ports[0]);
        client
            .or_else(|| self.end(key.protocol, server.0, server.1))
            .unwrap_or(FlowOwner { namespace: ELSEWHERE, container: ELSEWHERE })
    }

    fn end(&self, protocol: u8, address: IpAddr, port: u16) -> Option<FlowOwner> {
        let at = match self.addresses.get(&address)? {
            Known::One(at) => *at,
            Known::Several => return Some(FlowOwner { namespace: AMBIGUOUS, container: AMBIGUOUS }),
        };
        let (namespace, alone) = *usize::try_from(at).ok().and_then(|at| self.namespaces.get(at))?;
        let any: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // A socket of both families is listed with ::.
        let ends = [address, any, Ipv6Addr::UNSPECIFIED.into()];
        let socket = ends.into_iter().find_map(|address| self.sockets.get(&(at, protocol, address, port)));
        let container = match socket {
            Some(Known::One(label)) => *label,
            Some(Known::Several) => SHARED,
            None => alone,
        };
        Some(FlowOwner { namespace, container })
    }
}

/// The container or pod that a cgroup is, by how container runtimes name their cgroups; `None` if it is none.
fn container_label(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let pod = parts.iter().find_map(|part| pod_uid(part));
    let container = parts.iter().rev().find_map(|part| container_id(part));
    match (pod, container) {
        (Some(pod), Some(id)) => Some(format!("pod {pod}/{id}")),
        (Some(pod), None) => Some(format!("pod {pod}")),
        (None, Some(id)) => Some(format!("container {id}")),
        (None, None) => {
            let lxc = parts.iter().find_map(|part| part.strip_prefix("lxc.payload."));
            let machine = parts.iter().find_map(|part| part.strip_prefix("systemd-nspawn@")?.strip_suffix(".service"));
            lxc.or(machine).map(|name| format!("container {name}"))
        }
    }
}

/// `kubepods-burstable-pod0d1f….slice`, or `pod0d1f…` below `kubepods`.
fn pod_uid(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let uid = if name.starts_with("kubepods") { name.rsplit_once("-pod")?.1 } else { name.strip_prefix("pod")? };
    let is_uid =
        uid.len() >= 32 && uid.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '_' || letter == '-');
    is_uid.then(|| uid.replace('_', "-"))
}

/// The id in `docker-….scope`, `cri-containerd-….scope`, `libpod-….scope`, or alone: its first twelve digits, as the programs show it.
fn container_id(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let id = name.rsplit(['-', ':']).next()?;
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.get(..12)).flatten()
}

/// A cgroup that is no container: the unit, or the path.
fn cgroup_label(path: &str) -> String {
    let unit = path.rsplit('/').find(|part| part.ends_with(".service") || part.ends_with(".scope"));
    match unit {
        Some(unit) => unit.to_owned(),
        None if path == "/" => "no container (root cgroup)".into(),
        None => format!("cgroup {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn owner(index: &OwnerIndex, from: (u8, u16), to: (u8, u16)) -> (String, String) {
        let key = FlowKey { source: ip(from.0), destination: ip(to.0), protocol: 6, zone: 0, ports: [from.1, to.1] };
        let owner = index.owner(&key, (ip(to.0), to.1));
        (index.text(owner.namespace).to_owned(), index.text(owner.container).to_owned())
    }

    #[test]
    fn cgroups_are_named_as_their_runtimes_name_them() {
        let pod =
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0d1f2a3b_1111_2222_3333_444455556666.slice";
        for (path, label) in [
            (format!("/{pod}/cri-containerd-{ID}.scope"), "pod 0d1f2a3b-1111-2222-3333-444455556666/0123456789ab"),
            (format!("/{pod}"), "pod 0d1f2a3b-1111-2222-3333-444455556666"),
            (
                format!("/kubepods/besteffort/pod0d1f2a3b-1111-2222-3333-444455556666/{ID}"),
                "pod 0d1f2a3b-1111-2222-3333-444455556666/0123456789ab",
            ),
            (format!("/system.slice/docker-{ID}.scope"), "container 0123456789ab"),
            (format!("/docker/{ID}"), "container 0123456789ab"),
            (format!("/machine.slice/libpod-{ID}.scope/container"), "container 0123456789ab"),
            ("/lxc.payload.web/system.slice/nginx.service".into(), "container web"),
            ("/machine.slice/systemd-nspawn@web.service/payload".into(), "container web"),
        ] {
            assert_eq!(container_label(&path).as_deref(), Some(label), "{path}");
        }
        for (path, label) in [
            ("/system.slice/nginx.service", "nginx.service"),
            ("/user.slice/user-0.slice/session-3.scope", "session-3.scope"),
            ("/", "no container (root cgroup)"),
            ("/mine/podium", "cgroup /mine/podium"),
        ] {
            assert_eq!((container_label(path), cgroup_label(path)), (None, label.to_owned()), "{path}");
        }
    }

    #[test]
    fn a_connection_belongs_to_the_end_that_is_here() {
        let mut index = OwnerIndex::default();
        let docker = format!("/system.slice/docker-{ID}.scope");
        let host = index.add_namespace("this one", &[ip(1), ip(100)], Some("/"));
        let blue = index.add_namespace("blue", &[ip(2), ip(100)], Some(&docker));
        index.add_namespace("red", &[ip(3), ip(9)], None);
        index.add_namespace("green", &[ip(9)], None);
        index.add_socket(host, (6, ip(1), 4000), "/system.slice/nginx.service");
        index.add_socket(host, (6, IpAddr::from([0, 0, 0, 0]), 22), "/system.slice/ssh.service");
        index.add_socket(blue, (6, ip(2), 80), &docker);
        index.add_socket(host, (6, ip(1), 53), "/a");
        index.add_socket(host, (6, ip(1), 53), "/b");
        for (from, to, namespace, container) in [
            ((1, 4000), (77, 443), "this one", "nginx.service"),
            ((77, 9), (1, 22), "this one", "ssh.service"),
            ((1, 4001), (77, 443), "this one", "unknown: socket closed, or not seen"),
            ((2, 5000), (77, 443), "blue", "container 0123456789ab"),
            ((77, 5000), (2, 80), "blue", "container 0123456789ab"),
            ((3, 5000), (77, 443), "red", "unknown: socket closed, or not seen"),
            ((9, 1), (77, 2), "unknown: address of several namespaces", "unknown: address of several namespaces"),
            ((1, 53), (77, 1), "this one", "unknown: socket of several"),
            ((100, 1), (77, 1), "this one", "unknown: socket closed, or not seen"),
            ((77, 1), (78, 2), "none seen here: forwarded, or hidden", "none seen here: forwarded, or hidden"),
        ] {
            assert_eq!(owner(&index, from, to), (namespace.to_owned(), container.to_owned()), "{from:?} {to:?}");
        }
    }
}
