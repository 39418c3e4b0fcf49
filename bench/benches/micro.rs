//! The hot paths one by one, through what a program can call: which of them a change made faster or
//! slower. What has no call of its own is measured by the one that does little else: records are
//! encoded by a large batch, decoded by the inspection of a segment; hints are decoded by an open.
//!
//! `cargo bench --manifest-path bench/Cargo.toml -- get` runs those with "get" in their name;
//! `--save-baseline before` and `--baseline before` compare two versions.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pakv::{Db, Durability, MAX_SEGMENT_BYTES, Options, WriteBatch, inspect};
use tempfile::TempDir;

const KEYS: u64 = 200_000;
const VALUE: [u8; 100] = [0xA5; 100];
const PAGE: usize = 1000;

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// 24 bytes, in an order that has nothing to do with that of the numbers.
fn key(id: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&mix(id + 1).to_be_bytes());
    key[16..].copy_from_slice(&id.to_be_bytes());
    key
}

/// Numbers in an order that no cache foresees.
fn numbers() -> impl FnMut() -> u64 {
    let mut turn = 0;
    move || {
        turn += 1;
        mix(turn) % KEYS
    }
}

fn options(segment_bytes: u64) -> Options {
    Options::new().durability(Durability::Buffered).segment_bytes(segment_bytes)
}

/// Almost all in sealed segments.
const SEALED: u64 = 2 << 20;
/// Everything in the active segment.
const ACTIVE: u64 = MAX_SEGMENT_BYTES;

fn filled(segment_bytes: u64) -> (TempDir, Db) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = options(segment_bytes).open(dir.path()).expect("an empty store opens");
    for id in 0..KEYS {
        db.set(key(id), VALUE).expect("a set");
    }
    (dir, db)
}

fn get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get");
    for (name, segment_bytes) in [("sealed", SEALED), ("active", ACTIVE)] {
        let (_dir, db) = filled(segment_bytes);
        let mut next = numbers();
        group.bench_function(format!("hit, {name}"), |bench| {
            bench.iter(|| black_box(db.get(key(next())).expect("a get").expect("is there")));
        });
        group.bench_function(format!("miss, {name}"), |bench| {
            bench.iter(|| black_box(db.get(key(next() + KEYS)).expect("a get")));
        });
        group.bench_function(format!("contains, {name}"), |bench| {
            bench.iter(|| black_box(db.contains(key(next())).expect("a look")));
        });
    }
}

fn set(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("set");
    for (name, bytes) in [("16 B", 16), ("100 B", 100), ("1 KiB", 1024), ("64 KiB", 65536)] {
        let (dir, db) = filled(SEALED * 32);
        let (mut next, value) = (numbers(), vec![0x5A; bytes]);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("overwrite, buffered, {name}"), |bench| {
            bench.iter(|| db.set(key(next()), &value).expect("a set"));
        });
        drop((db, dir));
    }
    let (_dir, db) = filled(SEALED * 32);
    let (mut next, durable) =
        (numbers(), db.with_durability(Durability::Sync).expect("a handle of its own"));
    group.bench_function("overwrite, synced, 100 B", |bench| {
        bench.iter(|| durable.set(key(next()), VALUE).expect("a set"));
    });
}

/// With so many records in one write what remains is to encode, to hand over and to publish them.
fn batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    for count in [100, 10_000] {
        let (_dir, db) = filled(SEALED * 32);
        let mut next = numbers();
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("encode and write {count}"), |bench| {
            let make = || {
                let mut batch = WriteBatch::new();
                (0..count).for_each(|_| _ = batch.set(key(next()), VALUE));
                batch
            };
            let write = |batch: &mut WriteBatch| db.write(batch).expect("a batch");
            bench.iter_batched_ref(make, write, BatchSize::PerIteration);
        });
    }
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).expect("the store's directory").flatten();
    let mut paths: Vec<_> = files.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|name| name == "log"));
    paths.sort();
    paths
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let (dir, db) = filled(SEALED);
    db.close().expect("a clean close");
    let path = segment_files(dir.path()).swap_remove(0);
    let records = inspect::segment(&path).expect("a whole segment").len() as u64;
    group.throughput(Throughput::Elements(records));
    group.bench_function("records of a segment", |bench| {
        bench.iter(|| black_box(inspect::segment(&path).expect("a whole segment")));
    });
    group.sample_size(20);
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("open, hints", |bench| {
        bench.iter(|| options(SEALED).read_only(true).open(dir.path()).expect("it opens"));
    });
    let (dir, db) = filled(ACTIVE);
    db.close().expect("a clean close");
    group.bench_function("open, replay of the active segment", |bench| {
        bench.iter(|| options(ACTIVE).read_only(true).open(dir.path()).expect("it opens"));
    });
}

fn scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(PAGE as u64));
    let (_dir, db) = filled(SEALED);
    let mut next = numbers();
    group.bench_function("page of keys", |bench| {
        bench.iter(|| {
            let page = db.scan_range(key(next())..).expect("a scan").take(PAGE);
            page.map(|entry| entry.key().len()).sum::<usize>()
        });
    });
    group.bench_function("page of values", |bench| {
        bench.iter(|| {
            let page = db.scan_range(key(next())..).expect("a scan").take(PAGE);
            page.map(|entry| entry.value().expect("a value").len()).sum::<usize>()
        });
    });
    group.bench_function("page of keys, backwards", |bench| {
        bench.iter(|| {
            let page = db.scan_range(..key(next())).expect("a scan").rev().take(PAGE);
            page.map(|entry| entry.key().len()).sum::<usize>()
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("first of a range", |bench| {
        bench.iter(|| {
            db.scan_range(key(next())..).expect("a scan").next().map(|entry| entry.seqno())
        });
    });
}

criterion_group!(micro, get, set, batch, decode, scan);
criterion_main!(micro);
