//! Somebody else acts between two calls of an open: a writer beside a reader, a handle that is let
//! go of. Every place between two calls is tried.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pakv::storage::{Lock, Mapping, PathKind, Storage, StorageFile};
use pakv::{Db, Durability, Options, WriteBatch};
use pakv_testkit::sim::SimStorage;

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Act = Box<dyn FnOnce() + Send>;

/// A storage before one of whose calls something happens.
#[derive(Clone)]
struct Interrupted {
    inner: SimStorage,
    left: Arc<AtomicU64>,
    act: Arc<Mutex<Option<Act>>>,
}

impl Interrupted {
    /// `act` happens before the call after so many.
    fn new(inner: &SimStorage, calls: u64, act: impl FnOnce() + Send + 'static) -> Self {
        let act: Act = Box::new(act);
        Self {
            inner: inner.clone(),
            left: Arc::new(AtomicU64::new(calls)),
            act: Arc::new(Mutex::new(Some(act))),
        }
    }

    /// Nothing happens before the call after so many, counted from here.
    fn after(&self, calls: u64) {
        self.left.store(calls, Ordering::SeqCst);
    }

    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    /// Whether there were so many calls.
    fn has_acted(&self) -> bool {
        self.act.lock().is_ok_and(|act| act.is_none())
    }

    fn call(&self) -> &SimStorage {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0
            && let Some(act) = self.act.lock().ok().and_then(|mut act| act.take())
        {
            act();
        }
        &self.inner
    }

    fn file(&self, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(File { storage: self.clone(), inner })
    }
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupted")
    }
}

impl Storage for Interrupted {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn kind(&self) -> io::Result<PathKind> {
        self.call().kind()
    }

    fn create_dir(&self) -> io::Result<()> {
        self.call().create_dir()
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        self.call().list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.call().create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        self.call().open(name, writable).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call().rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call().remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.call().sync_dir()
    }

    fn lock(&self, name: &str) -> io::Result<Lock> {
        self.call().lock(name)
    }
}

#[derive(Debug)]
struct File {
    storage: Interrupted,
    inner: Arc<dyn StorageFile>,
}

impl File {
    fn call(&self) -> &dyn StorageFile {
        self.storage.call();
        &*self.inner
    }
}

impl StorageFile for File {
    fn len(&self) -> io::Result<u64> {
        self.call().len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call().read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.call().write_at(buffer, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call().set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.call().sync()
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        self.call().map(len)
    }
}

fn options() -> Options {
    let options = Options::new().background_compaction(false).segment_bytes(1_024);
    options.lock_wait(std::time::Duration::ZERO).compaction_min_garbage(1)
}

fn storage(machine: &SimStorage) -> Arc<dyn Storage> {
    Arc::new(machine.clone())
}

/// One thing that a writer does.
#[derive(Debug, Clone, Copy)]
enum Do {
    Set(&'static str, usize),
    Delete(&'static str),
    Compact,
    Close,
}

/// What a writer does while a reader opens the store, after an open of its own.
const ACTS: [&[Do]; 7] = [
    &[],
    &[Do::Set("n0", 1), Do::Set("n1", 1), Do::Set("n2", 1), Do::Set("n3", 1), Do::Set("n0", 2)],
    &[Do::Set("n0", 400), Do::Set("n1", 400), Do::Set("n2", 400), Do::Set("n3", 400)],
    &[Do::Compact, Do::Set("n0", 9), Do::Compact, Do::Set("k1", 9), Do::Compact],
    &[Do::Set("k0", 100), Do::Compact, Do::Set("k2", 150), Do::Set("k1", 150), Do::Compact],
    &[Do::Delete("k0"), Do::Delete("k1"), Do::Delete("k4"), Do::Compact, Do::Set("k1", 3)],
    &[Do::Set("k3", 3), Do::Close],
];

type Contents = Vec<(Vec<u8>, Vec<u8>)>;

/// Lets a writer act, and returns every state of the store on the way. It goes on to have the store
/// open, unless it closes it.
fn act(machine: &SimStorage, todo: &[Do]) -> pakv::Result<Vec<Contents>> {
    let db = std::mem::ManuallyDrop::new(options().open_storage(storage(machine))?);
    go_on(&db, todo)
}

/// The same with a store that is open.
fn go_on(db: &Db, todo: &[Do]) -> pakv::Result<Vec<Contents>> {
    let mut states = vec![contents(db)?];
    for what in todo {
        match what {
            Do::Set(key, len) => db.set(key, "v".repeat(*len))?,
            Do::Delete(key) => assert!(db.delete(key)?, "{key} is there"),
            Do::Compact => {
                db.compact()?;
            }
            Do::Close => return db.clone().close().map(|()| states),
        }
        states.push(contents(db)?);
    }
    Ok(states)
}

/// A store with several segments and garbage, and a tail that was not synced: it has a hole in a
/// batch, and good records behind that.
fn left_by_a_crash() -> pakv::Result<SimStorage> {
    let machine = SimStorage::new(7);
    let db = options().open_storage(storage(&machine))?;
    for number in 0..20 {
        db.set(format!("k{}", number % 5), format!("{number:080}"))?;
    }
    let db = db.with_durability(Durability::Buffered)?;
    db.compact()?;
    db.set("buffered", "1")?;
    let active = db.stats()?.segments.iter().find(|segment| segment.active).map(|it| it.segment);
    let active = format!("{:010}.log", active.unwrap_or(0));
    let hole = machine.file_len(&active).unwrap_or(0) + 60;
    let mut batch = WriteBatch::new();
    batch.set("torn/1", "x".repeat(40)).set("torn/2", "y".repeat(40));
    db.write(&batch)?;
    (0..6).try_for_each(|number| db.set("behind", format!("{number:020}")))?;
    machine.power_off();
    drop(db);
    let killed = machine.copy(1);
    killed.flip(&active, hole, 3);
    let db = options().read_only(true).open_storage(storage(&killed))?;
    assert!(db.contains("buffered")? && !db.contains("torn/1")? && !db.contains("behind")?);
    Ok(killed)
}

fn contents(db: &Db) -> pakv::Result<Contents> {
    db.scan()?.map(|entry| entry.into_pair()).collect()
}

/// A reader found a hole in the tail, which is no damage unless a record behind it vouches for it. A
/// writer that was just opening the store then cut the tail, appended in its place and synced; the
/// reader looked behind the hole, found records that vouched, and reported damage that was not
/// there. A reader looks twice before it does.
#[test]
fn a_reader_opens_whatever_a_writer_does_between_its_calls() -> Outcome {
    let mut wrong = Vec::new();
    for todo in ACTS {
        let states = act(&left_by_a_crash()?, todo)?;
        assert!(states.len() > todo.len().saturating_sub(1), "{todo:?} goes to its end");
        for calls in 0.. {
            let machine = left_by_a_crash()?;
            let beside = machine.clone();
            let opened = Interrupted::new(&machine, calls, move || {
                act(&beside, todo).unwrap_or_else(|error| panic!("{todo:?}: {error}"));
            });
            let context = format!("at call {calls} of a reader a writer does {todo:?}");
            let db = options().read_only(true).open_storage(opened.storage());
            match db.and_then(|db| contents(&db)) {
                Ok(found) if states.contains(&found) => {}
                Ok(found) => wrong.push(format!("{context}: {} entries", found.len())),
                Err(error) => wrong.push(format!("{context}: {error}")),
            }
            if !opened.has_acted() {
                assert!(calls > 10, "an open has more calls than {calls}");
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// A writer fills space that it has prepared. A reader saw zeros; when it looked behind them there
/// were records, the later of which vouch for the earlier ones.
#[test]
fn a_reader_opens_beside_a_writer_that_fills_prepared_space() -> Outcome {
    for calls in 0.. {
        let machine = SimStorage::new(3);
        let options = || options().segment_bytes(64 * 1024);
        let db = options().open_storage(storage(&machine))?;
        (0..20).try_for_each(|number| db.set(format!("a{number}"), [b'v'; 70]))?;
        let active = machine.file_len("0000000001.log").unwrap_or(0) as u64;
        assert!(active > db.stats()?.segments[0].bytes, "space is prepared");
        let writer = db.clone();
        let opened = Interrupted::new(&machine, calls, move || {
            for number in 0..30 {
                let set = writer.set(format!("b{number}"), [b'v'; 70]);
                set.unwrap_or_else(|error| panic!("set {number}: {error}"));
            }
        });
        let reader = options().read_only(true).open_storage(opened.storage());
        let reader = reader.unwrap_or_else(|error| panic!("at call {calls}: {error}"));
        let found = contents(&reader)?;
        let expected = contents(&db)?;
        let is_prefix = found.iter().filter(|(key, _)| key[0] == b'b').count() <= 30
            && found.iter().all(|entry| expected.contains(entry))
            && found.iter().filter(|(key, _)| key[0] == b'a').count() == 20;
        assert!(is_prefix, "at call {calls}: {} entries", found.len());
        if !opened.has_acted() {
            assert!(calls > 10, "an open has more calls than {calls}");
            return Ok(());
        }
    }
    Ok(())
}

/// A snapshot outlives the close of its store and keeps files that compaction has replaced. The next
/// open finds them as orphans; they may go at any moment of it.
#[test]
fn an_open_does_not_mind_who_removes_an_orphan() -> Outcome {
    for calls in 0.. {
        let machine = SimStorage::new(calls);
        let db = options().open_storage(storage(&machine))?;
        for number in 0..24 {
            db.set("key", format!("{number:0100}"))?;
        }
        let snapshot = db.snapshot()?;
        db.set("key", "newer")?;
        db.compact()?;
        db.close()?;
        let opened = Interrupted::new(&machine, calls, move || drop(snapshot));
        let db = options().open_storage(opened.storage());
        let db = db.unwrap_or_else(|error| panic!("let go of at call {calls}: {error}"));
        assert_eq!(db.get("key")?.as_deref(), Some(&b"newer"[..]));
        if !opened.has_acted() {
            assert!(calls > 10, "an open has more calls");
            return Ok(());
        }
    }
    Ok(())
}

/// A reader moves on while a writer acts between two of its calls: what it sees is a state that the
/// writer had, not one from before what it saw already, and the last one when it looks again. What a
/// watch gives adds up to the same.
#[test]
fn a_reader_refreshes_whatever_a_writer_does_between_its_calls() -> Outcome {
    let mut wrong = Vec::new();
    for (before, todo) in ACTS.iter().flat_map(|before| ACTS.map(|todo| (*before, todo))) {
        // Of two acts of which the first closes the store, the second would be a crash's.
        if before.iter().any(|what| matches!(what, Do::Close)) {
            continue;
        }
        // A key is deleted once.
        if [before, todo].iter().all(|acts| matches!(acts.first(), Some(Do::Delete(_)))) {
            continue;
        }
        for calls in 0.. {
            let machine = left_by_a_crash()?;
            let beside = machine.clone();
            let states = Arc::new(Mutex::new(Vec::new()));
            let (seen, writer) = (states.clone(), Arc::new(Mutex::new(None::<Db>)));
            let opened = Interrupted::new(&machine, u64::MAX, {
                let writer = writer.clone();
                move || {
                    let db = writer.lock().expect("nobody panics").clone().expect("it is open");
                    let later = go_on(&db, todo).unwrap_or_else(|e| panic!("{todo:?}: {e}"));
                    seen.lock().expect("nobody panics").extend(later);
                }
            });
            let context = format!("a writer does {before:?}, and at call {calls} {todo:?}");
            let db = options().read_only(true).open_storage(opened.storage())?;
            let old = contents(&db)?;
            let snapshot = db.snapshot()?;
            let mut watch = db.watch(snapshot.seqno() + 1)?;
            let owner = options().open_storage(storage(&beside))?;
            let first = go_on(&owner, before)?;
            states.lock().expect("nobody panics").extend(first.last().cloned());
            *writer.lock().expect("nobody panics") = Some(owner);
            opened.after(calls);
            let refreshed = db.refresh();
            opened.after(u64::MAX);
            let found = contents(&db)?;
            match refreshed {
                Err(error) => wrong.push(format!("{context}: {error}")),
                Ok(_) if states.lock().expect("nobody panics").contains(&found) => {}
                Ok(_) => wrong.push(format!("{context}: {} entries", found.len())),
            }
            db.refresh()?;
            let found = contents(&db)?;
            if states.lock().expect("nobody panics").last() != Some(&found) {
                wrong.push(format!("{context}, at the end: {} entries", found.len()));
            }
            let mut gathered: std::collections::BTreeMap<_, _> = old.iter().cloned().collect();
            let mut next = watch.next_seqno();
            for change in watch.by_ref() {
                match change {
                    Ok(change) => {
                        assert_eq!(change.seqno, next, "{context}: in order");
                        next += 1;
                        match change.value {
                            Some(value) => gathered.insert(change.key, value),
                            None => gathered.remove(&change.key),
                        };
                    }
                    Err(pakv::Error::HistoryGone { .. }) => {
                        gathered = found.iter().cloned().collect();
                    }
                    Err(error) => wrong.push(format!("{context}: {error}")),
                }
            }
            assert!(gathered.into_iter().eq(found), "{context}: what the changes add up to");
            let kept: Contents =
                snapshot.scan().map(|entry| entry.into_pair()).collect::<Result<_, _>>()?;
            assert_eq!(kept, old, "{context}: a snapshot from before");
            drop(writer.lock().expect("nobody panics").take());
            if !opened.has_acted() {
                assert!(calls > 3, "a refresh has more calls than {calls}");
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// A writer was killed in the middle of a batch. A reader had read the beginning of that when the
/// next writer cut it off and put one of its own in the place, with the same sequence numbers and
/// records of the same lengths: half of one and half of the other make no batch.
#[test]
fn a_batch_is_not_put_together_of_two() -> Outcome {
    // Larger than what is read at once, so that reads begin where records do.
    let large = 300 * 1024;
    let batch_of = move |keys: [&str; 4]| {
        let mut batch = WriteBatch::new();
        for key in keys {
            batch.set(key, vec![key.as_bytes()[0]; large]);
        }
        batch
    };
    let options = || options().segment_bytes(16 << 20);
    let killed = || -> pakv::Result<SimStorage> {
        let machine = SimStorage::new(5);
        let db = options().durability(Durability::Buffered).open_storage(storage(&machine))?;
        db.set("before", "value")?;
        let whole = machine.file_len("0000000001.log").unwrap_or(0);
        db.write(&batch_of(["a1", "a2", "a3", "a4"]))?;
        machine.power_off();
        drop(db);
        let killed = machine.copy(1);
        // Its last record is not whole: the first three are.
        let end = killed.file_len("0000000001.log").unwrap_or(0);
        assert!(end > whole + 4 * large);
        killed.flip("0000000001.log", end - 10, 1);
        Ok(killed)
    };
    for follows in [false, true] {
        for calls in 0.. {
            let machine = killed()?;
            let beside = machine.clone();
            let opened = Interrupted::new(&machine, u64::MAX, move || {
                let db = options().open_storage(storage(&beside)).expect("the next writer opens");
                db.write(&batch_of(["b1", "b2", "b3", "b4"])).expect("write succeeds");
                std::mem::forget(db);
            });
            let open = || options().read_only(true).open_storage(opened.storage());
            let reader = if follows {
                let reader = open()?;
                opened.after(calls);
                reader.refresh()?;
                reader
            } else {
                opened.after(calls);
                open()?
            };
            let keys: Vec<_> = reader.scan()?.map(|entry| entry.key().to_vec()).collect();
            let before: &[&[u8]] = &[b"before"];
            let after: &[&[u8]] = &[b"b1", b"b2", b"b3", b"b4", b"before"];
            assert!(keys == before || keys == after, "at call {calls}: {keys:?}");
            if !opened.has_acted() {
                assert!(calls > 6, "there are more calls than {calls}");
                break;
            }
        }
    }
    Ok(())
}
