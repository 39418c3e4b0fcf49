//! The floor of a synced set: the bytes of one record, written into space that was written before,
//! and fdatasync.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use anyhow::Result;

use super::Job;
use crate::data::{KEY_BYTES, key};
use crate::figures::{Figures, histogram};

/// What a log adds to key and value, about: lengths, checksum, number.
const FRAME_BYTES: usize = 24;
/// The space is used again from its beginning: appending is not what is measured.
const SPACE_BYTES: usize = 16 << 20;

pub(super) fn run(job: &Job, out: &mut Figures) -> Result<()> {
    std::fs::create_dir_all(&job.dir)?;
    let file = File::create(job.dir.join("floor"))?;
    file.write_all_at(&vec![0xFF; SPACE_BYTES], 0)?;
    file.sync_all()?;
    let values = job.values();
    let (mut value, mut record) = (Vec::new(), Vec::new());
    let record_bytes = FRAME_BYTES + KEY_BYTES + job.value_bytes;
    let slots = (SPACE_BYTES / record_bytes).max(1) as u64;
    let (mut times, mut done, start) = (histogram(), 0, Instant::now());
    while start.elapsed() < job.limit() {
        values.put(done, 0, &mut value);
        record.clear();
        record.extend_from_slice(&[0; FRAME_BYTES]);
        record.extend_from_slice(&key(done));
        record.extend_from_slice(&value);
        let before = Instant::now();
        file.write_all_at(&record, (done % slots) * record_bytes as u64)?;
        file.sync_data()?;
        times.saturating_record(before.elapsed().as_nanos() as u64);
        done += 1;
    }
    out.put("ops", done as f64 / start.elapsed().as_secs_f64());
    out.latency("set", &times);
    Ok(())
}
