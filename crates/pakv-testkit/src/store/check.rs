//! What is compared: the store with its model, its statistics with its files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use pakv::inspect::{self, RecordKind};
use pakv::{Clock, Entry, Scan, Snapshot, Ttl};

use super::TestStore;
use crate::files;
use crate::model::{Model, Row};

impl TestStore {
    /// Compares everything that can be asked of the store with the model.
    pub fn check(&self) {
        let rows = self.model.rows();
        assert_eq!(
            self::rows(self.db().scan().expect("scan succeeds")),
            rows,
            "a scan of everything"
        );
        for (key, ..) in &rows {
            self.check_key(key);
        }
        let stats = self.db().stats().expect("stats succeed");
        assert_eq!(stats.keys, rows.len() as u64, "the keys in the statistics");
        let expiring = rows.iter().filter(|(_, _, expires_at_ms)| expires_at_ms.is_some()).count();
        assert_eq!(stats.expiring_keys, expiring as u64, "the expiring keys in the statistics");
        let live_bytes: u64 = stats.segments.iter().map(|segment| segment.live_bytes).sum();
        assert_eq!(stats.live_bytes, live_bytes, "live bytes of the store and of its segments");
        for segment in &stats.segments {
            let garbage_and_live = segment.live_bytes + segment.tombstone_bytes;
            assert!(
                garbage_and_live <= segment.bytes,
                "live bytes and tombstones fit their segment: {segment:?}"
            );
        }
        let active: Vec<bool> = stats.segments.iter().map(|segment| segment.active).collect();
        assert_eq!(
            active.iter().filter(|active| **active).count(),
            1,
            "one segment is active: {stats:?}"
        );
        assert_eq!(active.last(), Some(&true), "the active segment is the last one: {stats:?}");
        assert_eq!(
            stats.snapshots,
            self.snapshots.len() as u64,
            "the open snapshots in the statistics"
        );
        assert_eq!(stats.poisoned, None, "nothing failed");
    }

    /// `check` has nothing to find, and counts what the model does.
    pub(super) fn check_files(&self) {
        let report = self.db().check().expect("a check runs");
        assert_eq!(report.findings, [], "what check finds");
        assert_eq!(report.tail_bytes, 0, "every write was whole");
        assert_eq!(report.keys, self.model.len() as u64, "the keys that check counts");
    }

    /// Right after an open: the files of the directory are those that the store lists, and nothing
    /// else.
    pub(super) fn check_directory(&self) {
        let stats = self.db().stats().expect("stats succeed");
        let mut listed: Vec<String> =
            stats.segments.iter().map(|segment| format!("{:010}.log", segment.segment)).collect();
        listed.sort();
        assert_eq!(
            files::names(self.path(), ".log"),
            listed,
            "the segments on disk and in the statistics"
        );
        let sealed = stats.segments.iter().filter(|segment| !segment.active);
        let mut hints: Vec<String> =
            sealed.map(|segment| format!("{:010}.hint", segment.segment)).collect();
        hints.sort();
        assert_eq!(
            files::names(self.path(), ".hint"),
            hints,
            "every sealed segment has a hint, no other one"
        );
        let files = files::names(self.path(), "").len();
        assert_eq!(
            files,
            listed.len() + hints.len() + 2,
            "no file besides segments, hints, LOCK and MANIFEST"
        );
    }

    /// Right after a compaction, which takes expired keys out of the accounts: the bytes in the
    /// statistics are those on the disk, and the live ones those of the records that a scan shows.
    pub(super) fn check_accounts(&self) {
        if self.background {
            return;
        }
        let newest: BTreeMap<Vec<u8>, u64> = self
            .db()
            .scan()
            .expect("scan succeeds")
            .map(|entry| (entry.key().to_vec(), entry.seqno()))
            .collect();
        let stats = self.db().stats().expect("stats succeed");
        let mut hint_bytes = 0;
        for segment in &stats.segments {
            let path = self.path().join(format!("{:010}.log", segment.segment));
            let bytes = files::read(&path);
            let (records_end, file_end) = (segment.bytes as usize, bytes.len());
            if segment.active {
                // Space may be prepared behind them.
                let behind = bytes.get(records_end..).expect("the records are there");
                assert!(behind.iter().all(|byte| *byte == 0), "zeros behind {segment:?}");
            } else {
                assert_eq!(records_end, file_end, "the bytes of {segment:?}");
            }
            let records = inspect::segment(&path).expect("a segment can be inspected");
            let live =
                records.iter().filter(|record| newest.get(&record.key) == Some(&record.seqno));
            let live_bytes: u64 = live.map(|record| u64::from(record.length)).sum();
            assert_eq!(segment.live_bytes, live_bytes, "the live bytes of {segment:?}");
            let tombstones = records.iter().filter(|record| record.kind == RecordKind::Tombstone);
            let tombstone_bytes: u64 = tombstones.map(|record| u64::from(record.length)).sum();
            assert_eq!(
                segment.tombstone_bytes, tombstone_bytes,
                "the bytes of tombstones in {segment:?}"
            );
            if !segment.active {
                hint_bytes += file_bytes(&path.with_extension("hint"));
            }
        }
        let metadata_bytes = hint_bytes + file_bytes(&self.path().join("MANIFEST"));
        assert_eq!(stats.metadata_bytes, metadata_bytes, "the bytes of hints and manifest");
    }

    pub(super) fn check_key(&self, key: &[u8]) {
        let value = self.db().get(key).unwrap_or_else(|error| panic!("get of {key:?}: {error}"));
        assert_eq!(value.as_deref(), self.model.get(key), "the value of {key:?}");
        let there = self.db().contains(key).expect("contains succeeds");
        assert_eq!(there, self.model.get(key).is_some(), "whether {key:?} is there");
        let left = self.model.expires_at_ms(key).map(|expires_at_ms| match expires_at_ms {
            None => Ttl::Forever,
            Some(at) => Ttl::Left(Duration::from_millis(at - self.clock.now_ms())),
        });
        assert_eq!(self.db().ttl(key).expect("ttl succeeds"), left, "how long {key:?} is there");
    }
}

fn file_bytes(path: &Path) -> u64 {
    files::read(path).len() as u64
}

/// The entries of a scan with their values read.
pub(super) fn rows(scan: Scan) -> Vec<Row> {
    scan.map(row).collect()
}

pub(super) fn row(entry: Entry) -> Row {
    let expires_at_ms = entry.expires_at_ms();
    let key = entry.key().to_vec();
    let value =
        entry.value().unwrap_or_else(|error| panic!("the value of {key:?} in a scan: {error}"));
    (key, value, expires_at_ms)
}

pub(super) fn check_snapshot(snapshot: &Snapshot, model: &Model) {
    let expected = model.rows();
    assert_eq!(
        rows(snapshot.scan()),
        expected,
        "a snapshot shows what was there when it was taken"
    );
    for (key, value, _) in expected {
        let found = snapshot.get(&key).expect("a snapshot reads");
        assert_eq!(found, Some(value), "the value of {key:?} in a snapshot");
    }
}
