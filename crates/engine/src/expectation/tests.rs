//! What Linux 6.18 was seen to do with FTP's expectations (`docs/kernel-facts/ftp-and-expectations.md`), and what must hold for all.
use super::*;
use core::net::Ipv4Addr;
use proptest::prelude::*;

const FTP: Limits = Limits { of_class: 1, in_all: 4096 };
const EXACT: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

fn master(slot: u32) -> Handle {
    Handle { slot, stamp: 7 }
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn tuple(source: u8, source_key: u16, destination_key: u16) -> Tuple {
    Tuple { source: address(source), destination: address(200), protocol: 6, source_key, destination_key }
}

/// As FTP expects: any source port of one address.
fn announced(slot: u32, port: u16) -> Expected {
    Expected {
        master: master(slot),
        tuple: tuple(1, 0, port),
        mask: Mask { source: EXACT, source_key: 0 },
        zone: 0,
        class: 0,
        helper: Helper::Ftp,
        flags: Flags::default(),
        follow: None,
        deadline: Instant::from_secs(300),
    }
}

fn none() -> Expectations {
    Expectations::new((1, 2))
}

const NOW: Instant = Instant::from_secs(1);

#[test]
fn found_once_by_any_source_port() {
    let mut all = none();
    assert_eq!(all.expect(announced(1, 2000), FTP, NOW), Ok(None));
    assert_eq!(all.find(&tuple(1, 20, 2001), 0, NOW), None, "another port");
    assert_eq!(all.find(&tuple(2, 20, 2000), 0, NOW), None, "another source");
    assert_eq!(all.find(&Tuple { protocol: 17, ..tuple(1, 20, 2000) }, 0, NOW), None, "another protocol");
    assert_eq!(all.find(&tuple(1, 20, 2000), 5, NOW), None, "another zone");
    assert_eq!(all.find(&tuple(1, 20, 2000), 0, NOW).map(|found| found.master), Some(master(1)));
    assert_eq!(all.find(&tuple(1, 20, 2000), 0, NOW), None, "used up");
}

#[test]
fn permanent_stays_and_inactive_is_not_found() {
    let mut all = none();
    let permanent = Expected { flags: Flags(Flags::PERMANENT), ..announced(1, 2000) };
    let inactive = Expected { flags: Flags(Flags::INACTIVE | Flags::USERSPACE), ..announced(2, 2001) };
    assert!(all.expect(permanent, FTP, NOW).is_ok() && all.expect(inactive, FTP, NOW).is_ok());
    assert!(all.find(&tuple(1, 20, 2000), 0, NOW).is_some() && all.find(&tuple(1, 21, 2000), 0, NOW).is_some());
    assert_eq!(all.find(&tuple(1, 20, 2001), 0, NOW), None);
}

#[test]
fn a_second_of_the_class_pushes_out_the_first() {
    let mut all = none();
    assert!(all.expect(announced(1, 2000), FTP, NOW).is_ok());
    assert_eq!(all.expect(announced(1, 2001), FTP, NOW), Ok(Some(announced(1, 2000))));
    assert_eq!(all.find(&tuple(1, 20, 2000), 0, NOW), None);
    assert!(all.find(&tuple(1, 20, 2001), 0, NOW).is_some());
}

#[test]
fn announced_again_it_begins_anew() {
    let mut all = none();
    let later = Expected { deadline: Instant::from_secs(302), ..announced(1, 2000) };
    assert!(all.expect(announced(1, 2000), FTP, NOW).is_ok());
    assert_eq!(all.expect(later, FTP, NOW), Ok(Some(announced(1, 2000))));
    assert!(all.find(&tuple(1, 20, 2000), 0, Instant::from_secs(301)).is_some());
}

#[test]
fn another_master_may_not_expect_the_same() {
    let mut all = none();
    assert!(all.expect(announced(1, 2000), FTP, NOW).is_ok());
    assert_eq!(all.expect(announced(2, 2000), FTP, NOW), Err(Refused::Clash));
    let other_zone = Expected { zone: 3, ..announced(2, 2000) };
    assert_eq!(all.expect(other_zone, FTP, NOW), Ok(None));
    let after = Instant::from_secs(300);
    let free_again = Expected { deadline: Instant::from_secs(600), ..announced(4, 2000) };
    assert_eq!(all.expect(free_again, FTP, after), Ok(None), "its time is over");
}

#[test]
fn never_more_than_the_limit() {
    let mut all = none();
    let two = Limits { in_all: 2, ..FTP };
    assert!(all.expect(announced(1, 2001), two, NOW).is_ok() && all.expect(announced(2, 2002), two, NOW).is_ok());
    assert_eq!(all.expect(announced(3, 2003), two, NOW), Err(Refused::Full));
    assert_eq!(all.expect(announced(2, 2004), two, NOW), Ok(Some(announced(2, 2002))), "in the place of its own");
    assert_eq!(all.len(), 2);
}

#[test]
fn over_with_its_master_and_with_its_time() {
    let mut all = none();
    assert!(all.expect(announced(1, 2001), FTP, NOW).is_ok() && all.expect(announced(2, 2002), FTP, NOW).is_ok());
    assert_eq!(all.remove_master(master(1)), [announced(1, 2001)]);
    assert_eq!(all.remove_master(master(1)), []);
    assert_eq!(all.find(&tuple(1, 20, 2002), 0, Instant::from_secs(300)), None);
    assert_eq!(all.next_deadline(), Some(Instant::from_secs(300)));
    assert_eq!(all.remove_expired(Instant::from_secs(299), 10), 0);
    assert_eq!(all.remove_expired(Instant::from_secs(300), 10), 1);
    assert_eq!(all.next_deadline(), None);
    assert_eq!(all.len(), 0);
}

#[test]
fn no_more_expire_at_a_time_than_asked() {
    let mut all = none();
    for slot in 0..5 {
        assert!(all.expect(announced(slot, 2000 + slot as u16), FTP, NOW).is_ok());
    }
    assert_eq!(all.remove_expired(Instant::from_secs(300), 3), 3);
    assert_eq!(all.remove_expired(Instant::from_secs(300), 3), 2);
    assert!(all.check().is_ok());
}

proptest! {
    /// In step with a plain list: the same is found, and all maps agree on what there is.
    #[test]
    fn as_a_plain_list(steps in prop::collection::vec((0u8..5, 0u32..4, 0u16..4, 0u8..2, 0u64..6), 1..60)) {
        let limits = Limits { of_class: 2, in_all: 5 };
        let (mut all, mut list) = (none(), Vec::<Expected>::new());
        let mut now = 0;
        for (what, slot, port, class, wait) in steps {
            now += wait;
            let at = Instant::from_secs(now);
            match what {
                0 | 1 => {
                    let fresh = Expected { class, deadline: Instant::from_secs(now + 10), ..announced(slot, port) };
                    list.retain(|known| known.tuple != fresh.tuple || known.deadline > at);
                    let clash = list.iter().any(|known| known.tuple == fresh.tuple && !known.is_same(&fresh));
                    let mine = |known: &Expected| known.master == fresh.master && known.class == class;
                    if !clash {
                        if list.iter().any(|known| known.is_same(&fresh)) {
                            list.retain(|known| !known.is_same(&fresh));
                        } else if list.iter().filter(|known| mine(known)).count() >= limits.of_class {
                            let oldest = list.iter().position(mine).unwrap();
                            list.remove(oldest);
                        }
                    }
                    let full = !clash && list.len() >= limits.in_all;
                    if !clash && !full {
                        list.push(fresh);
                    }
                    let refused = all.expect(fresh, limits, at).err();
                    prop_assert_eq!(refused, if clash { Some(Refused::Clash) } else { full.then_some(Refused::Full) });
                }
                2 => {
                    let wanted = tuple(1, 20, port);
                    let index = list.iter().position(|known| known.matches(&wanted, 0, at) && known.tuple.destination_key == port);
                    prop_assert_eq!(all.find(&wanted, 0, at), index.map(|index| list.remove(index)));
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
