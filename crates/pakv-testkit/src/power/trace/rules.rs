//! The rules.
//!
//! 1. A file is renamed only once it was synced after its last write.
//! 2. The thread that renamed a file syncs the directory before it renames, unlinks or acknowledges
//!    anything. (Another thread may unlink meanwhile, within rule 4.)
//! 3. A manifest is put in place only once every segment that it lists is durable: its last write
//!    as well as its name. (Of the active one, which is being written, that is its beginning.)
//! 4. A segment or a hint is unlinked only once a manifest without it is durable, name included.
//! 5. A step is acknowledged only once the record it wrote was synced, and that in a segment that a
//!    durable manifest lists.
//! 6. After a sync that failed, that file is neither synced nor written again, and no step in it is
//!    acknowledged that was not durable before. The same holds for the directory, whatever it was
//!    synced for and by which thread.
//!
//! "Once" means: the one call had returned before the other began.

use std::collections::BTreeSet;

use super::parse::{Call, Trace};

/// How much a check looked at, so that a trace in which nothing happened does not pass for a good
/// one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Files that were renamed.
    pub renames: usize,
    /// Manifests among them.
    pub manifests: usize,
    /// Segments and hints that were unlinked.
    pub unlinks: usize,
    /// Acknowledgements whose records were found in a write.
    pub acknowledgements: usize,
    /// Syncs that failed.
    pub failed_syncs: usize,
}

/// Holds the calls of a child against the rules. `dir` is the store's directory, as the calls name
/// it.
///
/// # Errors
/// The first violation, with the calls.
pub fn check(trace: &Trace, dir: &str) -> Result<Looked, String> {
    let rules = Rules { calls: &trace.0, dir, manifests: manifests(&trace.0, dir)? };
    let mut looked = Looked { manifests: rules.manifests.len(), ..Looked::default() };
    rules.nothing_unknown()?;
    for call in &trace.0 {
        match call.name.as_str() {
            "rename" if call.succeeded() => {
                rules.rename(call)?;
                looked.renames += 1;
            }
            "unlink" if call.succeeded() => looked.unlinks += usize::from(rules.unlink(call)?),
            "write" => looked.acknowledgements += usize::from(rules.acknowledgement(call)?),
            "fsync" | "fdatasync" if call.failed() => {
                rules.failed_sync(call)?;
                looked.failed_syncs += 1;
            }
            _ => {}
        }
    }
    for manifest in &rules.manifests {
        rules.manifest(manifest)?;
    }
    Ok(looked)
}

/// A manifest that was put in place.
struct Manifest {
    rename_begin: usize,
    /// When the sync of the directory that made it durable had ended; `usize::MAX` if none did.
    durable: usize,
    /// The names of the segments that it lists.
    lists: BTreeSet<String>,
    /// The one of them that is being written.
    active: Option<String>,
}

struct Rules<'a> {
    calls: &'a [Call],
    dir: &'a str,
    manifests: Vec<Manifest>,
}

impl Rules<'_> {
    /// Calls that the engine does not make, so that no rule was written for them.
    fn nothing_unknown(&self) -> Result<(), String> {
        let known = ["openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "rename"];
        let unknown = self.calls.iter().find(|call| {
            call.args.contains(self.dir)
                && !known.contains(&call.name.as_str())
                && call.name != "unlink"
        });
        unknown.map_or(Ok(()), |call| Err(format!("no rule knows this call: {call:?}")))
    }

    fn rename(&self, rename: &Call) -> Result<(), String> {
        let paths = rename.paths();
        let from = &paths[0];
        let synced = self.synced_since_last_change(from, rename.begin);
        if !synced {
            return Err(format!("renamed before it was synced: {rename:?}"));
        }
        let next = self.calls.iter().find(|call| {
            call.thread == rename.thread
                && call.begin > rename.end
                && match call.name.as_str() {
                    "write" => call.args.starts_with("1<"),
                    "fsync" => call.fd_path() == Some(self.dir),
                    name => name == "rename" || name == "unlink",
                }
        });
        match next {
            // After a failed sync none is tried; what a durable manifest drops may go all the same,
            // and that it does is asked of every unlink.
            Some(next) if next.name == "unlink" && self.a_sync_failed_before(next.begin) => Ok(()),
            Some(next) if next.name != "fsync" => {
                Err(format!("the directory was not synced before {next:?}, after {rename:?}"))
            }
            _ => Ok(()),
        }
    }

    fn unlink(&self, unlink: &Call) -> Result<bool, String> {
        let path = unlink.paths().remove(0);
        let name = self.name(&path).to_string();
        if !name.ends_with(".log") && !name.ends_with(".hint") {
            return Ok(false);
        }
        let segment = name.replace(".hint", ".log");
        let lists = |manifest: &&Manifest| manifest.lists.contains(&segment);
        let Some(durable) = self.durable_manifest(unlink.begin) else {
            return Err(format!("unlinked before any manifest was durable: {unlink:?}"));
        };
        // Nor may one that is on its way list it.
        let coming = self.manifests.iter().filter(|manifest| {
            manifest.rename_begin < unlink.begin && manifest.rename_begin > durable.rename_begin
        });
        if std::iter::once(durable).chain(coming).any(|manifest| lists(&manifest)) {
            return Err(format!("unlinked while a manifest lists it: {unlink:?}"));
        }
        Ok(true)
    }

    fn manifest(&self, manifest: &Manifest) -> Result<(), String> {
        for name in &manifest.lists {
            let path = format!("{}/{name}", self.dir);
            let at = manifest.rename_begin;
            let created = self.created(&path, at);
            let wrong = match created {
                // From before the trace began.
                None => continue,
                Some(created) if !self.is_synced_between(self.dir, created.end, at) => "its name",
                Some(created) if !self.is_synced_between(&path, created.end, at) => "its header",
                Some(_)
                    if manifest.active.as_ref() != Some(name)
                        && !self.synced_since_last_change(&path, at) =>
                {
                    "its content"
                }
                Some(_) => continue,
            };
            return Err(format!(
                "line {at}: a manifest lists {name} before {wrong} is durable: {created:?}"
            ));
        }
        Ok(())
    }

    /// A line of the child: `THREAD STEP`. Its record is found by its key, which names the thread,
    /// followed by its value, which names the step; a step that only deletes has none.
    fn acknowledgement(&self, ack: &Call) -> Result<bool, String> {
        if !ack.args.starts_with("1<") {
            return Ok(false);
        }
        let line = ack.paths().remove(0);
        let Some((thread, step)) = line.trim_end().split_once(' ') else {
            return Ok(false);
        };
        let key = format!("thread-{thread}/").into_bytes();
        let value = format!("step {step} write ").into_bytes();
        let holds_record = |bytes: &[u8]| {
            bytes.windows(key.len()).enumerate().any(|(at, window)| {
                let rest = &bytes[at..];
                window == key
                    // Two digits of the key and the length of the value, a varint, lie between.
                    && (3..=4).any(|between| {
                        rest.get(key.len() + between..).is_some_and(|rest| rest.starts_with(&value))
                    })
            })
        };
        let write = self.calls.iter().find(|call| {
            call.name == "pwrite64"
                && call.begin < ack.begin
                && call.fd_path().is_some_and(|path| path.ends_with(".log"))
                && call.strings().iter().any(|bytes| holds_record(bytes))
        });
        let Some(write) = write else {
            return Ok(false);
        };
        let log = write.fd_path().unwrap_or_default();
        let failure = self.first_failed_sync(log).map_or(usize::MAX, |failure| failure.end);
        if !self.is_synced_between(log, write.end, ack.begin.min(failure)) {
            return Err(format!("acknowledged before it was synced: {ack:?}, after {write:?}"));
        }
        let listed = self
            .durable_manifest(ack.begin)
            .is_some_and(|manifest| manifest.lists.contains(self.name(log)));
        // By then it may have been compacted, so a manifest before this one may be what listed it.
        let was_listed = || {
            self.manifests.iter().any(|manifest| {
                manifest.durable < ack.begin && manifest.lists.contains(self.name(log))
            })
        };
        if !listed && !was_listed() {
            return Err(format!("acknowledged in a segment that no manifest lists: {ack:?}"));
        }
        Ok(true)
    }

    fn failed_sync(&self, failed: &Call) -> Result<(), String> {
        let path = failed.fd_path();
        // A new file of the same name is another file.
        let is_made_anew = |call: &&Call| {
            call.name == "openat"
                && call.begin > failed.end
                && call.args.contains("O_EXCL")
                && call.paths().first().map(String::as_str) == path
        };
        let until = self.calls.iter().find(is_made_anew).map_or(usize::MAX, |call| call.begin);
        let again = self.calls.iter().find(|call| {
            call.begin > failed.end
                && call.begin < until
                && call.fd_path() == path
                && matches!(call.name.as_str(), "fsync" | "fdatasync" | "pwrite64" | "ftruncate")
        });
        again.map_or(Ok(()), |again| Err(format!("after {failed:?} the same file: {again:?}")))
    }

    fn a_sync_failed_before(&self, line: usize) -> bool {
        let is_sync = |call: &&Call| matches!(call.name.as_str(), "fsync" | "fdatasync");
        self.calls.iter().filter(is_sync).any(|call| call.failed() && call.end < line)
    }

    fn first_failed_sync(&self, path: &str) -> Option<&Call> {
        let is_sync = |call: &&Call| matches!(call.name.as_str(), "fsync" | "fdatasync");
        let mut syncs = self.calls.iter().filter(is_sync);
        syncs.find(|call| call.failed() && call.fd_path() == Some(path))
    }

    /// Whether the path, a file or the directory, was synced by a call that began and ended in
    /// between.
    fn is_synced_between(&self, path: &str, after: usize, before: usize) -> bool {
        self.calls
            .iter()
            .any(|call| is_sync_of(call, path) && call.begin > after && call.end < before)
    }

    fn synced_since_last_change(&self, path: &str, before: usize) -> bool {
        let last = self.calls.iter().rev().find(|call| {
            call.begin < before
                && matches!(call.name.as_str(), "pwrite64" | "write" | "ftruncate")
                && call.fd_path() == Some(path)
        });
        last.is_some_and(|change| self.is_synced_between(path, change.end, before))
    }

    /// The newest manifest that was durable when line `before` came.
    fn durable_manifest(&self, before: usize) -> Option<&Manifest> {
        self.manifests.iter().rev().find(|manifest| manifest.durable < before)
    }

    fn created(&self, path: &str, before: usize) -> Option<&Call> {
        self.calls.iter().rev().find(|call| {
            call.name == "openat"
                && call.begin < before
                && call.succeeded()
                && call.args.contains("O_EXCL")
                && call.paths().first().is_some_and(|opened| opened == path)
        })
    }

    fn name<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(self.dir).map_or(path, |name| name.trim_start_matches('/'))
    }
}

fn is_sync_of(call: &Call, path: &str) -> bool {
    matches!(call.name.as_str(), "fsync" | "fdatasync")
        && call.succeeded()
        && call.fd_path() == Some(path)
}

fn manifests(calls: &[Call], dir: &str) -> Result<Vec<Manifest>, String> {
    let target = format!("{dir}/MANIFEST");
    let temporary = format!("{target}.tmp");
    let mut content = Vec::new();
    let mut manifests = Vec::new();
    for call in calls {
        match call.name.as_str() {
            "openat" if call.args.contains("O_EXCL") && call.paths()[0] == temporary => {
                content.clear();
            }
            "pwrite64" if call.fd_path() == Some(&temporary) => {
                content.extend(call.strings().concat());
            }
            "rename" if call.succeeded() && call.paths()[1] == target => {
                let synced = calls
                    .iter()
                    .find(|sync| {
                        sync.thread == call.thread
                            && sync.begin > call.end
                            && sync.fd_path() == Some(dir)
                    })
                    .filter(|sync| sync.succeeded())
                    .map_or(usize::MAX, |sync| sync.end);
                let (lists, active) = listed(&content)
                    .ok_or_else(|| format!("not a manifest: {}", content.escape_ascii()))?;
                manifests.push(Manifest {
                    rename_begin: call.begin,
                    durable: synced,
                    lists,
                    active,
                });
            }
            _ => {}
        }
    }
    Ok(manifests)
}

/// The segments that a manifest lists, and which of them is active: read after `docs/format.md`, not
/// with the engine's decoder.
fn listed(file: &[u8]) -> Option<(BTreeSet<String>, Option<String>)> {
    const PREAMBLE_FRAME_AND_STORE: usize = 16 + 8 + 16;
    let mut rest = file.get(PREAMBLE_FRAME_AND_STORE..)?.iter();
    let mut number = || -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *rest.next()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    };
    let (_next_segment, _next_seqno) = (number()?, number()?);
    let mut names = BTreeSet::new();
    for _ in 0..number()? {
        names.insert(format!("{:010}.log", number()?));
        for _bytes_records_and_seqnos in 0..4 {
            number()?;
        }
    }
    let active = if number()? == 1 { Some(format!("{:010}.log", number()?)) } else { None };
    names.extend(active.clone());
    Some((names, active))
}
