//! Programs that write rules with connection tracking in them, known by their processes, their sockets and the names of their chains.
use crate::sysroot::SysRoot;

/// A program that is known to need connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownService {
    /// What people call it.
    pub name: &'static str,
    /// The names of its processes.
    processes: &'static [&'static str],
    /// Its sockets: where one is, it starts when somebody asks.
    sockets: &'static [&'static str],
    /// What its chains and tables begin with.
    chain_prefixes: &'static [&'static str],
    /// What it needs tracking for.
    pub purpose: &'static str,
}

/// The services that are known.
pub const KNOWN_SERVICES: [KnownService; 12] = [
    KnownService {
        name: "Docker",
        processes: &["dockerd"],
        sockets: &["/run/docker.sock"],
        chain_prefixes: &["DOCKER", "docker"],
        purpose: "translates the addresses of containers and of published ports; puts its rules back whenever it starts",
    },
    KnownService {
        name: "kube-proxy",
        processes: &["kube-proxy", "k3s", "k3s-server", "k3s-agent", "kube-router", "rke2", "microk8s"],
        sockets: &[],
        chain_prefixes: &["KUBE-", "kube-proxy"],
        purpose: "translates service addresses to pods, and writes nf_conntrack_max itself",
    },
    KnownService {
        name: "Podman",
        processes: &["netavark", "aardvark-dns"],
        sockets: &[],
        chain_prefixes: &["NETAVARK", "netavark", "CNI-"],
        purpose: "translates the addresses of containers and of published ports",
    },
    KnownService {
        name: "Calico",
        processes: &["calico-node", "calico-felix"],
        sockets: &[],
        chain_prefixes: &["cali-", "cali:", "calico"],
        purpose: "accepts established traffic of pods and translates what leaves the cluster",
    },
    KnownService {
        name: "Cilium",
        processes: &["cilium-agent"],
        sockets: &[],
        chain_prefixes: &["CILIUM_"],
        purpose: "may masquerade with iptables; otherwise it has a table of its own",
    },
    KnownService {
        name: "flannel",
        processes: &["flanneld"],
        sockets: &[],
        chain_prefixes: &["FLANNEL-", "flannel-"],
        purpose: "masquerades what leaves the cluster",
    },
    KnownService {
        name: "firewalld",
        processes: &["firewalld"],
        sockets: &[],
        chain_prefixes: &["firewalld"],
        purpose: "accepts established traffic; masquerades where a zone says so",
    },
    KnownService {
        name: "libvirt",
        processes: &["libvirtd", "virtnetworkd"],
        sockets: &[],
        chain_prefixes: &["LIBVIRT_", "libvirt_network"],
        purpose: "masquerades virtual machines",
    },
    KnownService {
        name: "LXD",
        processes: &["lxd", "incusd"],
        sockets: &[],
        chain_prefixes: &["lxd", "incus"],
        purpose: "masquerades containers",
    },
    KnownService {
        name: "fail2ban",
        processes: &[],
        sockets: &[],
        chain_prefixes: &["f2b-"],
        purpose: "blocks addresses",
    },
    KnownService {
        name: "ufw",
        processes: &[],
        sockets: &[],
        chain_prefixes: &["ufw-", "ufw6-"],
        purpose: "accepts established traffic",
    },
    KnownService {
        name: "tailscale",
        processes: &["tailscaled"],
        sockets: &[],
        chain_prefixes: &["ts-"],
        purpose: "masquerades what it routes for others",
    },
];

/// Why a service is believed to be here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceEvidence {
    /// One of its processes runs.
    Process(u32),
    /// Its socket is there.
    Socket(&'static str),
}

/// Whose a chain or a table with this name is.
pub fn owner_of_chain(name: &str) -> Option<&'static str> {
    KNOWN_SERVICES
        .iter()
        .find(|service| service.chain_prefixes.iter().any(|start| name.starts_with(start)))
        .map(|service| service.name)
}

/// The services that run, or wait behind a socket, one sign each.
pub fn running_services(root: &SysRoot) -> Vec<(&'static KnownService, ServiceEvidence)> {
    let processes = list_processes(root);
    let sign = |service: &'static KnownService| {
        let running = processes.iter().find(|(_, name)| service.processes.contains(&name.as_str()));
        let socket = || service.sockets.iter().find(|socket| root.exists(socket));
        running
            .map(|(process, _)| ServiceEvidence::Process(*process))
            .or_else(|| socket().map(|socket| ServiceEvidence::Socket(socket)))
    };
    KNOWN_SERVICES.iter().filter_map(|service| Some((service, sign(service)?))).collect()
}

/// Does a process with this name run?
pub fn pid_of(root: &SysRoot, name: &str) -> Option<u32> {
    list_processes(root).into_iter().find(|(_, process)| process == name).map(|(process, _)| process)
}

/// Every process and its name.
fn list_processes(root: &SysRoot) -> Vec<(u32, String)> {
    let numbers = root.list_dir("/proc").unwrap_or_default().into_iter().filter_map(|name| name.parse().ok());
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
    fn owner_is_found_by_chain_prefix() {
        assert_eq!(owner_of_chain("DOCKER-USER"), Some("Docker"));
        assert_eq!(owner_of_chain("KUBE-SVC-ABC"), Some("kube-proxy"));
        assert_eq!(owner_of_chain("INPUT"), None);
    }

    #[test]
    fn running_services_by_process_and_socket() {
        let there = tempfile::tempdir().unwrap();
        let root = SysRoot::at(there.path());
        assert!(running_services(&root).is_empty());
        fs::create_dir_all(there.path().join("proc/41")).unwrap();
        fs::write(there.path().join("proc/41/comm"), "kube-proxy\n").unwrap();
        fs::create_dir_all(there.path().join("run")).unwrap();
        fs::write(there.path().join("run/docker.sock"), "").unwrap();
        let found: Vec<(&str, ServiceEvidence)> =
            running_services(&root).into_iter().map(|(service, sign)| (service.name, sign)).collect();
        assert_eq!(
            found,
            [("Docker", ServiceEvidence::Socket("/run/docker.sock")), ("kube-proxy", ServiceEvidence::Process(41))]
        );
        assert_eq!((pid_of(&root, "kube-proxy"), pid_of(&root, "kube")), (Some(41), None));
    }
}
