//! Programs that write rules with connection tracking in them, known by their processes, their sockets and the names of their chains.
use crate::root::Root;

/// A program that is known to need connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// What people call it.
    pub name: &'static str,
    /// The names of its processes.
    processes: &'static [&'static str],
    /// Its sockets: where one is, it starts when somebody asks.
    sockets: &'static [&'static str],
    /// What its chains and tables begin with.
    chains: &'static [&'static str],
    /// What it needs tracking for.
    pub purpose: &'static str,
}

/// The services that are known.
pub const KNOWN: [Service; 12] = [
    Service {
        name: "Docker",
        processes: &["dockerd"],
        sockets: &["/run/docker.sock"],
        chains: &["DOCKER", "docker"],
        purpose: "translates the addresses of containers and of published ports; puts its rules back whenever it starts",
    },
    Service {
        name: "kube-proxy",
        processes: &["kube-proxy", "k3s", "k3s-server", "k3s-agent", "kube-router", "rke2", "microk8s"],
        sockets: &[],
        chains: &["KUBE-", "kube-proxy"],
        purpose: "translates service addresses to pods, and writes nf_conntrack_max itself",
    },
    Service {
        name: "Podman",
        processes: &["netavark", "aardvark-dns"],
        sockets: &[],
        chains: &["NETAVARK", "netavark", "CNI-"],
        purpose: "translates the addresses of containers and of published ports",
    },
    Service {
        name: "Calico",
        processes: &["calico-node", "calico-felix"],
        sockets: &[],
        chains: &["cali-", "cali:", "calico"],
        purpose: "accepts established traffic of pods and translates what leaves the cluster",
    },
    Service {
        name: "Cilium",
        processes: &["cilium-agent"],
        sockets: &[],
        chains: &["CILIUM_"],
        purpose: "may masquerade with iptables; otherwise it has a table of its own",
    },
    Service {
        name: "flannel",
        processes: &["flanneld"],
        sockets: &[],
        chains: &["FLANNEL-", "flannel-"],
        purpose: "masquerades what leaves the cluster",
    },
    Service {
        name: "firewalld",
        processes: &["firewalld"],
        sockets: &[],
        chains: &["firewalld"],
        purpose: "accepts established traffic; masquerades where a zone says so",
    },
    Service {
        name: "libvirt",
        processes: &["libvirtd", "virtnetworkd"],
        sockets: &[],
        chains: &["LIBVIRT_", "libvirt_network"],
        purpose: "masquerades virtual machines",
    },
    Service {
        name: "LXD",
        processes: &["lxd", "incusd"],
        sockets: &[],
        chains: &["lxd", "incus"],
        purpose: "masquerades containers",
    },
    Service { name: "fail2ban", processes: &[], sockets: &[], chains: &["f2b-"], purpose: "blocks addresses" },
    Service {
        name: "ufw",
        processes: &[],
        sockets: &[],
        chains: &["ufw-", "ufw6-"],
        purpose: "accepts established traffic",
    },
    Service {
        name: "tailscale",
        processes: &["tailscaled"],
        sockets: &[],
        chains: &["ts-"],
        purpose: "masquerades what it routes for others",
    },
];

/// Why a service is believed to be here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// One of its processes runs.
    Process(u32),
    /// Its socket is there.
    Socket(&'static str),
}

/// Whose a chain or a table with this name is.
pub fn owner(name: &str) -> Option<&'static str> {
    KNOWN.iter().find(|service| service.chains.iter().any(|start| name.starts_with(start))).map(|service| service.name)
}

/// The services that run, or wait behind a socket, one sign each.
pub fn running(root: &Root) -> Vec<(&'static Service, Sign)> {
    let processes = processes(root);
    let sign = |service: &'static Service| {
        let running = processes.iter().find(|(_, name)| service.processes.contains(&name.as_str()));
        let socket = || service.sockets.iter().find(|socket| root.exists(socket));
        running.map(|(process, _)| Sign::Process(*process)).or_else(|| socket().map(|socket| Sign::Socket(socket)))
    };
    KNOWN.iter().filter_map(|service| Some((service, sign(service)?))).collect()
}

/// Does a process with this name run?
pub fn runs(root: &Root, name: &str) -> Option<u32> {
    processes(root).into_iter().find(|(_, process)| process == name).map(|(process, _)| process)
}

/// Every process and its name.
fn processes(root: &Root) -> Vec<(u32, String)> {
    let numbers = root.names("/proc").unwrap_or_default().into_iter().filter_map(|name| name.parse().ok());
    let named = numbers.filter_map(|process: u32| {
        let name = root.read(format!("/proc/{process}/comm")).ok()?;
        Some((process, name.trim_end().to_owned()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn chains_tell_their_owner() {
        assert_eq!(owner("DOCKER-USER"), Some("Docker"));
        assert_eq!(owner("KUBE-SVC-ABC"), Some("kube-proxy"));
        assert_eq!(owner("INPUT"), None);
    }

    #[test]
    fn processes_and_sockets() {
        let there = tempfile::tempdir().unwrap();
        let root = Root::at(there.path());
        assert!(running(&root).is_empty());
        fs::create_dir_all(there.path().join("proc/41")).unwrap();
        fs::write(there.path().join("proc/41/comm"), "kube-proxy\n").unwrap();
        fs::create_dir_all(there.path().join("run")).unwrap();
        fs::write(there.path().join("run/docker.sock"), "").unwrap();
        let found: Vec<(&str, Sign)> = running(&root).into_iter().map(|(service, sign)| (service.name, sign)).collect();
        assert_eq!(found, [("Docker", Sign::Socket("/run/docker.sock")), ("kube-proxy", Sign::Process(41))]);
        assert_eq!((runs(&root, "kube-proxy"), runs(&root, "kube")), (Some(41), None));
    }
}
