//! The keydir against a plain ordered map, a merge in any of its stages.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Insert {
        key: u8,
        expires: bool,
    },
    Remove {
        key: u8,
    },
    /// Moves the newest record of a key, or tries to move one that is not its newest.
    Move {
        key: u8,
        is_newest: bool,
    },
    /// One more stage of a merge, or the first of the next.
    Merge {
        limit: usize,
    },
    Order,
    /// One more stage of sorting what has come, apart from the keydir.
    Sort,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40_u8, any::<bool>()).prop_map(|(key, expires)| Step::Insert { key, expires }),
        2 => (0..40_u8).prop_map(|key| Step::Remove { key }),
        2 => (0..40_u8, any::<bool>()).prop_map(|(key, is_newest)| Step::Move { key, is_newest }),
        4 => (1..9_usize).prop_map(|limit| Step::Merge { limit }),
        1 => Just(Step::Order),
        2 => Just(Step::Sort),
    ]
}

/// Keys of different lengths, some the beginning of others, with a part in common.
fn key(number: u8) -> Vec<u8> {
    let mut key = b"a key/".to_vec();
    key.extend(std::iter::repeat_n(b'0' + number % 7, usize::from(number / 7)));
    key
}

fn location(seqno: SeqNo) -> Location {
    let segment = SegmentId(seqno as u32 % 5);
    // Some are longer than a place has room for.
    let length = if seqno.is_multiple_of(6) { 100_000 } else { 10 + seqno as u32 % 3 };
    Location { segment, offset: seqno as u32 * 10, length }
}

/// A merge between two stages.
#[derive(Default)]
enum Stage {
    #[default]
    None,
    Noting(Merge),
    Moving,
}

fn check(keydir: &mut KeyDir, model: &BTreeMap<Vec<u8>, KeyEntry>) {
    assert_eq!(keydir.len(), model.len() as u64);
    for number in 0..40 {
        assert_eq!(keydir.get(&key(number)), model.get(&key(number)).copied());
    }
    let mut all = BTreeMap::new();
    keydir.for_each(|key, entry| assert_eq!(all.insert(key.to_vec(), entry), None));
    assert_eq!(&all, model);
    keydir.put_in_order();
    for (from, to) in [(0, 39), (7, 22), (22, 7)] {
        let (from, to) = (key(from), key(to));
        let (from, to) = (from.as_slice(), to.as_slice());
        let all = [
            (Bound::Unbounded, Bound::Unbounded),
            (Bound::Included(from), Bound::Excluded(to)),
            (Bound::Excluded(from), Bound::Included(to)),
            (Bound::Excluded(from), Bound::Unbounded),
        ];
        for bounds in all.into_iter().filter(|(from, to)| !is_empty_range(*from, *to)) {
            let expected: Vec<_> =
                model.range::<[u8], _>(bounds).map(|(key, entry)| (&**key, *entry)).collect();
            let found: Vec<_> = keydir.range(bounds.0, bounds.1).collect();
            assert_eq!(found, expected);
            let mut back: Vec<_> = keydir.range(bounds.0, bounds.1).rev().collect();
            back.reverse();
            assert_eq!(back, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_keydir_is_an_ordered_map_whatever_a_merge_is_doing(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut keydir = KeyDir::default();
        let mut model = BTreeMap::new();
        let mut stage = Stage::default();
        let mut unordered = None;
        for (seqno, step) in (1..).zip(steps) {
            match step {
                Step::Insert { key: number, expires } => {
                    let entry = KeyEntry::new(location(seqno), seqno, expires.then_some(seqno));
                    let old = model.insert(key(number), entry);
                    prop_assert_eq!(keydir.insert(&key(number), entry), old);
                }
                Step::Remove { key: number } => {
                    prop_assert_eq!(keydir.remove(&key(number)), model.remove(&key(number)));
                }
                Step::Move { key: number, is_newest } => {
                    let to = location(seqno);
                    let entry = model.get_mut(&key(number)).filter(|_| is_newest);
                    let of = entry.as_ref().map_or(seqno, |entry| entry.seqno);
                    let old = entry.map(|entry| std::mem::replace(&mut entry.location, to));
                    prop_assert_eq!(keydir.compare_and_move(&key(number), of, to), old);
                }
                Step::Merge { limit } => {
                    stage = match stage {
                        Stage::None => {
                            keydir.begin_merge().map_or(Stage::None, Stage::Noting)
                        }
                        Stage::Noting(mut merge) => {
                            if merge.note_gone(&keydir) {
                                Stage::Noting(merge)
                            } else {
                                keydir.set_next(merge.build(|| false).expect("nobody stops it"));
                                Stage::Moving
                            }
                        }
                        Stage::Moving if keydir.move_places(limit).is_none() => Stage::Moving,
                        Stage::Moving => Stage::None,
                    };
                }
                Step::Order => keydir.put_in_order(),
                Step::Sort => {
                    unordered = match unordered.take() {
                        None => keydir.unordered_head(),
                        Some(mut some) => match keydir.copy_unordered(&mut some) {
                            true => Some(some),
                            false => {
                                keydir.set_head_order(some.sorted());
                                None
                            }
                        },
                    };
                }
            }
            if seqno % 16 == 0 {
                check(&mut keydir, &model);
            }
        }
        check(&mut keydir, &model);
    }
}

#[test]
fn many_keys_come_go_and_are_merged() {
    let mut keydir = KeyDir::default();
    let mut model = BTreeMap::new();
    let keys = 3 * MERGE_KEYS_MIN as u64;
    for number in 0..keys {
        let key = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes().to_vec();
        let seqno = number + 1;
        let entry = KeyEntry::new(location(seqno), seqno, None);
        assert_eq!(keydir.insert(&key, entry), None);
        model.insert(key, entry);
        if number % 3 == 0 {
            let first = model.first_key_value().map(|(key, _)| key.clone()).expect("one is there");
            assert_eq!(keydir.remove(&first), model.remove(&first));
        }
        if keydir.wants_merge() {
            keydir.merge();
        }
    }
    assert!(keydir.image.len() > MERGE_KEYS_MIN);
    keydir.put_in_order();
    let all = keydir.range(Bound::Unbounded, Bound::Unbounded);
    assert!(all.eq(model.iter().map(|(key, entry)| (&**key, *entry))));
    // What is gone takes no room once the image has been merged.
    for key in model.keys() {
        keydir.remove(key);
    }
    assert!(keydir.wants_merge());
    keydir.merge();
    assert_eq!((keydir.len(), keydir.image.len()), (0, 0));
}
