//! Reading a store beside its writer: without the lock, without writing a byte, and starting over
//! where the writer has moved on meanwhile.
//!
//! Invariants: the manifest is read before anything that it lists, so all that was written before it
//! is found; what is given out is all of one manifest's sealed segments and its active one up to the
//! end of a whole batch, which is a prefix of the order of writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::load::{Gathered, Loaded, load_sealed, load_segment, open_sealed};
use super::{finish, replay};
use crate::core::Recovered;
use crate::error::{Error, Result};
use crate::format::SegmentId;
use crate::format::manifest::{Manifest, SealedSegment};
use crate::index::SegmentState;
use crate::manifest;
use crate::options::Options;
use crate::segment::visit_records;
use crate::stats::{OpenProgress, RecoveryReport};
use crate::storage::Storage;

/// How often a reader starts over when the writer beside it has moved on.
const TRIES: usize = 20;

/// Opens beside a live writer.
pub(crate) fn read_only(
    options: &Options,
    storage: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(OpenProgress),
) -> Result<Recovered> {
    let mut report = RecoveryReport::default();
    // What was loaded before the writer moved on is not loaded again.
    let mut loaded = Loaded::default();
    let (catalog, ()) = start_over(storage, |catalog| {
        load_sealed(options, storage, catalog, (&mut loaded, &mut report), progress)?;
        if let Some(active) = catalog.active {
            replay::look_at_active(storage, catalog, active, &mut loaded, &mut report)?;
        }
        Ok(())
    })?;
    loaded.keep(&listed(&catalog));
    Ok(finish(options, catalog, loaded, None, None, report))
}

/// The active segment as it is at this moment, beside a live writer too: up to its last whole batch.
pub(crate) fn active_as_it_is(
    storage: &Arc<dyn Storage>,
    catalog: &Manifest,
) -> Result<Option<SegmentState>> {
    let Some(active) = catalog.active else { return Ok(None) };
    let mut loaded = Loaded::default();
    let mut report = RecoveryReport::default();
    replay::look_at_active(storage, catalog, active, &mut loaded, &mut report)?;
    Ok(loaded.segments.remove(&active.segment))
}

/// Reads the manifest, and by `read` what it lists; once more with the manifest of that moment
/// where files have vanished or changed under it. Returns the manifest with which it went well.
///
/// # Errors
/// Those of `read` that the writer's going on does not explain.
pub(crate) fn start_over<T>(
    storage: &Arc<dyn Storage>,
    mut read: impl FnMut(&Manifest) -> Result<T>,
) -> Result<(Manifest, T)> {
    let load = || {
        let path = storage.path().to_path_buf();
        manifest::load(&**storage)?.ok_or(Error::NoStore { path })
    };
    let mut catalog = load()?;
    let mut told = None;
    for _ in 1..TRIES {
        let error = match read(&catalog) {
            Ok(value) => return Ok((catalog, value)),
            Err(error) => error,
        };
        let newer = load()?;
        let moved_on = newer != catalog;
        // A writer that opens the store cuts the torn tail and appends in its place, and who reads
        // both takes that for damage. Damage is still there at the second look.
        let first_told = error.is_corruption() && told != Some(error.to_string());
        if !moved_on && !first_told {
            return Err(error);
        }
        told = Some(error.to_string());
        catalog = newer;
    }
    read(&catalog).map(|value| (catalog, value))
}

/// What has come since a state that is known, and what has gone.
#[derive(Default)]
pub(crate) struct News {
    /// Segments that are new or longer than they were, as they are now, and their records that were
    /// not known.
    pub(crate) segments: Vec<(SegmentState, Gathered)>,
    /// Segments that are not listed any more.
    pub(crate) gone: Vec<SegmentId>,
}

/// Sealed segments that were read for [`News`]. Kept from try to try: a reader far behind a busy writer
/// would come to no end.
pub(crate) type Read = HashMap<SealedSegment, (SegmentState, Gathered)>;

/// Reads what `catalog` lists and `known`, the state as of the manifest `old`, does not have.
///
/// # Errors
/// [`Error::Replaced`] where `catalog` is not what became of `old`; those of an open.
pub(crate) fn whats_new(
    options: &Options,
    storage: &Arc<dyn Storage>,
    (old, catalog): (&Manifest, &Manifest),
    known: &[SegmentState],
    read: &mut Read,
) -> Result<News> {
    let only_rose =
        old.next_segment <= catalog.next_segment && old.next_seqno <= catalog.next_seqno;
    if old.store != catalog.store || !only_rose {
        return Err(Error::Replaced { path: storage.path().to_path_buf() });
    }
    let known = |id: SegmentId| known.iter().find(|state| state.segment.id == id);
    let mut news = News::default();
    if old != catalog {
        let listed = listed(catalog);
        news.gone = all_of(old).filter(|id| !listed.contains(id)).collect();
        // As it was and not by its number alone: in a backup a sealed segment can become longer, where
        // the store that it is of has appended to it since.
        let was_sealed: HashSet<&SealedSegment> = old.sealed.iter().collect();
        for sealed in catalog.sealed.iter().filter(|sealed| !was_sealed.contains(sealed)) {
            if read.contains_key(sealed) {
                continue;
            }
            let rest = match known(sealed.segment) {
                Some(state) => rest_of_sealed(options, storage, catalog, sealed, state)?,
                None => {
                    let loaded = load_segment(options, storage, catalog, sealed)?;
                    (loaded.state, loaded.gathered)
                }
            };
            read.insert(*sealed, rest);
        }
    }
    if let Some(active) = catalog.active {
        let known = known(active.segment);
        news.segments.extend(replay::follow_active(storage, catalog, active, known)?);
    }
    let sealed = catalog.sealed.iter().filter_map(|sealed| read.remove(sealed));
    news.segments.extend(sealed);
    Ok(news)
}

/// What was appended to the active segment since it was last looked at, and before it was sealed.
fn rest_of_sealed(
    options: &Options,
    storage: &Arc<dyn Storage>,
    catalog: &Manifest,
    sealed: &SealedSegment,
    known: &SegmentState,
) -> Result<(SegmentState, Gathered)> {
    let (segment, first_record) = open_sealed(storage, catalog, sealed)?;
    if segment.salt != known.segment.salt || sealed.bytes < known.bytes {
        return Err(Error::Replaced { path: storage.path().to_path_buf() });
    }
    let mut gathered = Gathered::default();
    visit_records(&segment, known.bytes, sealed.bytes, |entry| {
        gathered.add(entry);
        Ok(())
    })?;
    let segment = Arc::new(segment.sealed(sealed.bytes, options.file_access));
    let state = known.with_more(segment, sealed.bytes, &gathered);
    let found = (state.records, state.seqnos.min, state.seqnos.max);
    if found != (sealed.records, sealed.min_seqno, sealed.max_seqno) {
        let reason = "its records are not those that the manifest describes";
        return Err(state.segment.corrupt(first_record, reason));
    }
    Ok((SegmentState { sealed: true, ..state }, gathered))
}

fn all_of(catalog: &Manifest) -> impl Iterator<Item = SegmentId> {
    let active = catalog.active.map(|active| active.segment);
    catalog.sealed.iter().map(|sealed| sealed.segment).chain(active)
}

fn listed(catalog: &Manifest) -> HashSet<SegmentId> {
    all_of(catalog).collect()
}

impl SegmentState {
    /// The state of a segment that has become longer: read through `segment`, up to `bytes`.
    pub(super) fn with_more(
        &self,
        segment: Arc<crate::segment::Segment>,
        bytes: u32,
        more: &Gathered,
    ) -> Self {
        let records = u32::try_from(more.len()).unwrap_or(u32::MAX);
        let mut state = self.clone();
        state.segment = segment;
        state.bytes = bytes;
        state.records = state.records.saturating_add(records);
        state.seqnos.add_all(more.seqnos);
        state.tombstone_bytes += more.tombstone_bytes;
        state
    }
}
