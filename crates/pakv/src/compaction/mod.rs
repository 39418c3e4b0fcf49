//! Compaction: choose sealed segments, copy what is still reachable to new ones, publish them in
//! the manifest, let the keydir follow, retire the inputs.
//!
//! Invariants:
//! - Until the manifest is replaced the outputs are orphans; after it the inputs are. There is no
//!   third state.
//! - Before the manifest is replaced the active segment is synced: a record is left behind because
//!   a newer one of its key was seen, and that one must not be lost where the older is gone
//!   already.
//! - A tombstone stays as long as a segment outside the inputs begins before it that holds a set which
//!   is garbage: it may be the one that the tombstone shadows. So does an expired set, as a tombstone
//!   of the same sequence number.
//! - The keydir moves by compare-and-swap on the record: what a user wrote meanwhile stays.
//! - Memory is below 32 MiB, whatever the size of the store: a buffer to read, one to write, a hint
//!   and the locations of a run's copies up to 12 MiB each, past which outputs are read again.
//!   Beyond that there is one record, where it is larger: the buffer to read holds a whole one,
//!   because nothing is copied before its checksum was found right.

#[cfg(test)]
mod model;
mod plan;
mod pressure;
mod rewrite;
mod throttle;

use std::time::Instant;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::format::{SegmentId, SeqNo};
use crate::index::SegmentState;
use crate::keydir::Relocation;
use crate::manifest;
use crate::planted::{Bug, planted};
use crate::segment::{may_lack_hint, rebuild_hint, visit_records};
use crate::stats::{CompactionProgress, CompactionReport};

use plan::{Plan, Policy, SegmentFacts, Space};
pub(crate) use pressure::Pressure;
use rewrite::{Copied, Output, Rewriter};
use throttle::Throttle;

/// So many places of the keydir are looked at under one hold of the index's lock: readers and writers
/// wait for it.
const PLACES_PER_HOLD: usize = 512;

/// Does one step of what the policy asks for; false where there is nothing to do. `resting`: nobody
/// writes, so that the store may come down to where it ought to be at rest.
///
/// # Errors
/// Whatever a run fails with. Nothing is lost by it.
pub(crate) fn run_planned(
    core: &Core,
    rate: Option<u64>,
    resting: bool,
    progress: &mut dyn FnMut(CompactionProgress),
) -> Result<bool> {
    let _one_at_a_time = core.compacting.lock();
    // Asked under the lock: behind a close the files are somebody else's.
    core.check_writable()?;
    pressure::look(core, 0);
    match make_plan(core, resting) {
        Plan::Nothing => Ok(false),
        Plan::SealActive => {
            let sealed = core.seal_active()?;
            build_hints(core)?;
            Ok(sealed)
        }
        Plan::Compact(inputs) => {
            run(core, &inputs, &mut Throttle::new(rate), progress)?;
            Ok(true)
        }
    }
}

/// Compacts everything that has garbage, the active segment included.
///
/// # Errors
/// Whatever a run fails with. Nothing is lost by it.
pub(crate) fn run_forced(
    core: &Core,
    progress: &mut dyn FnMut(CompactionProgress),
) -> Result<CompactionReport> {
    let _one_at_a_time = core.compacting.lock();
    core.check_writable()?;
    core.sweep();
    let active_has_garbage = {
        let index = core.index.read();
        index.segments.values().any(|state| {
            let reachable = u64::from(state.first_record) + state.live_bytes;
            !state.sealed && u64::from(state.bytes) > reachable
        })
    };
    if active_has_garbage {
        core.seal_active()?;
    }
    // As in the background: compaction does not need them.
    let hints = build_hints(core);
    let (sealed, _) = facts(core);
    let compacted = match plan::plan_forced(&sealed) {
        Plan::Compact(inputs) => run(core, &inputs, &mut Throttle::new(None), progress),
        Plan::Nothing | Plan::SealActive => Ok(CompactionReport::default()),
    };
    core.pressure.release();
    compacted.and_then(|report| hints.map(|()| report))
}

/// Whether a rest would find something to do.
pub(crate) fn is_over_at_rest(core: &Core) -> bool {
    space(core).is_over_bound(&pressure::policy(core, true))
}

/// Builds the hint of every sealed segment that has none and should.
///
/// # Errors
/// [`Error::Corrupt`] where a segment is damaged: it is set aside and the rest goes on.
/// [`Error::Closed`] behind a close.
pub(crate) fn build_hints(core: &Core) -> Result<()> {
    let _one_at_a_time = core.hinting.lock();
    core.check_writable()?;
    let store = core.catalog.lock().store;
    let mut result = Ok(());
    while !core.worker.is_stopping()
        && let Some(SegmentState { segment, first_record, bytes, .. }) = missing_hint(core)
    {
        let storage = Some(&*core.storage);
        let built = rebuild_hint(storage, store, &segment, first_record, bytes, |_| ());
        if let Some(state) = core.index.write().segments.get_mut(&segment.id) {
            match built {
                Ok(hint_bytes) => state.hint_bytes = Some(hint_bytes),
                Err(error) => {
                    state.damaged = error.is_corruption();
                    if !state.damaged {
                        return Err(error);
                    }
                    result = Err(error);
                }
            }
        }
    }
    result
}

/// A sealed segment that has no hint and should: of those that may do without, the oldest, where all
/// of them together are too large to be read at an open.
fn missing_hint(core: &Core) -> Option<SegmentState> {
    let options = &core.options;
    let index = core.index.read();
    let lacking = || {
        let mut states = index.segments.values();
        std::iter::from_fn(move || {
            states.find(|state| state.sealed && state.hint_bytes.is_none() && !state.damaged)
        })
    };
    let must_have =
        |state: &&SegmentState| !may_lack_hint(options, state.bytes.into(), state.records.into());
    let hintless_bytes: u64 = lacking().map(|state| u64::from(state.bytes)).sum();
    let oldest = || {
        let is_too_much = hintless_bytes > options.hintless_bytes;
        lacking().filter(|_| is_too_much).min_by_key(|state| state.seqnos.min)
    };
    lacking().find(must_have).or_else(oldest).cloned()
}

fn make_plan(core: &Core, resting: bool) -> Plan {
    match facts(core) {
        (sealed, Some(active)) => {
            let policy = pressure::policy(core, resting);
            let policy = Policy { may_seal: core.may_seal(active.bytes), ..policy };
            plan::plan(&sealed, &active, &policy)
        }
        (_, None) => Plan::Nothing,
    }
}

/// The figures of the sealed segments that can be compacted, and of the active one.
///
/// A damaged segment is left out as a candidate. The tombstones that it pins cannot be dropped,
/// whatever is rewritten: they count as live, so that nobody tries.
fn facts(core: &Core) -> (Vec<SegmentFacts>, Option<SegmentFacts>) {
    let index = core.index.read();
    let damaged = index.segments.values().filter(|state| state.damaged);
    let damaged_min = damaged.map(|state| state.seqnos.min).min().unwrap_or(SeqNo::MAX);
    let facts_beside = |state: &SegmentState| {
        let mut facts = facts_of(state);
        if damaged_min < facts.seqnos.max {
            facts.live_bytes += std::mem::take(&mut facts.tombstone_bytes);
        }
        facts
    };
    let sealed = index.segments.values().filter(|state| state.sealed && !state.damaged);
    let active = index.segments.values().find(|state| !state.sealed);
    (sealed.map(facts_beside).collect(), active.map(facts_beside))
}

/// What the segments take together.
fn space(core: &Core) -> Space {
    let mut space = Space::default();
    let (sealed, active) = facts(core);
    sealed.iter().chain(&active).for_each(|facts| space.add(facts));
    space
}

fn facts_of(state: &SegmentState) -> SegmentFacts {
    SegmentFacts {
        segment: state.segment.id,
        bytes: u64::from(state.bytes),
        header_bytes: u64::from(state.first_record),
        hint_bytes: state.hint_bytes.unwrap_or(0),
        records: state.records.into(),
        live_bytes: state.live_bytes,
        tombstone_bytes: state.tombstone_bytes,
        seqnos: state.seqnos,
    }
}

/// Compacts `inputs`, from the copy to the last unlink.
fn run(
    core: &Core,
    inputs: &[SegmentId],
    throttle: &mut Throttle,
    progress: &mut dyn FnMut(CompactionProgress),
) -> Result<CompactionReport> {
    let started = Instant::now();
    let span = tracing::info_span!("compaction", store = %core.storage.path().display());
    let _in_it = span.enter();
    tracing::info!(segments = inputs.len(), "compaction begins");
    core.compaction_stats.lock().running = true;
    let result = run_to_end(core, inputs, throttle, progress);
    let mut stats = core.compaction_stats.lock();
    stats.running = false;
    match result {
        Ok(mut report) => {
            report.duration = started.elapsed();
            tracing::info!(
                bytes_before = report.bytes_before,
                bytes_after = report.bytes_after,
                took = ?report.duration,
                "compaction ends"
            );
            stats.runs += 1;
            stats.bytes_written += report.bytes_after;
            stats.bytes_reclaimed += report.bytes_reclaimed();
            stats.last_error = None;
            Ok(report)
        }
        Err(error) => {
            if matches!(error, Error::Closed) {
                tracing::info!("compaction ends, the store is being closed");
            } else {
                tracing::warn!(%error, "compaction failed");
                stats.last_error = Some(error.to_string());
            }
            Err(error)
        }
    }
}

fn run_to_end(
    core: &Core,
    inputs: &[SegmentId],
    throttle: &mut Throttle,
    progress: &mut dyn FnMut(CompactionProgress),
) -> Result<CompactionReport> {
    let states: Vec<SegmentState> = {
        let index = core.index.read();
        inputs.iter().filter_map(|id| index.segments.get(id).cloned()).collect()
    };
    let mut rewriter = Rewriter::new(core, inputs);
    if let Err((segment, error)) = rewriter.copy(&states, throttle, progress) {
        if error.is_corruption()
            && let Some(state) = core.index.write().segments.get_mut(&segment)
        {
            state.damaged = true;
        }
        rewriter.abandon();
        return Err(error);
    }
    let Copied { outputs, mut relocation, mut report } = rewriter.finish()?;
    report.segments_in = states.len() as u64;
    report.segments_out = outputs.len() as u64;
    let on_disk = |state: &SegmentState| u64::from(state.bytes) + state.hint_bytes.unwrap_or(0);
    report.bytes_before = states.iter().map(on_disk).sum();
    report.bytes_after = outputs.iter().map(|output| on_disk(&output.state)).sum();
    if planted(Bug::UnlinkInputsEarly) {
        for state in &states {
            let _ = core.storage.remove(&state.segment.id.log_name());
        }
    }
    drop(states);
    // The manifest may or may not have been replaced, or the keydir have followed: neither side may
    // be unlinked, and nothing may be written on top of what is not known. The next open decides.
    publish(core, inputs, &outputs)
        .and_then(|()| follow(core, &outputs, &mut relocation))
        .and_then(|()| retire(core, inputs))
        .inspect_err(|error| core.poison(error))?;
    Ok(report)
}

/// The commit point. Everything in `outputs` is durable already, but for the names of the files.
fn publish(core: &Core, inputs: &[SegmentId], outputs: &[Output]) -> Result<()> {
    // Before the sync, so that no number is taken for given whose record a power cut may take. What
    // was copied or left behind is older.
    let next_seqno = core.index.read().visible + 1;
    if !planted(Bug::PublishWithoutActiveSync) {
        core.sync_active()?;
    }
    if !outputs.is_empty() {
        core.storage.sync_dir().map_err(Error::io("sync", core.storage.path()))?;
    }
    let mut catalog = core.catalog.lock();
    // Asked again: what was synced may have been the last thing that went well.
    core.check_writable()?;
    let mut next = catalog.clone();
    next.sealed.retain(|sealed| !inputs.contains(&sealed.segment));
    next.sealed.extend(outputs.iter().map(|output| output.sealed));
    next.next_seqno = next.next_seqno.max(next_seqno);
    manifest::replace(&*core.storage, &next)?;
    *catalog = next;
    let mut index = core.index.write();
    for output in outputs {
        index.add_segment(output.state.clone());
    }
    Ok(())
}

/// Lets the keydir follow: in one pass, and then record by record for the outputs whose copies were too
/// many to remember.
fn follow(core: &Core, outputs: &[Output], relocation: &mut Relocation) -> Result<()> {
    if !planted(Bug::MoveWithoutCompare) {
        while core.index.write().relocate(relocation, PLACES_PER_HOLD) {
            core.index.let_others_in();
        }
    }
    for Output { state, is_remembered, .. } in outputs {
        if !is_remembered || planted(Bug::MoveWithoutCompare) {
            visit_records(&state.segment, state.first_record, state.bytes, |entry| {
                core.index.write().move_record(entry, state.segment.id);
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Nothing points at the inputs any more. Their files go when the last reader does.
///
/// # Errors
/// [`Error::Poisoned`] where something does point at them, which would be a bug: they stay.
fn retire(core: &Core, inputs: &[SegmentId]) -> Result<()> {
    let mut index = core.index.write();
    let is_pointed_at =
        |id: &&SegmentId| index.segments.get(id).is_some_and(|state| state.live_bytes > 0);
    if let Some(id) = inputs.iter().find(is_pointed_at) {
        let reason = format!("segment {id} was compacted and the keydir still points into it");
        return Err(Error::Poisoned { reason });
    }
    let gone: Vec<SegmentState> =
        inputs.iter().filter_map(|id| index.remove_segment(*id)).collect();
    drop(index);
    let mut retired = core.retired.lock();
    for state in &gone {
        state.segment.retire();
        retired.push(state.segment.files());
    }
    drop(retired);
    // The files are unlinked here, with no lock held, unless someone still reads them.
    drop(gone);
    Ok(())
}
