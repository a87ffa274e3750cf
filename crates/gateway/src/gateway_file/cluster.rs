//! `[cluster]`: one of several gateways that share their table.
use super::given::{Given, SettingOrigin};
use super::shard_address::{ShardAddressText, TakeoverText};
use super::values::TextValue;
use crate::cluster::{AddressTakeoverConfig, ClusterConfig, ClusterServers, DEFAULT_LEASE, ShardConfig};
use crate::duration::parse_millis;
use anyhow::{Result, anyhow};
use keepstate_cluster::{Decider, EpochShare, InvalidName, NodeName, ShardName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// What a shard and a cluster are called, if nothing else is said.
const DEFAULT_CLUSTER: &str = "keepstate";
const DEFAULT_SHARD: &str = "main";
const DEFAULT_LEASE_TEXT: &str = "1s";
/// Where the epoch is kept, if nothing else is said.
const DEFAULT_DIRECTORY: &str = "/var/lib/keepstate";

/// One of several gateways that share their table over NATS.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ClusterSettings {
    /// The cluster's name, the same on all its gateways. Default: keepstate
    pub name: Option<Given<String>>,
    /// This gateway's name in the cluster, which no other has
    pub node: Option<Given<String>>,
    /// What the gateways share: the outside addresses that one of them has at a time. Default: main
    pub shard: Option<Given<String>>,
    /// The addresses and prefixes that belong to whoever is active: a standby drops packets to them in silence, even if its machine has them already: ["192.0.2.1", "198.51.100.0/26"]
    #[serde(alias = "addresses")]
    pub address: Option<Given<Vec<ShardAddressText>>>,
    /// Addresses of these that the gateway itself gives an interface while it is active, and tells the network of: ["192.0.2.1/24 dev eth0"]. Without it they are moved by keepalived, BGP or the like
    pub takeover: Option<Given<Vec<TakeoverText>>>,
    /// Several shards instead of one, each decided by one gateway at a time, so that all gateways work: [{ name = "north", address = ["192.0.2.1"] }, { name = "south", address = ["192.0.2.2"] }]
    pub shards: Option<Given<Vec<ShardEntry>>>,
    /// Who is active: the holder of a lease that is renewed within this time, "1s"; or whom keepalived or a person promotes, "manual". Default: 1s
    pub lease: Option<Given<LeaseText>>,
    /// With lease = "manual": all gateways of the cluster, the same list on all of them, so that no two that are promoted without hearing of each other ever give one port: ["gw1", "gw2"]
    pub nodes: Option<Given<Vec<String>>>,
    /// Several shards: a gateway that decides fewer takes one over from a gateway that decides two more, as a planned change, at most one in this time: "1m". Without it shards are shared out by keepstate control cluster --rebalance alone
    pub balance: Option<Given<BalanceText>>,
    /// The NATS servers: ["tls://nats1.example.net:4222", "tls://nats2.example.net:4222"]
    #[serde(alias = "server")]
    pub servers: Option<Given<Vec<String>>>,
    /// A credentials file of NATS (JWT and seed), as nsc writes it
    pub credentials: Option<Given<PathBuf>>,
    /// A file with the user of NATS on its first line and the password on its second
    #[serde(alias = "user_file")]
    pub user_file: Option<Given<PathBuf>>,
    /// Certificates of the authority that signs those of the servers (PEM); TLS is then required
    #[serde(alias = "ca_file")]
    pub ca_file: Option<Given<PathBuf>>,
    /// Our own certificate (PEM), for servers that ask for one
    pub certificate: Option<Given<PathBuf>>,
    /// Its key (PEM)
    pub key: Option<Given<PathBuf>>,
    /// The directory that the epochs are kept in. Default: /var/lib/keepstate
    pub directory: Option<Given<PathBuf>>,
}

/// One of several shards.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ShardEntry {
    /// Its name, the same on all gateways
    pub name: Given<String>,
    /// The addresses and prefixes that belong to whoever decides it, the same on all gateways: outside addresses of source NAT, addresses of services, and others that move with them
    #[serde(alias = "addresses")]
    pub address: Given<Vec<ShardAddressText>>,
}

fn ranges(given: &Given<Vec<ShardAddressText>>) -> Vec<RangeInclusive<IpAddr>> {
    given.value.iter().map(|one| one.value.0.clone()).collect()
}

/// Gateways of a cluster that are promoted by hand, at most.
const MAX_NODES: usize = 16;

/// Shards of a cluster, at most.
const MAX_SHARDS: usize = 64;

/// `1s`, `manual`.
pub type LeaseText = TextValue<LeaseSetting>;

/// Who says which gateway is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSetting(Decider);

impl FromStr for LeaseSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<LeaseSetting, String> {
        if text == "manual" {
            return Ok(LeaseSetting(Decider::Hand));
        }
        match parse_millis(text) {
            Ok(time @ 500..=60_000) => Ok(LeaseSetting(Decider::Lease(Duration::from_millis(time)))),
            Ok(_) => Err("a lease is 500ms to 60s: a shorter one is lost by every hiccup".into()),
            Err(_) => Err("write a time like \"1s\", or \"manual\"".into()),
        }
    }
}

/// `1m`.
pub type BalanceText = TextValue<BalanceSetting>;

/// The time between two moves of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalanceSetting(Duration);

impl FromStr for BalanceSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<BalanceSetting, String> {
        match parse_millis(text) {
            Ok(time @ 1_000..=86_400_000) => Ok(BalanceSetting(Duration::from_millis(time))),
            Ok(_) => Err("the time between two moves of shards is 1s to 24h".into()),
            Err(_) => Err("write the time between two moves of shards, like \"1m\"".into()),
        }
    }
}

impl ClusterSettings {
    /// What does not fit, and where; without a place it is about the whole table.
    pub fn faults(&self) -> Vec<(Option<SettingOrigin>, String)> {
        let mut faults = Vec::new();
        if self.node.is_none() {
            faults.push((None, "[cluster] needs node = \"NAME\": this gateway's name, which no other has".to_owned()));
        }
        if self.servers.as_ref().is_none_or(|servers| servers.value.is_empty()) {
            let origin = self.servers.as_ref().map(|given| given.origin.clone());
            faults.push((origin, "[cluster] needs servers = [\"nats://HOST:4222\"]".to_owned()));
        }
        for given in [&self.name, &self.node, &self.shard].into_iter().flatten() {
            if let Err(error) = given.value.parse::<NodeName>() {
                faults.push((Some(given.origin.clone()), error.to_string()));
            }
        }
        self.shard_faults(&mut faults);
        self.balance_faults(&mut faults);
        self.nodes_faults(&mut faults);
        self.takeover_faults(&mut faults);
        for (one, other, names) in [
            (&self.certificate, &self.key, ("certificate", "key")),
            (&self.key, &self.certificate, ("key", "certificate")),
        ] {
            if let (Some(given), None) = (one, other) {
                faults.push((Some(given.origin.clone()), format!("{} needs {}: give both files", names.0, names.1)));
            }
        }
        if let (Some(_), Some(user)) = (&self.credentials, &self.user_file) {
            faults.push((
                Some(user.origin.clone()),
                "credentials and user-file: the server knows us by one of them; leave the other out".to_owned(),
            ));
        }
        faults
    }

    /// What does not fit of several shards.
    fn shard_faults(&self, faults: &mut Vec<(Option<SettingOrigin>, String)>) {
        let Some(shards) = &self.shards else { return };
        let mut add = |origin: &SettingOrigin, message: String| faults.push((Some(origin.clone()), message));
        let is_said = |origin: &SettingOrigin| !matches!(origin, SettingOrigin::Default);
        if let Some(shard) = self.shard.as_ref().filter(|given| is_said(&given.origin)) {
            add(&shard.origin, "shard and shards: leave shard out, each of the shards has its name".into());
        }
        if let Some(address) = self.address.as_ref().filter(|given| is_said(&given.origin)) {
            add(&address.origin, "address and shards: leave address out, each of the shards has its own".into());
        }
        if !(1..=MAX_SHARDS).contains(&shards.value.len()) {
            add(&shards.origin, format!("1 to {MAX_SHARDS} shards, not {}", shards.value.len()));
        }
        let (mut names, mut addresses) = (BTreeSet::new(), Vec::<&ShardAddressText>::new());
        for ShardEntry { name, address } in &shards.value {
            if let Err(error) = name.value.parse::<ShardName>() {
                add(&name.origin, error.to_string());
            }
            if !names.insert(&name.value) {
                add(&name.origin, format!("{:?}: two shards of this name", name.value));
            }
            if address.value.is_empty() {
                add(
                    &address.origin,
                    format!("shard {:?} has no address: its connections are known by them", name.value),
                );
            }
            for one in &address.value {
                if one.value.is_unusable() {
                    add(&address.origin, format!("{one} is no address that a gateway can have for others"));
                } else if let Some(other) = addresses.iter().find(|other| other.value.overlaps(&one.value)) {
                    let also = if *other == one { String::new() } else { format!(" (in {other})") };
                    add(&address.origin, format!("{one} stands twice{also}: an address belongs to one shard"));
                } else {
                    addresses.push(one);
                }
            }
        }
    }

    /// A balance without shards to move, or where somebody else decides.
    fn balance_faults(&self, faults: &mut Vec<(Option<SettingOrigin>, String)>) {
        let Some(balance) = &self.balance else { return };
        if self.shards.as_ref().is_none_or(|shards| shards.value.len() < 2) {
            faults.push((Some(balance.origin.clone()), "balance: there is one shard; leave balance out".into()));
        }
        if self.lease.as_ref().is_some_and(|lease| lease.value.value.0 == Decider::Hand) {
            let message = "balance and lease = \"manual\": who decides each shard is chosen by promote and demote; leave balance out";
            faults.push((Some(balance.origin.clone()), message.into()));
        }
    }

    /// The shard of an address that the gateway moves.
    fn shard_of(&self, address: IpAddr) -> Option<usize> {
        let has = |given: &Given<Vec<ShardAddressText>>| given.value.iter().any(|one| one.value.contains(address));
        match &self.shards {
            Some(shards) => shards.value.iter().position(|shard| has(&shard.address)),
            None => self.address.as_ref().filter(|given| has(given)).map(|_| 0),
        }
    }

    /// An address to be moved that no shard has, or that stands twice.
    fn takeover_faults(&self, faults: &mut Vec<(Option<SettingOrigin>, String)>) {
        let Some(takeover) = &self.takeover else { return };
        let mut seen = BTreeSet::new();
        for one in &takeover.value {
            let address = one.value.address;
            if self.shard_of(address).is_none() {
                let message = format!(
                    "takeover: {address} belongs to no shard: write it into address too, so that a standby is silent about it"
                );
                faults.push((Some(takeover.origin.clone()), message));
            }
            if !seen.insert((address, &one.value.interface)) {
                faults.push((Some(takeover.origin.clone()), format!("takeover: {one} stands twice")));
            }
        }
    }

    fn takeover_config(&self) -> Vec<AddressTakeoverConfig> {
        let all = self.takeover.iter().flat_map(|takeover| &takeover.value);
        let config = |one: &TakeoverText| {
            let (address, length, interface) = (one.value.address, one.value.length, one.value.interface.clone());
            self.shard_of(address).map(|shard| AddressTakeoverConfig { address, length, interface, shard })
        };
        all.filter_map(config).collect()
    }

    /// A list of gateways that nobody can find this one in.
    fn nodes_faults(&self, faults: &mut Vec<(Option<SettingOrigin>, String)>) {
        let Some(nodes) = &self.nodes else { return };
        let mut add = |message: String| faults.push((Some(nodes.origin.clone()), message));
        if self.lease.as_ref().is_none_or(|lease| lease.value.value.0 != Decider::Hand) {
            add("nodes is for lease = \"manual\": with a lease its store says who decides; leave nodes out".into());
        }
        let names: BTreeSet<&String> = nodes.value.iter().collect();
        if names.len() < nodes.value.len() {
            add("nodes: a name stands twice".into());
        }
        if !(1..=MAX_NODES).contains(&nodes.value.len()) {
            add(format!("nodes: 1 to {MAX_NODES} gateways, not {}", nodes.value.len()));
        }
        if let Some(error) = nodes.value.iter().find_map(|name| name.parse::<NodeName>().err()) {
            add(error.to_string());
        }
        if let Some(node) = self.node.as_ref().filter(|node| !names.contains(&node.value)) {
            add(format!("nodes does not have this gateway, {:?}: list all gateways of the cluster", node.value));
        }
    }

    /// This gateway's place in the list of all, which is sorted: the same list in another order is the same.
    fn epoch_share(&self) -> Option<EpochShare> {
        let names: BTreeSet<&String> = self.nodes.iter().flat_map(|nodes| &nodes.value).collect();
        let place = names.iter().position(|name| self.node.as_ref().is_some_and(|node| node.value == **name))?;
        EpochShare::new(u16::try_from(place).ok()?, u16::try_from(names.len()).ok()?)
    }

    /// What holds if nobody says anything.
    pub(super) fn add_defaults(&mut self) {
        fn add<T>(key: &mut Option<Given<T>>, value: Option<T>) {
            if key.is_none() {
                *key = value.map(Given::by_default);
            }
        }
        add(&mut self.name, Some(DEFAULT_CLUSTER.into()));
        let one_shard = self.shards.is_none().then(|| DEFAULT_SHARD.into());
        add(&mut self.shard, one_shard);
        add(&mut self.lease, DEFAULT_LEASE_TEXT.parse().ok());
        add(&mut self.directory, Some(DEFAULT_DIRECTORY.into()));
    }

    /// The addresses of several shards, to one of which source NAT must go.
    pub fn divided_addresses(&self) -> Option<Vec<RangeInclusive<IpAddr>>> {
        let shards = self.shards.as_ref().filter(|given| given.value.len() > 1)?;
        Some(shards.value.iter().flat_map(|shard| ranges(&shard.address)).collect())
    }

    /// A file that cannot be read.
    pub(super) fn missing_file(&self) -> Option<String> {
        let files = self.files().filter_map(|given| {
            let error = std::fs::File::open(&given.value).err()?;
            Some(format!("{} cannot be read: {error}", given.value.display()))
        });
        files.into_iter().next()
    }

    fn files(&self) -> impl Iterator<Item = &Given<PathBuf>> {
        [&self.credentials, &self.user_file, &self.ca_file, &self.certificate, &self.key].into_iter().flatten()
    }

    /// Relative paths are relative to this folder: that of the file.
    pub fn resolve_paths(&mut self, folder: &Path) {
        let paths = [
            &mut self.credentials,
            &mut self.user_file,
            &mut self.ca_file,
            &mut self.certificate,
            &mut self.key,
            &mut self.directory,
        ];
        for given in paths.into_iter().flatten() {
            given.value = folder.join(&given.value);
        }
    }

    /// As the gateway takes it; what carries its frames is the program's to add.
    ///
    /// # Errors
    /// A name that is none.
    pub fn config(&self) -> Result<ClusterConfig> {
        let text = |given: &Option<Given<String>>, default: &str| {
            given.as_ref().map_or_else(|| default.to_owned(), |given| given.value.clone())
        };
        let path = |given: &Option<Given<PathBuf>>| given.as_ref().map(|given| given.value.clone());
        let wrong = |error: InvalidName| anyhow!("[cluster]: {error}");
        let mut shards = self.shards.iter().flat_map(|given| &given.value).map(|entry| {
            let name = entry.name.value.parse::<ShardName>().map_err(wrong)?;
            Ok(ShardConfig { name, addresses: ranges(&entry.address) })
        });
        let first_shard = match shards.next() {
            Some(first) => first?,
            None => ShardConfig {
                name: text(&self.shard, DEFAULT_SHARD).parse::<ShardName>().map_err(wrong)?,
                addresses: self.address.as_ref().map(ranges).unwrap_or_default(),
            },
        };
        let other_shards = shards.collect::<Result<Vec<ShardConfig>>>()?;
        let nodes: BTreeSet<&String> = self.nodes.iter().flat_map(|nodes| &nodes.value).collect();
        let nodes = nodes.into_iter().map(|name| name.parse().map_err(wrong)).collect::<Result<Vec<NodeName>>>()?;
        Ok(ClusterConfig {
            cluster: text(&self.name, DEFAULT_CLUSTER).parse::<NodeName>().map_err(wrong)?,
            node: text(&self.node, "").parse::<NodeName>().map_err(wrong)?,
            first_shard,
            other_shards,
            decider: self.lease.as_ref().map_or(Decider::Lease(DEFAULT_LEASE), |given| given.value.value.0),
            epoch_share: self.epoch_share().unwrap_or_default(),
            nodes,
            takeover: self.takeover_config(),
            balance: self.balance.as_ref().map(|given| given.value.value.0),
            directory: path(&self.directory).unwrap_or_else(|| DEFAULT_DIRECTORY.into()),
            servers: ClusterServers {
                addresses: self.servers.as_ref().map(|given| given.value.clone()).unwrap_or_default(),
                credentials: path(&self.credentials),
                user_file: path(&self.user_file),
                ca_file: path(&self.ca_file),
                certificate: path(&self.certificate),
                key: path(&self.key),
            },
            transport: None,
        })
    }
}
