//! `Handle`: what the handles, snapshots and scans of a store share. The last to go closes it.

use std::sync::Arc;

use crate::core::Core;
use crate::error::Result;
use crate::options::Durability;
use crate::sync::Mutex;
use crate::sync::thread::JoinHandle;
use crate::worker;

/// What all handles, snapshots and scans of a store share: the last to go closes it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) core: Arc<Core>,
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    worker: Option<JoinHandle<()>>,
    merger: Option<JoinHandle<()>>,
    syncer: Option<JoinHandle<()>>,
}

impl Handle {
    pub(crate) fn new(core: Arc<Core>) -> Result<Self> {
        let handle = Self { core, threads: Mutex::new(Threads::default()) };
        let options = &handle.core.options;
        if options.background && !options.read_only {
            let mut threads = handle.threads.lock();
            threads.worker = Some(worker::start_worker(&handle.core)?);
            threads.syncer = Some(worker::start_syncer(&handle.core)?);
            threads.merger = Some(worker::start_merger(&handle.core)?);
            // An open leaves its keys as they came.
            handle.core.merger.wake();
        }
        Ok(handle)
    }

    /// Without background threads the one that syncs runs once a handle with
    /// `Durability::Interval` exists.
    pub(crate) fn ensure_syncer(&self, durability: Durability) -> Result<()> {
        let mut threads = self.threads.lock();
        if matches!(durability, Durability::Interval(_))
            && threads.syncer.is_none()
            && !self.core.options.read_only
        {
            threads.syncer = Some(worker::start_syncer(&self.core)?);
        }
        Ok(())
    }

    /// A store that is open for reading only needs the thread that merges the keydir once it follows
    /// a writer.
    pub(crate) fn ensure_merger(&self) -> Result<()> {
        let options = &self.core.options;
        let mut threads = self.threads.lock();
        if options.background && options.read_only && threads.merger.is_none() {
            threads.merger = Some(worker::start_merger(&self.core)?);
        }
        Ok(())
    }

    pub(crate) fn close(&self) -> Result<()> {
        self.core.worker.stop();
        self.core.syncer.stop();
        self.core.merger.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in [threads.worker, threads.syncer, threads.merger].into_iter().flatten() {
            // A thread that panicked has poisoned the store, which `close` reports.
            let _ = thread.join();
        }
        self.core.close()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left to tell: whoever wants to know calls `Db::close`.
        let _ = self.close();
    }
}
