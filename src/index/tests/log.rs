//! The redo log on its own: which records come back from a file that was cut, flipped or written over.

use redb::StorageBackend;

use super::disk::{Disk, File};
use crate::index::IndexError;
use crate::index::log::{FRAME, Log};
use crate::index::logged::{self, Record};

const BYTES: usize = 8192;

fn record(text: &[u8]) -> Record {
    let record = Record::new();
    record.note(1, text, Some(&[0; 3]));
    record.note(2, &[], None);
    record
}

/// The text of a record's changes.
fn text(mut changes: &[u8]) -> Vec<u8> {
    let first = logged::next_change(&mut changes).unwrap();
    assert_eq!((first.table, first.value), (1, Some([0; 3].as_slice())));
    let text = first.key.to_vec();
    let second = logged::next_change(&mut changes).unwrap();
    assert_eq!((second.table, second.key, second.value), (2, [].as_slice(), None));
    assert!(changes.is_empty());
    text
}

fn open(bytes: &[u8]) -> Log {
    Log::open(Box::new(Disk::with(Vec::new(), bytes.to_vec()).log)).unwrap().unwrap()
}

fn replay(log: &mut Log, after: u64) -> Vec<(u64, Vec<u8>)> {
    let mut seen = Vec::new();
    let last = log.replay(after, |number, changes| {
        seen.push((number, text(changes)));
        Ok::<_, IndexError>(())
    });
    assert_eq!(last.unwrap(), seen.last().map_or(after, |(number, _)| *number));
    seen
}

/// A file after eight records of one lap, and after five of the next one over them; the five, and where they end.
type TwoLaps = (Vec<u8>, Vec<u8>, Vec<(u64, Vec<u8>)>, Vec<usize>);

fn two_laps() -> TwoLaps {
    let file = File::default();
    let mut log = Log::make(Box::new(file.clone()), BYTES).unwrap();
    for number in 1..=8 {
        log.append(number, record(&[b'o'; 40])).unwrap();
    }
    let older = file.written();
    log.restart();
    let (mut records, mut ends) = (Vec::new(), Vec::new());
    for number in 9..=13 {
        let text = vec![b'n'; number as usize * 3];
        log.append(number, record(&text)).unwrap();
        records.push((number, text));
        ends.push(file.end());
    }
    (older, file.written(), records, ends)
}

#[test]
fn a_log_cut_at_any_byte_gives_the_records_before_the_cut() {
    let (older, newer, records, ends) = two_laps();
    let begin = ends[0] - (FRAME + 2 * 9 + 27 + 3);
    let mut counts = Vec::new();
    for tail in [older, vec![0; newer.len()], vec![0xff; newer.len()]] {
        for cut in begin..ends[4] + 3 {
            let image = [&newer[..cut], &tail[cut..]].concat();
            // a cut through bytes that are the same on both sides is none
            let intact = ends.iter().take_while(|end| image[..**end] == newer[..**end]).count();
            assert_eq!(replay(&mut open(&image), 8), records[..intact], "cut at {cut}");
            counts.push(intact);
        }
    }
    counts.dedup();
    assert_eq!(counts[..6], [0, 1, 2, 3, 4, 5], "each record was cut off and was not");
}

#[test]
fn a_flipped_bit_anywhere_ends_the_log_before_its_record() {
    let (_, newer, records, ends) = two_laps();
    for at in ends[1]..ends[4] {
        let mut image = newer.clone();
        image[at] ^= 1 << (at % 8);
        let intact = ends.iter().filter(|end| **end <= at).count();
        assert_eq!(replay(&mut open(&image), 8), records[..intact], "flipped at {at}");
    }
}

#[test]
fn records_that_a_checkpoint_has_are_left_alone() {
    let (older, newer, records, _) = two_laps();
    assert_eq!(replay(&mut open(&newer), 11), records[3..]);
    assert_eq!(replay(&mut open(&newer), 13), []);
    let mut log = open(&older);
    assert_eq!(replay(&mut log, 8), []);
    assert!(log.is_empty() && log.has_room(&record(b"next")), "all of it can be written over");
}

#[test]
fn there_is_no_room_behind_records_read_back_until_a_checkpoint() {
    let (_, newer, ..) = two_laps();
    let mut log = open(&newer);
    replay(&mut log, 8);
    assert!(!log.has_room(&record(b"")) && !log.is_empty());
    log.restart();
    assert!(log.has_room(&record(b"")));
}

#[test]
fn a_name_that_looks_like_a_record_is_none() {
    let (file, other) = (File::default(), File::default());
    // somebody has a log of his own, and names an object like the record that would come next
    let mut forger = Log::make(Box::new(other.clone()), BYTES).unwrap();
    forger.append(2, record(b"forged")).unwrap();
    let forged = other.written()[4096..other.end()].to_vec();

    let mut log = Log::make(Box::new(file.clone()), BYTES).unwrap();
    log.append(1, record(&[b'x'; 5])).unwrap();
    log.append(2, record(&forged)).unwrap();
    let at = file.written().windows(forged.len()).position(|bytes| bytes == forged).unwrap();
    // and record 2 is written over by one that ends where that name begins
    log.restart();
    let len = at - 4096 - (FRAME + 2 * 9 + 3);
    log.append(1, record(&vec![b'y'; len])).unwrap();
    assert_eq!(file.end(), at);
    assert_eq!(replay(&mut open(&file.written()), 0), [(1, vec![b'y'; len])]);
}

#[test]
fn a_failed_append_is_not_there_later() {
    let disk = Disk::default();
    let mut log = Log::make(Box::new(disk.log.clone()), BYTES).unwrap();
    log.append(1, record(b"kept")).unwrap();
    disk.fail_once_after(1);
    log.append(2, record(b"written, not synced")).unwrap_err();
    assert_eq!(replay(&mut open(&disk.log.written()), 0), [(1, b"kept".to_vec())]);
    log.append(2, record(b"again")).unwrap();
    log.append(3, record(b"undone")).unwrap();
    log.take_back(record(b"undone").len());
    let kept = [(1, b"kept".to_vec()), (2, b"again".to_vec())];
    assert_eq!(replay(&mut open(&disk.log.written()), 0), kept);
}

#[test]
fn what_is_no_log_is_not_opened() {
    let (_, newer, ..) = two_laps();
    let opened = |bytes: Vec<u8>| Log::open(Box::new(Disk::with(Vec::new(), bytes).log)).unwrap().is_some();
    assert!(opened(newer.clone()));
    assert!(!opened(Vec::new()) && !opened(vec![0; 5]) && !opened(vec![0; 10_000]));
    for at in 0..40 {
        let mut image = newer.clone();
        image[at] ^= 4;
        assert!(!opened(image), "flipped at {at}");
    }
    assert!(File::default().len().is_ok_and(|len| len == 0));
}
