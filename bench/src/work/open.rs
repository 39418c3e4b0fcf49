//! Opening, and what makes a store that was not closed.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::Job;
use crate::data::{Random, key};
use crate::engine::Durability;
use crate::figures::Figures;
use crate::process;

/// Overwrites until killed. Says so, once enough is written, by one line.
pub(super) fn dirty(job: &Job) -> Result<()> {
    let engine = job.open(Durability::Buffered)?;
    let values = job.values();
    let (mut random, mut value) = (Random::new(u64::from(job.run) + 1), Vec::new());
    let start = Instant::now();
    for turn in 1_u64.. {
        // Whoever was to kill it is gone.
        if turn.is_multiple_of(1024) && start.elapsed() > job.limit() * 10 {
            break;
        }
        let id = random.below(job.keys);
        values.put(id, turn, &mut value);
        engine.set(&key(id), &value)?;
        if turn == (job.keys / 10).max(1) || (turn < job.keys / 10 && start.elapsed() > job.limit())
        {
            println!("dirty");
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}

/// The time from the call to the first value: an engine may put its work off until then.
pub(super) fn run(job: &Job, out: &mut Figures) -> Result<()> {
    let values = job.values();
    let before = process::memory()?;
    let start = Instant::now();
    let engine = job.open(Durability::Buffered)?;
    let mut right = false;
    let opened = start.elapsed();
    engine.get(&key(0), &mut |value| right = values.check(0, value))?;
    out.put("open_alone_ms", opened.as_secs_f64() * 1000.0);
    out.put("open_ms", start.elapsed().as_secs_f64() * 1000.0);
    ensure!(right, "{}: key 0 is not what was set", job.engine.name());
    let after = process::memory()?;
    let anonymous = after.anonymous.saturating_sub(before.anonymous);
    out.put("anonymous_per_key", anonymous as f64 / job.keys as f64);
    out.put("file_bytes", after.file as f64);
    engine.close()
}
