//! The kernel's routes, asked for each new flow: which way it would send a packet, by policy rules, tables, several ways, VRFs, nexthop objects.
//!
//! Answers are kept until anything changes that may change one: [`RoutingState`] says so before the router hears of the change.
use super::ipsec;
use super::joined_groups::{Joined, JoinedGroups};
use keepstate_linux::rtnetlink::{RtMessage, RtRouteAnswer, RtRouteQuery, RtRouteSocket};
use keepstate_linux::xfrm::XfrmPolicy;
use keepstate_router::{DropReason, RouteAnswer, RouteOracle, RouteQuery};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the kernel would not forward.
#[derive(Clone, Debug, Default)]
pub(super) struct NotForwarding {
    /// The interfaces whose packets of IPv4 it would not.
    pub(super) of_v4: BTreeSet<u32>,
    /// Whether it would forward nothing of IPv6.
    pub(super) v6: bool,
}

/// What the thread that follows the kernel has seen of its routing.
#[derive(Debug, Default)]
pub(super) struct RoutingState {
    /// Raised by every change that an answer may depend on.
    generation: AtomicU64,
    not_forwarding: Mutex<NotForwarding>,
    /// The IPsec policies that concern what is forwarded, and how often they have changed.
    ipsec: Mutex<Arc<[XfrmPolicy]>>,
    ipsec_changes: AtomicU64,
    /// Whether a rule or a route has asked for the type of service; once seen, it stays.
    by_tos: AtomicBool,
    /// Whether flows between two addresses may have had different ways, by a rule or since a route had several; once seen, it stays.
    by_flow: AtomicBool,
}

impl RoutingState {
    /// Takes note of what the kernel tells.
    pub(super) fn observe(&self, message: &RtMessage) {
        match message {
            RtMessage::Neighbour(_) | RtMessage::Other => return,
            RtMessage::RoutingChanged(by) => {
                self.by_tos.fetch_or(by.tos, Ordering::Release);
                self.by_flow.fetch_or(by.flow, Ordering::Release);
            }
            RtMessage::Route(route, _) => _ = self.by_flow.fetch_or(route.has_several_ways, Ordering::Release),
            RtMessage::Forwards(ifindex, forwards) => {
                let mut not_forwarding = self.not_forwarding.lock().unwrap_or_else(PoisonError::into_inner);
                if *forwards {
                    not_forwarding.of_v4.remove(ifindex)
                } else {
                    not_forwarding.of_v4.insert(*ifindex)
                };
            }
            RtMessage::ForwardsV6(forwards) => {
                self.not_forwarding.lock().unwrap_or_else(PoisonError::into_inner).v6 = !forwards;
            }
            _ => (),
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// These are the IPsec policies from now on.
    pub(super) fn set_ipsec(&self, policies: Vec<XfrmPolicy>) {
        let mut known = self.ipsec.lock().unwrap_or_else(PoisonError::into_inner);
        if known[..] == policies[..] {
            return;
        }
        if known.is_empty() {
            tracing::warn!(
                "there are IPsec policies: what is forwarded, and one of them blocks or would encrypt, is dropped. \
                 For tunnels of this machine put the gateway behind netfilter: --queue"
            );
        }
        // They go by ports.
        self.by_flow.store(true, Ordering::Release);
        *known = policies.into();
        self.generation.fetch_add(1, Ordering::Release);
        self.ipsec_changes.fetch_add(1, Ordering::Release);
    }

    /// How often the IPsec policies have changed.
    pub(super) fn ipsec_changes(&self) -> u64 {
        self.ipsec_changes.load(Ordering::Acquire)
    }

    /// What is not forwarded.
    pub(super) fn not_forwarding(&self) -> NotForwarding {
        self.not_forwarding.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asks, and remembers.
pub(super) struct KernelRoutes {
    socket: RtRouteSocket,
    state: Arc<RoutingState>,
    generation: u64,
    not_forwarding: NotForwarding,
    ipsec: Arc<[XfrmPolicy]>,
    known: HashMap<RouteQuery, Option<RouteAnswer>>,
    groups: JoinedGroups,
    /// The last question could not be asked.
    has_failed: bool,
}

/// Answers kept.
const MAX_KNOWN: usize = 65_536;

impl KernelRoutes {
    /// Opens the socket that asks, in this thread's network namespace.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(state: Arc<RoutingState>) -> io::Result<KernelRoutes> {
        Ok(KernelRoutes {
            socket: RtRouteSocket::open()?,
            state,
            generation: 0,
            not_forwarding: NotForwarding::default(),
            ipsec: Arc::default(),
            has_failed: false,
            known: HashMap::new(),
            groups: JoinedGroups::open(),
        })
    }
}

impl RouteOracle for KernelRoutes {
    fn ask(&mut self, query: &RouteQuery) -> Option<RouteAnswer> {
        self.follow_generation();
        let question = self.relevant_part(query);
        // Whether redirects are sent is a sysctl, whose changes nobody is told of.
        let is_lasting = |known: &Option<RouteAnswer>| !matches!(known, Some(RouteAnswer::Out { redirects: true, .. }));
        if let Some(known) = self.known.get(&question).copied().filter(is_lasting) {
            return known;
        }
        if query.destination.is_ipv4() && query.iif.is_some_and(|iif| self.not_forwarding.of_v4.contains(&iif)) {
            // The kernel would have no answer.
            return None;
        }
        match self.ask_kernel(query) {
            Ok(asked) => {
                let answer = match answer(query, asked) {
                    Some(RouteAnswer::Out { oif, .. }) if ipsec::stops(&self.ipsec, query, oif) => {
                        Some(RouteAnswer::Dropped(DropReason::IpsecPolicy))
                    }
                    answer => answer,
                };
                self.known.insert(question, answer);
                self.has_failed = false;
                answer
            }
            // Not kept, so that the next packet asks again; and no other table decides, since rules may send it elsewhere.
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::error!(
                        "the kernel cannot be asked for the route to {}, so its packets are dropped: {error}",
                        query.destination
                    );
                }
                Some(RouteAnswer::Dropped(DropReason::RouteUnknown))
            }
        }
    }

    fn forwards(&mut self, iif: u32, to: IpAddr) -> bool {
        self.follow_generation();
        if to.is_ipv4() { !self.not_forwarding.of_v4.contains(&iif) } else { !self.not_forwarding.v6 }
    }

    fn is_joined(&mut self, query: &RouteQuery) -> bool {
        match query.iif.map(|iif| self.groups.find(query.destination, iif)) {
            None | Some(Joined::Here) => true,
            // A VRF's groups are those of its interfaces too.
            Some(Joined::Elsewhere) if query.destination.is_ipv4() => {
                matches!(self.ask_kernel(query), Ok(Some(RtRouteAnswer::Group)))
            }
            Some(Joined::Elsewhere | Joined::Nowhere) => false,
        }
    }

    fn goes_by_tos(&self) -> bool {
        self.state.by_tos.load(Ordering::Acquire)
    }

    fn goes_by_flow(&self) -> bool {
        self.state.by_flow.load(Ordering::Acquire)
    }
}

impl KernelRoutes {
    /// Forgets what was true before a change.
    fn follow_generation(&mut self) {
        let generation = self.state.generation.load(Ordering::Acquire);
        if generation != self.generation || self.known.len() >= MAX_KNOWN {
            self.known.clear();
            self.not_forwarding = self.state.not_forwarding();
            self.ipsec = Arc::clone(&self.state.ipsec.lock().unwrap_or_else(PoisonError::into_inner));
            self.generation = generation;
        }
    }

    /// A question without what the answer does not depend on: so it is asked once for all connections between two addresses.
    fn relevant_part(&self, query: &RouteQuery) -> RouteQuery {
        let mut relevant = *query;
        if !self.goes_by_tos() {
            relevant.tos = 0;
        }
        if !self.goes_by_flow() {
            (relevant.protocol, relevant.ports, relevant.flow_label) = (0, (0, 0), 0);
        }
        relevant
    }

    /// Asks as the packet is; of what the machine itself sends in another's name (a reset, a handshake answered for a server), from an address that it does not have, again without its source: Linux lets
    /// such a packet leave (`ip_route_me_harder`), but refuses the question, with EINVAL or, newer kernels, with ENETUNREACH.
    fn ask_kernel(&mut self, query: &RouteQuery) -> io::Result<Option<RtRouteAnswer>> {
        let question = as_question(query);
        match self.socket.ask(&question)? {
            Some(RtRouteAnswer::Refused(libc::EINVAL | libc::ENETUNREACH)) if query.iif.is_none() => {
                self.socket.ask(&RtRouteQuery { source: None, ..question })
            }
            asked => Ok(asked),
        }
    }
}

fn as_question(query: &RouteQuery) -> RtRouteQuery {
    let RouteQuery { source, destination, iif, mark, tos, flow_label, protocol, ports } = *query;
    RtRouteQuery { source: Some(source), destination, iif, mark, tos, flow_label, protocol, ports }
}

/// What the kernel's answer means; `None` if it has said nothing that counts.
fn answer(query: &RouteQuery, asked: Option<RtRouteAnswer>) -> Option<RouteAnswer> {
    match asked? {
        RtRouteAnswer::Unicast { oif, gateway, mtu, redirects } => {
            Some(RouteAnswer::Out { oif, next_hop: gateway.unwrap_or(query.destination), mtu, redirects })
        }
        RtRouteAnswer::Local => Some(RouteAnswer::Host),
        RtRouteAnswer::Group => None,
        RtRouteAnswer::Refused(errno) => Some(RouteAnswer::Nowhere(icmp_error(query.destination, errno))),
    }
}

/// The ICMP error that Linux sends for this reason (`ip_error`, `ip6_pkt_drop`).
fn icmp_error(to: IpAddr, errno: i32) -> Option<(u8, u8)> {
    match (to, errno) {
        (IpAddr::V4(_), libc::ENETUNREACH) => Some((3, 0)),
        (IpAddr::V4(_), libc::EHOSTUNREACH) => Some((3, 1)),
        (IpAddr::V4(_), libc::EACCES) => Some((3, 13)),
        (IpAddr::V6(_), libc::ENETUNREACH | libc::EHOSTUNREACH) => Some((1, 0)),
        (IpAddr::V6(_), libc::EACCES) => Some((1, 1)),
        // A blackhole, or a source that may not come this way.
        _ => None,
    }
}
