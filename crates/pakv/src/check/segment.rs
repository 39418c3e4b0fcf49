//! The check of one segment against its checksums, its hint and the manifest.

use std::path::{Path, PathBuf};

use super::report::{Finding, FindingKind, LostRecord};
use crate::format::hint::HintEntry;
use crate::format::manifest::{ActiveSegment, SealedSegment};
use crate::format::record::SegmentHeader;
use crate::format::{FORMAT_VERSION, SegmentId, StoreId};
use crate::inspect::hint_info;
use crate::inspect::scan::{ReadHint, Scanned, compare};
use crate::inspect::walk::LogFile;
use crate::recovery::Gathered;
use crate::storage::Storage;

/// One segment, checked.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) id: Option<SegmentId>,
    pub(super) findings: Vec<Finding>,
    /// What a writer beside the check can cause too, by moving on: to be looked at again.
    pub(super) unsettled: Vec<Finding>,
    /// The records, and of those that are lost what the hint says.
    pub(super) gathered: Gathered,
    pub(super) records: u64,
    pub(super) tombstone_bytes: u64,
    /// Its bytes up to the end of the last whole batch.
    pub(super) bytes: u64,
    pub(super) bytes_read: u64,
    pub(super) has_hint: bool,
    pub(super) tail_bytes: u64,
}

pub(crate) fn finding(
    kind: FindingKind,
    path: &Path,
    (offset, length): (impl Into<u64>, impl Into<u64>),
    reason: impl Into<String>,
) -> Finding {
    Finding {
        kind,
        path: path.to_path_buf(),
        offset: offset.into(),
        length: length.into(),
        reason: reason.into(),
        records: Vec::new(),
    }
}

impl Checked {
    fn find(
        &mut self,
        kind: FindingKind,
        path: &Path,
        place: (impl Into<u64>, impl Into<u64>),
        reason: impl Into<String>,
    ) {
        self.findings.push(finding(kind, path, place, reason));
    }

    /// Opens the segment; `None`, and told, where that is not possible.
    fn open(&mut self, storage: &dyn Storage, store: Option<StoreId>) -> Option<LogFile> {
        let id = self.id?;
        let log = match LogFile::open(storage, id) {
            Ok(log) => log,
            Err(error) => {
                let path: PathBuf = storage.path().join(id.log_name());
                let place = (0_u32, 0_u32);
                let missing = finding(FindingKind::Missing, &path, place, error.to_string());
                self.unsettled.push(missing);
                return None;
            }
        };
        for (offset, length, reason) in &log.damage {
            self.find(FindingKind::Header, &log.path, (*offset, *length), reason.as_str());
        }
        if let Some(version) = log.unknown_version {
            let reason = format!("format version {version}; this build reads {FORMAT_VERSION}");
            self.find(FindingKind::Header, &log.path, (8_u32, 4_u32), reason);
        }
        if let (Some(header), Some(store)) = (&log.header, store)
            && *header != (SegmentHeader { store, segment: id })
        {
            let reason = "it belongs to another store or place";
            self.find(FindingKind::Header, &log.path, (0_u32, log.first_record), reason);
        }
        Some(log)
    }
}

/// Checks a sealed segment.
pub(super) fn check_sealed(
    storage: &dyn Storage,
    store: StoreId,
    sealed: &SealedSegment,
    progress: &dyn Fn(u64),
) -> Checked {
    let mut checked = Checked { id: Some(sealed.segment), ..Checked::default() };
    let read_hint = |bytes| ReadHint::read(storage, store, sealed.segment, Some(bytes));
    let mut hint = read_hint(sealed.bytes);
    let Some(log) = checked.open(storage, Some(store)) else {
        checked.unsettled.iter_mut().for_each(|found| found.length = sealed.bytes.into());
        if let Some(hint) = hint {
            checked.lose_all(&hint);
        }
        return checked;
    };
    // It does not fail: what cannot be read is a hole.
    let Ok(scanned) = Scanned::read(&log, sealed.bytes, progress) else { return checked };
    checked.bytes_read = u64::from(log.bytes.min(sealed.bytes));
    checked.bytes = u64::from(sealed.bytes);
    if log.bytes > sealed.bytes && log.goes_on_with_records(sealed.bytes) {
        // A backup that was interrupted has brought more of what was the active segment; its hint
        // may be of all of it.
        checked.tail_bytes = u64::from(log.bytes - sealed.bytes);
        if read_hint(log.bytes).is_some_and(|longer| longer.is_whole()) {
            hint = None;
        }
    } else if log.bytes > sealed.bytes {
        let place = (sealed.bytes, log.bytes - sealed.bytes);
        checked.find(FindingKind::Length, &log.path, place, "bytes follow the end");
    }
    for hole in &scanned.holes {
        let place = (hole.offset, hole.length);
        checked.find(FindingKind::Record, &log.path, place, hole.reason.as_str());
    }
    if log.bytes < sealed.bytes {
        let reason = format!("it has {} bytes and should have {}", log.bytes, sealed.bytes);
        let place = (log.bytes, sealed.bytes - log.bytes);
        checked.find(FindingKind::Length, &log.path, place, reason);
    }
    checked.check_order(&log, &scanned);
    let is_damaged = !scanned.holes.is_empty() || log.bytes < sealed.bytes;
    if !is_damaged && checked.findings.is_empty() {
        checked.check_counts(&log, &scanned, sealed);
    }
    checked.take_in(scanned, hint, &log);
    checked
}

/// Checks a segment of which no manifest says what it should be.
pub(super) fn check_alone(storage: &dyn Storage, id: SegmentId) -> Checked {
    let mut checked = Checked { id: Some(id), ..Checked::default() };
    let log = checked.open(storage, None);
    let header = log.as_ref().and_then(|log| log.header.as_ref());
    let store = header.map(|header| header.store).or_else(|| ReadHint::store_of(storage, id));
    let hint = store.and_then(|store| ReadHint::read(storage, store, id, None));
    if store.is_none()
        && let Ok(file) = storage.open(&id.hint_name(), false)
    {
        let path = storage.path().join(id.hint_name());
        let reason = "neither it nor its segment tells which store it is of";
        checked.find(FindingKind::Hint, &path, (0_u32, file.len().unwrap_or(0)), reason);
    }
    let Some(log) = log else {
        if let Some(hint) = hint {
            checked.lose_all(&hint);
        }
        return checked;
    };
    // As above.
    let Ok(scanned) = Scanned::read(&log, u32::MAX, &|_| ()) else { return checked };
    checked.bytes_read = u64::from(log.bytes);
    checked.bytes = u64::from(scanned.records_end);
    // Which bytes are a torn tail the manifest would have told. Zeros at the end are none, but for
    // a segment that was sealed.
    for hole in scanned.holes.iter().filter(|hole| hint.is_some() || !hole.zeros) {
        let place = (hole.offset, hole.length);
        checked.find(FindingKind::Record, &log.path, place, hole.reason.as_str());
    }
    let expected = hint.as_ref().and_then(|hint| hint.segment_bytes).unwrap_or(0);
    if log.bytes < expected {
        let reason = format!("it has {} bytes and its hint says {expected}", log.bytes);
        let place = (log.bytes, expected - log.bytes);
        checked.find(FindingKind::Length, &log.path, place, reason);
    }
    checked.check_order(&log, &scanned);
    checked.take_in(scanned, hint, &log);
    checked
}

/// Checks the active segment. A writer may be appending to it.
pub(super) fn check_active(
    storage: &dyn Storage,
    store: StoreId,
    active: ActiveSegment,
    progress: &dyn Fn(u64),
) -> Checked {
    let mut checked = Checked { id: Some(active.segment), ..Checked::default() };
    let Some(log) = checked.open(storage, Some(store)) else { return checked };
    // As above.
    let Ok(scanned) = Scanned::read(&log, u32::MAX, progress) else { return checked };
    checked.bytes_read = u64::from(log.bytes);
    let durable = active.synced_bytes.max(scanned.vouched).max(log.first_record);
    for hole in scanned.holes.iter().filter(|hole| hole.offset < durable) {
        let place = (hole.offset, hole.length);
        let found = finding(FindingKind::Record, &log.path, place, hole.reason.as_str());
        checked.unsettled.push(found);
    }
    if log.bytes < active.synced_bytes {
        let reason = format!("{} bytes were known durable", active.synced_bytes);
        let place = (log.bytes, active.synced_bytes - log.bytes);
        checked.unsettled.push(finding(FindingKind::Length, &log.path, place, reason));
    }
    checked.check_order(&log, &scanned);
    if let Some(fault) = &scanned.not_rising
        && !scanned.is_users
    {
        let place = (fault.offset, fault.length);
        checked.find(FindingKind::Order, &log.path, place, fault.reason);
    }
    // A writer that has opened the store since cuts the tail and appends in its place.
    checked.unsettled.append(&mut checked.findings);
    let (count, tail) = scanned.up_to_tail(durable);
    let mut end = log.first_record;
    for entry in scanned.records.records().take(count) {
        checked.gathered.add(&entry);
        end = entry.offset + entry.length;
    }
    let zeros = scanned.holes.last().filter(|hole| hole.zeros).map_or(0, |hole| hole.length);
    let damage = scanned.holes.iter().filter(|hole| hole.offset < durable && hole.offset >= end);
    let behind_damage = damage.map(|hole| hole.end()).max().unwrap_or(end);
    if tail.is_some() || scanned.open_batch.is_some() {
        let data_end = log.bytes - zeros;
        checked.tail_bytes = u64::from(data_end.saturating_sub(behind_damage));
    }
    checked.records = count as u64;
    checked.tombstone_bytes = checked.gathered.tombstone_bytes;
    checked.bytes = u64::from(end);
    checked
}

impl Checked {
    fn check_order(&mut self, log: &LogFile, scanned: &Scanned) {
        if let Some(fault) = scanned.not_rising.as_ref().filter(|_| scanned.is_users) {
            let place = (fault.offset, fault.length);
            self.find(FindingKind::Order, &log.path, place, fault.reason);
        }
        if let Some(fault) = &scanned.broken_batch {
            let place = (fault.offset, fault.length);
            self.find(FindingKind::Batch, &log.path, place, fault.reason);
        }
    }

    fn check_counts(&mut self, log: &LogFile, scanned: &Scanned, sealed: &SealedSegment) {
        if let Some((offset, _)) = scanned.open_batch {
            let place = (offset, sealed.bytes - offset);
            self.find(FindingKind::Batch, &log.path, place, "the last batch has no end");
        }
        let (records, seqnos) = (scanned.records.len() as u64, scanned.records.seqnos);
        let found = (records, seqnos.min, seqnos.max);
        let expected = (u64::from(sealed.records), sealed.min_seqno, sealed.max_seqno);
        if found != expected {
            let reason = format!(
                "it has {} records, sequence numbers {} to {}; the manifest says {}, {} to {}",
                found.0, found.1, found.2, expected.0, expected.1, expected.2
            );
            let place = (log.first_record, sealed.bytes.saturating_sub(log.first_record));
            self.find(FindingKind::Counts, &log.path, place, reason);
        }
    }

    /// Takes over the records, with those that are lost as the hint tells them.
    fn take_in(&mut self, scanned: Scanned, hint: Option<ReadHint>, log: &LogFile) {
        if let Some(hint) = hint {
            self.has_hint = true;
            self.bytes_read += hint.bytes;
            self.find_faults(&hint);
            match compare(&hint.entries, &scanned, log.first_record) {
                Err(offset) => self.disagrees(&hint, offset),
                Ok(lost) => {
                    let known = scanned.records.len() + lost.len();
                    if hint.is_whole() && hint.entries.len() != known {
                        self.disagrees(&hint, log.first_record);
                    }
                    self.lose(&hint.entries, &lost);
                }
            }
        }
        self.records = scanned.records.len() as u64;
        self.tombstone_bytes = scanned.records.tombstone_bytes;
        let lost = std::mem::replace(&mut self.gathered, scanned.records);
        lost.records().for_each(|entry| self.gathered.add(&entry));
    }

    fn find_faults(&mut self, hint: &ReadHint) {
        for (offset, length, reason) in &hint.faults {
            self.find(FindingKind::Hint, &hint.path, (*offset, *length), reason.as_str());
        }
    }

    fn disagrees(&mut self, hint: &ReadHint, offset: u32) {
        let reason = format!("it disagrees with its segment about the record at byte {offset}");
        self.find(FindingKind::Hint, &hint.path, (0_u32, hint.bytes), reason);
    }

    /// Names the records that `lost` are the positions of in the findings that hold them, and
    /// gathers them.
    fn lose(&mut self, entries: &Gathered, lost: &[usize]) {
        let Self { findings, gathered, .. } = self;
        name_lost(findings, entries, lost, |entry| gathered.add(entry));
    }

    /// The segment is not there: what its hint knows is lost.
    fn lose_all(&mut self, hint: &ReadHint) {
        self.find_faults(hint);
        for entry in hint.entries.records() {
            self.gathered.add(&entry);
            let lost = LostRecord { record: hint_info(&entry), is_newest: false };
            self.unsettled.iter_mut().for_each(|found| found.records.push(lost.clone()));
        }
    }
}

/// Names the entries that `lost` are the positions of in the findings whose bytes they are in; each
/// is also given to `visit`.
pub(crate) fn name_lost(
    findings: &mut [Finding],
    entries: &Gathered,
    lost: &[usize],
    mut visit: impl FnMut(&HintEntry<'_>),
) {
    findings.sort_by_key(|found| found.offset);
    let mut wanted = lost.iter().peekable();
    let mut at = 0;
    for (position, entry) in entries.records().enumerate() {
        if wanted.next_if(|wanted| **wanted == position).is_none() {
            continue;
        }
        visit(&entry);
        // Both go by offset.
        let (start, end) =
            (u64::from(entry.offset), u64::from(entry.offset) + u64::from(entry.length));
        let is_before = |found: &Finding| found.offset + found.length <= start;
        while findings.get(at).is_some_and(is_before) {
            at += 1;
        }
        let holds = |found: &&mut Finding| {
            matches!(found.kind, FindingKind::Record | FindingKind::Length)
                && found.offset + found.length > start
        };
        let rest = findings.iter_mut().skip(at).take_while(|found| found.offset < end);
        for found in rest.filter(holds).take(1) {
            found.records.push(LostRecord { record: hint_info(&entry), is_newest: false });
        }
    }
}
