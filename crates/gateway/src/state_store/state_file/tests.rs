use super::*;

const START: ClockPair = ClockPair { boot: [1; 16], since_boot: 5_000, wall: 90_000 };

/// A file: a snapshot of one frame, then a journal of two.
fn sample_file() -> (Vec<u8>, usize) {
    let mut octets = new_header(&START).to_vec();
    let mut writing = FrameWriter::default();
    let at = |more: u64| ClockPair { since_boot: START.since_boot + more, wall: START.wall + more, ..START };
    writing.put(7, |out| out.extend(b"seven"));
    writing.put(9, |out| out.extend(b"nine"));
    writing.end_snapshot();
    octets.extend(writing.finish(&at(10)));
    let journal = octets.len();
    writing.clear();
    writing.delete(7);
    writing.put(2, |out| out.extend(b"two"));
    octets.extend(writing.finish(&at(20)));
    writing.clear();
    writing.put(9, |out| out.extend(b"nine again"));
    octets.extend(writing.finish(&at(30)));
    (octets, journal)
}

fn parsed_connections(octets: &[u8]) -> Result<Vec<String>, StateFileError> {
    let image = Snapshot::parse(octets)?;
    Ok(image.connections().map(|one| String::from_utf8_lossy(one).into_owned()).collect())
}

#[test]
fn last_record_per_slot_wins() {
    let (octets, _) = sample_file();
    assert_eq!(parsed_connections(&octets), Ok(vec!["two".into(), "nine again".into()]));
    let image = Snapshot::parse(&octets).unwrap();
    assert_eq!(
        (image.last_alive.since_boot, image.last_alive.wall, image.truncated_bytes, image.clean_shutdown),
        (5_030, 90_030, 0, false)
    );
}

#[test]
fn truncation_at_every_byte_is_handled() {
    let (octets, journal) = sample_file();
    for length in 0..octets.len() {
        let held = parsed_connections(&octets[..length]);
        match length {
            0..8 => assert_eq!(held, Err(StateFileError::NotStateFile), "{length}"),
            8..HEADER_LEN => assert_eq!(held, Err(StateFileError::Damaged(0)), "{length}"),
            HEADER_LEN => assert_eq!(held, Err(StateFileError::Incomplete)),
            _ if length < journal => assert_eq!(held, Err(StateFileError::Damaged(HEADER_LEN)), "{length}"),
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
fn corruption_of_every_byte_is_detected() {
    let (octets, journal) = sample_file();
    for at in 0..octets.len() {
        let mut changed = octets.clone();
        changed[at] ^= 0x40;
        let held = parsed_connections(&changed);
        match at {
            0..8 => assert_eq!(held, Err(StateFileError::NotStateFile)),
            8..12 => assert!(matches!(held, Err(StateFileError::Version(_)))),
            12..16 => assert!(matches!(held, Err(StateFileError::Kind(_)))),
            16..HEARTBEAT_OFFSET => assert_eq!(held, Err(StateFileError::Damaged(0)), "{at}"),
            // The beat is written in place: one that is torn is none.
            HEARTBEAT_OFFSET..HEADER_LEN => assert!(held.is_ok(), "{at}"),
            _ if at < journal => assert_eq!(held, Err(StateFileError::Damaged(HEADER_LEN)), "{at}"),
            _ => assert!(Snapshot::parse(&changed).unwrap().truncated_bytes > 0, "{at}"),
        }
    }
}

#[test]
fn heartbeat_updates_last_alive() {
    let (mut octets, _) = sample_file();
    let later = ClockPair { since_boot: 9_000, wall: 99_000, ..START };
    octets[HEARTBEAT_OFFSET..HEADER_LEN].copy_from_slice(&heartbeat_bytes(&later, true));
    let image = Snapshot::parse(&octets).unwrap();
    assert_eq!((image.last_alive, image.clean_shutdown), (later, true));
}

#[test]
fn gap_uses_boot_clock_then_wall_clock() {
    let second = 1_000_000_000;
    let died = ClockPair { boot: [1; 16], since_boot: 100 * second, wall: 5_000 * second };
    // Of one boot: whatever became of the wall clock.
    let set_back = ClockPair { since_boot: 130 * second, wall: 0, ..died };
    assert_eq!(died.gap_to(&set_back), ClockGap::SameBoot(Duration::from_secs(30)));
    let rebooted = ClockPair { boot: [2; 16], since_boot: 9 * second, wall: 5_060 * second };
    assert_eq!(died.gap_to(&rebooted), ClockGap::Rebooted(Duration::from_secs(60)));
    let lost = ClockPair { boot: [2; 16], since_boot: 9 * second, wall: 4_999 * second };
    assert_eq!((died.gap_to(&lost), died.gap_to(&lost).duration()), (ClockGap::Unknown, Duration::ZERO));
}

#[test]
fn oversized_record_length_allocates_nothing() {
    let mut octets = new_header(&START).to_vec();
    octets.extend([0xff; 24]);
    assert_eq!(parsed_connections(&octets), Err(StateFileError::Damaged(HEADER_LEN)));
    let mut writing = FrameWriter::default();
    writing.put(7, |out| out.extend(b"seven"));
    writing.end_snapshot();
    let mut frame = writing.finish(&START).to_vec();
    frame[29..31].copy_from_slice(&u16::MAX.to_le_bytes());
    let check = crc32fast::hash(&frame[8..]).to_le_bytes();
    frame[4..8].copy_from_slice(&check);
    let octets = [&new_header(&START)[..], &frame].concat();
    assert_eq!(parsed_connections(&octets), Err(StateFileError::Damaged(HEADER_LEN + 24)));
}
