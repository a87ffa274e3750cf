//! Which interfaces have their known flows sent on at XDP, and why others have not.
use super::options::OffloadXdp;
use keepstate_linux::netdev::{self, XdpFeatureQuery, XdpFeatures};
use keepstate_linux::rtnetlink::RtLink;
use keepstate_linux::tc::TcHooks;
use std::collections::{BTreeMap, HashMap};

/// What was decided for each governed interface.
pub(super) struct XdpInterfaces {
    mode: OffloadXdp,
    decided: BTreeMap<u32, Result<(), String>>,
}

impl XdpInterfaces {
    pub(super) fn new(mode: OffloadXdp) -> XdpInterfaces {
        XdpInterfaces { mode, decided: BTreeMap::new() }
    }

    /// Attaches to the governed interfaces where it can be, and detaches from others. What was decided anew is said. Returns whether there is one.
    pub(super) fn follow(&mut self, selected: &[&RtLink], hooks: &mut TcHooks) -> bool {
        let before = hooks.attached_xdp();
        let gone = before.iter().filter(|index| !selected.iter().any(|link| link.index == **index));
        gone.for_each(|index| detach(hooks, *index));
        self.decided.retain(|index, _| selected.iter().any(|link| link.index == *index));
        let may_be = |link: &&RtLink| self.mode == OffloadXdp::Native || link.kind.is_empty();
        let asks = self.mode != OffloadXdp::Off && selected.iter().any(may_be);
        let features = if asks { read_features() } else { HashMap::new() };
        for link in selected {
            let of_link = features.get(&link.index).copied().unwrap_or_default();
            let has_it = before.contains(&link.index);
            let decision = self.decide(link, of_link, has_it, hooks);
            if decision.is_err() && has_it {
                detach(hooks, link.index);
            }
            if self.decided.get(&link.index) != Some(&decision) {
                self.say(link, &decision);
                self.decided.insert(link.index, decision);
            }
        }
        self.decided.values().any(Result::is_ok)
    }

    fn decide(&self, link: &RtLink, features: XdpFeatures, has_it: bool, hooks: &mut TcHooks) -> Result<(), String> {
        if let Some(why) = obstacle(self.mode, link, features) {
            return Err(why);
        }
        if link.has_xdp && !has_it {
            return Err("another XDP program is attached to it".to_owned());
        }
        let strips = netdev::strips_vlan_tags(&link.name).map_err(|error| error.to_string())?;
        if strips {
            return Err(format!(
                "its driver takes VLAN tags out of frames before XDP sees them; to change that type: ethtool -K {} rxvlan off",
                link.name
            ));
        }
        hooks.attach_xdp(link.index, link.mac.unwrap_or_default()).map_err(|error| format!("{error:#}"))
    }

    fn say(&self, link: &RtLink, decision: &Result<(), String>) {
        match decision {
            Ok(()) => tracing::info!("{}: packets of known flows are sent on at XDP", link.name),
            Err(why) if self.mode == OffloadXdp::Native => {
                tracing::warn!("{}: not at XDP, but at tc's hooks: {why}", link.name);
            }
            Err(why) if self.mode == OffloadXdp::Auto && link.kind.is_empty() => {
                tracing::info!("{}: not at XDP, but at tc's hooks: {why}", link.name);
            }
            Err(why) => tracing::debug!("{}: not at XDP, but at tc's hooks: {why}", link.name),
        }
    }
}

/// What the drivers can do; nothing where the kernel does not tell.
fn read_features() -> HashMap<u32, XdpFeatures> {
    let read = XdpFeatureQuery::open().and_then(|mut query| query.read());
    read.unwrap_or_else(|error| {
        tracing::debug!("what drivers can do with XDP is not known: {error}");
        HashMap::new()
    })
}

/// Why packets that come in by an interface are not sent on at XDP; `None` if nothing is in the way that can be told without trying.
fn obstacle(mode: OffloadXdp, link: &RtLink, features: XdpFeatures) -> Option<String> {
    match mode {
        OffloadXdp::Off => return Some("--offload-xdp off".to_owned()),
        // A veth pair copies there what it passes on otherwise, and its other end makes no segments of many packets for it.
        OffloadXdp::Auto if !link.kind.is_empty() => {
            return Some(format!("it is a software interface ({}), which tc's hooks serve better", link.kind));
        }
        OffloadXdp::Auto | OffloadXdp::Native => (),
    }
    if !features.is_native() {
        return Some("its driver has no native XDP".to_owned());
    }
    link.mac.is_none().then(|| "it has no MAC address".to_owned())
}

/// May frames that XDP programs redirect leave by an interface? They pass no queueing discipline: one that shapes or schedules would be circumvented.
pub(super) fn may_leave_by(link: &RtLink, features: XdpFeatures) -> bool {
    const PLAIN: [&str; 6] = ["noqueue", "pfifo_fast", "mq", "fq_codel", "fq", "pfifo"];
    link.is_up && link.has_carrier && features.sends_frames() && PLAIN.contains(&link.qdisc.as_str())
}

fn detach(hooks: &mut TcHooks, ifindex: u32) {
    if let Err(error) = hooks.detach_xdp(ifindex) {
        tracing::error!("interface {ifindex}: {error:#}");
    }
}
