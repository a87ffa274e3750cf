//! Behaviour observed on Linux 6.18 with FTP expectations (`docs/kernel-facts/ftp-and-expectations.md`), and invariants for all.
use super::*;
use core::net::Ipv4Addr;
use proptest::prelude::*;

const FTP: ExpectLimits = ExpectLimits { max_per_class: 1, max_total: 4096 };
const EXACT: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

fn master(slot: u32) -> ConnId {
    ConnId { slot, generation: 7 }
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn tuple(source: u8, source_key: u16, destination_key: u16) -> Tuple {
    Tuple { source: address(source), destination: address(200), protocol: 6, source_key, destination_key }
}

/// An expectation as FTP creates it: any source port of one address.
fn expectation(slot: u32, port: u16) -> Expectation {
    Expectation {
        master: master(slot),
        tuple: tuple(1, 0, port),
        mask: ExpectMask { source: EXACT, source_key: 0 },
        zone: 0,
        class: 0,
        helper: Some(Helper::Ftp),
        flags: ExpectFlags::default(),
        nat: None,
        deadline: Instant::from_secs(300),
    }
}

fn empty() -> ExpectationTable {
    ExpectationTable::new(SipKey::new(1, 2))
}

const NOW: Instant = Instant::from_secs(1);

#[test]
fn found_once_by_any_source_port() {
    let mut all = empty();
    assert_eq!(all.expect_related(expectation(1, 2000), FTP, NOW), Ok(None));
    assert_eq!(all.find_expectation(&tuple(1, 20, 2001), 0, NOW), None, "another port");
    assert_eq!(all.find_expectation(&tuple(2, 20, 2000), 0, NOW), None, "another source");
    assert_eq!(all.find_expectation(&Tuple { protocol: 17, ..tuple(1, 20, 2000) }, 0, NOW), None, "another protocol");
    assert_eq!(all.find_expectation(&tuple(1, 20, 2000), 5, NOW), None, "another zone");
    assert_eq!(all.find_expectation(&tuple(1, 20, 2000), 0, NOW).map(|found| found.master), Some(master(1)));
    assert_eq!(all.find_expectation(&tuple(1, 20, 2000), 0, NOW), None, "used up");
}

#[test]
fn permanent_stays_and_inactive_is_not_found() {
    let mut all = empty();
    let permanent = Expectation { flags: ExpectFlags(ExpectFlags::PERMANENT), ..expectation(1, 2000) };
    let inactive =
        Expectation { flags: ExpectFlags(ExpectFlags::INACTIVE | ExpectFlags::USERSPACE), ..expectation(2, 2001) };
    assert!(all.expect_related(permanent, FTP, NOW).is_ok() && all.expect_related(inactive, FTP, NOW).is_ok());
    assert!(
        all.find_expectation(&tuple(1, 20, 2000), 0, NOW).is_some()
            && all.find_expectation(&tuple(1, 21, 2000), 0, NOW).is_some()
    );
    assert_eq!(all.find_expectation(&tuple(1, 20, 2001), 0, NOW), None);
}

#[test]
fn new_expectation_evicts_oldest_of_its_class() {
    let mut all = empty();
    assert!(all.expect_related(expectation(1, 2000), FTP, NOW).is_ok());
    assert_eq!(all.expect_related(expectation(1, 2001), FTP, NOW), Ok(Some(expectation(1, 2000))));
    assert_eq!(all.find_expectation(&tuple(1, 20, 2000), 0, NOW), None);
    assert!(all.find_expectation(&tuple(1, 20, 2001), 0, NOW).is_some());
}

#[test]
fn same_expectation_again_refreshes_the_timeout() {
    let mut all = empty();
    let later = Expectation { deadline: Instant::from_secs(302), ..expectation(1, 2000) };
    assert!(all.expect_related(expectation(1, 2000), FTP, NOW).is_ok());
    assert_eq!(all.expect_related(later, FTP, NOW), Ok(Some(expectation(1, 2000))));
    assert!(all.find_expectation(&tuple(1, 20, 2000), 0, Instant::from_secs(301)).is_some());
}

#[test]
fn overlapping_expectation_of_another_master_clashes() {
    let mut all = empty();
    assert!(all.expect_related(expectation(1, 2000), FTP, NOW).is_ok());
    assert_eq!(all.expect_related(expectation(2, 2000), FTP, NOW), Err(ExpectError::Clash));
    let other_zone = Expectation { zone: 3, ..expectation(2, 2000) };
    assert_eq!(all.expect_related(other_zone, FTP, NOW), Ok(None));
    let after = Instant::from_secs(300);
    let free_again = Expectation { deadline: Instant::from_secs(600), ..expectation(4, 2000) };
    assert_eq!(all.expect_related(free_again, FTP, after), Ok(None), "its time is over");
}

#[test]
fn never_more_than_the_limit() {
    let mut all = empty();
    let two = ExpectLimits { max_total: 2, ..FTP };
    assert!(
        all.expect_related(expectation(1, 2001), two, NOW).is_ok()
            && all.expect_related(expectation(2, 2002), two, NOW).is_ok()
    );
    assert_eq!(all.expect_related(expectation(3, 2003), two, NOW), Err(ExpectError::Full));
    assert_eq!(
        all.expect_related(expectation(2, 2004), two, NOW),
        Ok(Some(expectation(2, 2002))),
        "in the place of its own"
    );
    assert_eq!(all.len(), 2);
}

#[test]
fn removed_with_master_and_on_timeout() {
    let mut all = empty();
    assert!(
        all.expect_related(expectation(1, 2001), FTP, NOW).is_ok()
            && all.expect_related(expectation(2, 2002), FTP, NOW).is_ok()
    );
    assert_eq!(all.remove_master(master(1)), [expectation(1, 2001)]);
    assert_eq!(all.remove_master(master(1)), []);
    assert_eq!(all.find_expectation(&tuple(1, 20, 2002), 0, Instant::from_secs(300)), None);
    assert_eq!(all.next_deadline(), Some(Instant::from_secs(300)));
    assert_eq!(all.remove_expired(Instant::from_secs(299), 10), 0);
    assert_eq!(all.remove_expired(Instant::from_secs(300), 10), 1);
    assert_eq!(all.next_deadline(), None);
    assert_eq!(all.len(), 0);
}

#[test]
fn remove_expired_honours_its_limit() {
    let mut all = empty();
    for slot in 0..5 {
        assert!(all.expect_related(expectation(slot, 2000 + slot as u16), FTP, NOW).is_ok());
    }
    assert_eq!(all.remove_expired(Instant::from_secs(300), 3), 3);
    assert_eq!(all.remove_expired(Instant::from_secs(300), 3), 2);
    assert!(all.check().is_ok());
}

proptest! {
    /// In lock step with a plain list: both find the same expectation, and all maps stay consistent.
    #[test]
    fn behaves_like_a_plain_list(steps in prop::collection::vec((0u8..5, 0u32..4, 0u16..4, 0u8..2, 0u64..6), 1..60)) {
        let limits = ExpectLimits { max_per_class: 2, max_total: 5 };
        let (mut all, mut list) = (empty(), Vec::<Expectation>::new());
        let mut now = 0;
        for (what, slot, port, class, wait) in steps {
            now += wait;
            let at = Instant::from_secs(now);
            match what {
                0 | 1 => {
                    let fresh = Expectation { class, deadline: Instant::from_secs(now + 10), ..expectation(slot, port) };
                    list.retain(|known| known.tuple != fresh.tuple || known.deadline > at);
                    let clash = list.iter().any(|known| known.tuple == fresh.tuple && !known.is_same(&fresh));
                    let mine = |known: &Expectation| known.master == fresh.master && known.class == class;
                    if !clash {
                        if list.iter().any(|known| known.is_same(&fresh)) {
                            list.retain(|known| !known.is_same(&fresh));
                        } else if list.iter().filter(|known| mine(known)).count() >= limits.max_per_class {
                            let oldest = list.iter().position(mine).unwrap();
                            list.remove(oldest);
                        }
                    }
                    let full = !clash && list.len() >= limits.max_total;
                    if !clash && !full {
                        list.push(fresh);
                    }
                    let refused = all.expect_related(fresh, limits, at).err();
                    prop_assert_eq!(refused, if clash { Some(ExpectError::Clash) } else { full.then_some(ExpectError::Full) });
                }
                2 => {
                    let wanted = tuple(1, 20, port);
                    let index = list.iter().position(|known| known.matches(&wanted, 0, at) && known.tuple.destination_key == port);
                    prop_assert_eq!(all.find_expectation(&wanted, 0, at), index.map(|index| list.remove(index)));
                }
                3 => {
                    let expired = list.iter().filter(|known| known.deadline <= at).count();
                    prop_assert_eq!(all.remove_expired(at, usize::MAX), expired);
                    list.retain(|known| known.deadline > at);
                }
                _ => {
                    let removed = all.remove_master(master(slot)).len();
                    prop_assert_eq!(removed, list.iter().filter(|known| known.master == master(slot)).count());
                    list.retain(|known| known.master != master(slot));
                }
            }
            prop_assert_eq!(all.len(), list.len());
            prop_assert_eq!(all.iter().count(), list.len());
            prop_assert_eq!(all.next_deadline(), list.iter().map(|known| known.deadline).min());
            prop_assert_eq!(all.check(), Ok(()));
        }
    }
}
