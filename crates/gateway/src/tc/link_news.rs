//! The kernel's interfaces, as the thread that follows routes tells them to the driver.
use crate::kernel_fib;
use crate::route_follower::Seen;
use keepstate_linux::rtnetlink::{RtLink, RtMessage};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The interfaces as the thread that follows routes has seen them last.
#[derive(Default)]
pub(super) struct LinkNews {
    pub(super) links: BTreeMap<u32, RtLink>,
    pub(super) changed: bool,
}

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn observe_links(links: &Mutex<LinkNews>, seen: &Seen<'_>) {
    let mut news = lock(links);
    match seen {
        Seen::All(messages) => {
            news.links = kernel_fib::links(messages).into_iter().map(|link| (link.index, link.clone())).collect();
        }
        Seen::Change(RtMessage::Link(link)) => _ = news.links.insert(link.index, link.clone()),
        Seen::Change(RtMessage::LinkGone(index)) => _ = news.links.remove(index),
        Seen::Change(_) => return,
    }
    news.changed = true;
}
