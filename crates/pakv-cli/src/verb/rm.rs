//! `rm`: removes named keys as one, or everything under a prefix after a question.

use std::collections::HashSet;

use pakv::WriteBatch;

use super::key_of;
use crate::args::RmArgs;
use crate::context::{Context, Creates};
use crate::exit::Exit;
use crate::failure::{Failure, key_name};
use crate::output::counted;
use crate::parse;
use crate::progress::Progress;

pub(super) fn run(cx: &mut Context, args: &RmArgs) -> Result<Exit, Failure> {
    match &args.prefix {
        Some(prefix) => remove_prefix(cx, parse::bytes(prefix), args.yes),
        None => remove_keys(cx, args),
    }
}

fn remove_keys(cx: &mut Context, args: &RmArgs) -> Result<Exit, Failure> {
    let mut seen = HashSet::new();
    let mut keys = args.keys.iter().map(|key| key_of(key)).collect::<Result<Vec<_>, _>>()?;
    // Named twice, a key would be missing the second time.
    keys.retain(|key| seen.insert(*key));
    let store = cx.writer(Creates::No)?;
    let mut transaction = store.transaction()?;
    let mut missing = Vec::new();
    for key in &keys {
        if transaction.contains(key)? {
            transaction.delete(*key);
        } else {
            missing.push(key_name(key));
        }
    }
    transaction.commit()?;
    store.close()?;
    match (missing.is_empty(), keys.len()) {
        (true, _) => Ok(Exit::Done),
        (false, 1) => Err(Failure::key_not_found()),
        (false, _) => {
            let message = format!("Key not found: {}", missing.join(", "));
            Err(Failure::negative("key_not_found", message))
        }
    }
}

fn remove_prefix(cx: &mut Context, prefix: &[u8], yes: bool) -> Result<Exit, Failure> {
    let store = cx.writer(Creates::No)?;
    let count = u64::try_from(store.scan_prefix(prefix)?.count()).unwrap_or(u64::MAX);
    if count > 0 && !yes {
        let which = if prefix.is_empty() {
            "all of them".to_string()
        } else {
            format!("those that begin with {}", key_name(prefix))
        };
        let question = format!("Remove {}, {which}?", counted(count, "key"));
        let instead = "add --yes to remove without a question";
        let answer = cx.confirm(&question, instead);
        if !matches!(answer, Ok(true)) {
            store.close()?;
            answer?;
            return Err(Failure::negative("not_confirmed", "Nothing removed"));
        }
    }
    delete_all(&store, prefix, count)?;
    store.close()?;
    Ok(Exit::Done)
}

/// In batches, so that memory does not grow with the number of keys.
fn delete_all(store: &pakv::Db, prefix: &[u8], count: u64) -> Result<(), Failure> {
    const BATCH_KEYS: usize = 10_000;
    let progress = Progress::entries("removing", Some(count));
    let mut batch = WriteBatch::new();
    for (done, entry) in (0..).zip(store.scan_prefix(prefix)?) {
        batch.delete(entry.key());
        if batch.len() == BATCH_KEYS {
            store.write(&batch)?;
            batch.clear();
            progress.set(done);
        }
    }
    store.write(&batch)?;
    Ok(())
}
