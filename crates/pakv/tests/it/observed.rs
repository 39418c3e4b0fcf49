//! What the library tells a subscriber.

use std::fmt::Debug;
use std::fs;
use std::sync::{Arc, Mutex};

use pakv::storage::Storage;
use pakv::{Options, Result};
use pakv_testkit::sim::{CallKind, Effect, Fault, FaultError, SimStorage};
use pakv_testkit::{TestStore, files};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps the level and the message of every event, and the names of spans.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

impl Kept {
    fn push(&self, line: String) {
        self.0.lock().expect("no thread panicked").push(line);
    }

    /// What was told while `body` ran.
    fn during<T>(body: impl FnOnce() -> T) -> (T, Vec<String>) {
        let kept = Self::default();
        let result = tracing::subscriber::with_default(kept.clone(), body);
        let told = kept.0.lock().expect("no thread panicked").clone();
        (result, told)
    }
}

struct Message<'a>(&'a Level, &'a Kept);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.1.push(format!("{} {value:?}", self.0));
        }
    }
}

impl Subscriber for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.push(format!("in {}", attributes.metadata().name()));
        Id::from_u64(1)
    }
    fn event(&self, event: &Event<'_>) {
        event.record(&mut Message(event.metadata().level(), self));
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn an_open_a_seal_and_a_compaction_are_told() -> Result<()> {
    let dir = files::scratch();
    let (db, told) = Kept::during(|| TestStore::options().open(dir.path()));
    assert_eq!(told, ["in open", "INFO opened"]);
    let db = db?;
    let (result, told) = Kept::during(|| {
        db.set("small", "1")?;
        db.get("small")?;
        db.set("small", "2")
    });
    assert_eq!((result?, told), ((), vec![]), "reads and writes are not told");
    let (result, told) = Kept::during(|| db.compact());
    result?;
    let compaction = ["in compaction", "INFO compaction begins", "INFO compaction ends"];
    assert_eq!(told.first().map(String::as_str), Some("DEBUG sealed a segment"));
    assert_eq!(told[1..], compaction);
    db.close()
}

#[test]
fn what_an_open_mends_is_told() -> Result<()> {
    let dir = files::scratch();
    let db = TestStore::options().open(dir.path())?;
    (0..40).try_for_each(|number| db.set(format!("key{number}"), "a value"))?;
    let active = db.stats()?.segments.last().expect("one is active").segment;
    db.close()?;
    files::remove_hints(dir.path());
    fs::remove_file(dir.path().join("MANIFEST.tmp")).ok();
    let path = dir.path().join(format!("{active:010}.log"));
    let mut bytes = fs::read(&path).expect("it can be read");
    bytes.extend_from_slice(b"torn");
    fs::write(&path, bytes).expect("it can be written");
    let (db, told) = Kept::during(|| TestStore::options().open(dir.path()));
    db?.close()?;
    for wanted in ["WARN a hint was lost or wrong and is rebuilt", "WARN a torn tail is cut"] {
        assert!(told.iter().any(|line| line == wanted), "{wanted} is not in {told:?}");
    }
    Ok(())
}

#[test]
fn why_a_store_is_poisoned_is_told_once() -> Result<()> {
    let machine = SimStorage::new(0);
    let storage: Arc<dyn Storage> = Arc::new(machine.clone());
    let db = Options::new().background_compaction(false).open_storage(storage)?;
    let effect = Effect::Error(FaultError::Io);
    let fault = Fault { kind: Some(CallKind::Sync), after: 0, forever: true, effect };
    machine.set_fault(Some(fault));
    let (_, told) = Kept::during(|| {
        assert!(db.set("a", "1").is_err());
        assert!(db.set("b", "2").is_err());
    });
    assert_eq!(told, ["ERROR poisoned: writes are refused from here on"]);
    Ok(())
}
