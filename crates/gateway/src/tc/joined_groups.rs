//! Which multicast packets the machine takes: Linux drops those to a group that nobody has joined where they come in, before its input chains see them.
//!
//! Nobody is told when a group is joined, so the kernel's list is read: again when a packet's group is not in it, and once a second otherwise. A list whose reading takes long is read less often.
use keepstate_linux::multicast_groups::MulticastGroups;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Reading takes at most this part of the time: what a flood to groups that nobody has joined costs.
const MAX_SHARE: u32 = 100;
/// And no list is read again earlier.
const MIN_AGE: Duration = Duration::from_millis(1);
/// So long a group that was left is still taken for joined: the kernel drops its packets by itself.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Where a group is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// At the interface, or that cannot be said.
    Here,
    /// At other interfaces.
    Elsewhere,
    Nowhere,
}

/// The lists of both families.
pub(super) struct JoinedGroups([JoinedList; 2]);

struct JoinedList {
    source: MulticastGroups,
    /// By group, then by index. `None` if the list says nothing.
    groups: Option<BTreeSet<(IpAddr, u32)>>,
    read_at: Option<Instant>,
    /// How old it must be before it is read again for a group that is not in it.
    min_age: Duration,
}

impl JoinedGroups {
    /// Of this thread's network namespace.
    pub(super) fn open() -> JoinedGroups {
        JoinedGroups([MulticastGroups::open_v4(), MulticastGroups::open_v6()].map(|source| JoinedList {
            source,
            groups: None,
            read_at: None,
            min_age: MIN_AGE,
        }))
    }

    /// Where a group is joined, for a packet that came in by this interface.
    pub(super) fn find(&mut self, group: IpAddr, iif: u32) -> Joined {
        let [v4, v6] = &mut self.0;
        let list = if group.is_ipv4() { v4 } else { v6 };
        let age = list.read_at.map(|read_at| read_at.elapsed());
        let is_due = |age| age >= MAX_AGE || age >= list.min_age && list.joined(group, iif) != Joined::Here;
        if age.is_none_or(is_due) {
            list.read();
        }
        list.joined(group, iif)
    }
}

impl JoinedList {
    fn read(&mut self) {
        let start = Instant::now();
        self.groups = self.source.read().map(|all| all.into_iter().map(|(index, group)| (group, index)).collect());
        self.min_age = (start.elapsed() * MAX_SHARE).clamp(MIN_AGE, MAX_AGE);
        self.read_at = Some(Instant::now());
    }

    fn joined(&self, group: IpAddr, iif: u32) -> Joined {
        let Some(groups) = &self.groups else { return Joined::Here };
        if groups.contains(&(group, iif)) {
            return Joined::Here;
        }
        let is_anywhere = groups.range((group, 0)..=(group, u32::MAX)).next().is_some();
        if is_anywhere { Joined::Elsewhere } else { Joined::Nowhere }
    }
}
