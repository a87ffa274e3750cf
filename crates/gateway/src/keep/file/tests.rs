use super::*;

const THEN: Moment = Moment { boot: [1; 16], since_boot: 5_000, wall: 90_000 };

/// A file: a snapshot of one frame, then a journal of two.
fn written() -> (Vec<u8>, usize) {
    let mut octets = begin(&THEN).to_vec();
    let mut writing = Writing::default();
    let at = |more: u64| Moment { since_boot: THEN.since_boot + more, wall: THEN.wall + more, ..THEN };
    writing.put(7, |out| out.extend(b"seven"));
    writing.put(9, |out| out.extend(b"nine"));
    writing.whole();
    octets.extend(writing.close(&at(10)));
    let journal = octets.len();
    writing.clear();
    writing.gone(7);
    writing.put(2, |out| out.extend(b"two"));
    octets.extend(writing.close(&at(20)));
    writing.clear();
    writing.put(9, |out| out.extend(b"nine again"));
    octets.extend(writing.close(&at(30)));
    (octets, journal)
}

fn held(octets: &[u8]) -> Result<Vec<String>, Refusal> {
    let image = Image::read(octets)?;
    Ok(image.descriptions().map(|one| String::from_utf8_lossy(one).into_owned()).collect())
}

#[test]
fn the_last_word_on_each_place_counts() {
    let (octets, _) = written();
    assert_eq!(held(&octets), Ok(vec!["two".into(), "nine again".into()]));
    let image = Image::read(&octets).unwrap();
    assert_eq!((image.died.since_boot, image.died.wall, image.cut, image.in_order), (5_030, 90_030, 0, false));
}

#[test]
fn every_end_is_a_file_or_is_none() {
    let (octets, journal) = written();
    for length in 0..octets.len() {
        let held = held(&octets[..length]);
        match length {
            0..8 => assert_eq!(held, Err(Refusal::Foreign), "{length}"),
            8..HEAD => assert_eq!(held, Err(Refusal::Damaged(0)), "{length}"),
            HEAD => assert_eq!(held, Err(Refusal::Unfinished)),
            _ if length < journal => assert_eq!(held, Err(Refusal::Damaged(HEAD)), "{length}"),
            _ => {
                // All that was written before the torn frame, and no more.
                let held = held.unwrap();
                let whole = [&["seven", "nine"][..], &["nine", "two"]]
                    .contains(&&held.iter().map(String::as_str).collect::<Vec<_>>()[..]);
                assert!(whole, "{length}: {held:?}");
            }
        }
    }
}

#[test]
fn every_changed_octet_is_found() {
    let (octets, journal) = written();
    for at in 0..octets.len() {
        let mut changed = octets.clone();
        changed[at] ^= 0x40;
        let held = held(&changed);
        match at {
            0..8 => assert_eq!(held, Err(Refusal::Foreign)),
            8..12 => assert!(matches!(held, Err(Refusal::Version(_)))),
            12..16 => assert!(matches!(held, Err(Refusal::Kind(_)))),
            16..BEAT => assert_eq!(held, Err(Refusal::Damaged(0)), "{at}"),
            // The beat is written in place: one that is torn is none.
            BEAT..HEAD => assert!(held.is_ok(), "{at}"),
            _ if at < journal => assert_eq!(held, Err(Refusal::Damaged(HEAD)), "{at}"),
            _ => assert!(Image::read(&changed).unwrap().cut > 0, "{at}"),
        }
    }
}

#[test]
fn a_beat_says_that_the_writer_still_lived() {
    let (mut octets, _) = written();
    let later = Moment { since_boot: 9_000, wall: 99_000, ..THEN };
    octets[BEAT..HEAD].copy_from_slice(&beat(&later, true));
    let image = Image::read(&octets).unwrap();
    assert_eq!((image.died, image.in_order), (later, true));
}

#[test]
fn time_between_is_told_by_the_clock_that_can_tell_it() {
    let second = 1_000_000_000;
    let died = Moment { boot: [1; 16], since_boot: 100 * second, wall: 5_000 * second };
    // Of one boot: whatever became of the wall clock.
    let set_back = Moment { since_boot: 130 * second, wall: 0, ..died };
    assert_eq!(died.until(&set_back), Gap::Sure(Duration::from_secs(30)));
    let rebooted = Moment { boot: [2; 16], since_boot: 9 * second, wall: 5_060 * second };
    assert_eq!(died.until(&rebooted), Gap::Rebooted(Duration::from_secs(60)));
    let lost = Moment { boot: [2; 16], since_boot: 9 * second, wall: 4_999 * second };
    assert_eq!((died.until(&lost), died.until(&lost).length()), (Gap::Unknown, Duration::ZERO));
}

#[test]
fn a_record_that_claims_more_than_there_is_takes_no_memory() {
    let mut octets = begin(&THEN).to_vec();
    octets.extend([0xff; 24]);
    assert_eq!(held(&octets), Err(Refusal::Damaged(HEAD)));
    let mut writing = Writing::default();
    writing.put(7, |out| out.extend(b"seven"));
    writing.whole();
    let mut frame = writing.close(&THEN).to_vec();
    frame[29..31].copy_from_slice(&u16::MAX.to_le_bytes());
    let check = crc32fast::hash(&frame[8..]).to_le_bytes();
    frame[4..8].copy_from_slice(&check);
    let octets = [&begin(&THEN)[..], &frame].concat();
    assert_eq!(held(&octets), Err(Refusal::Damaged(HEAD + 24)));
}
