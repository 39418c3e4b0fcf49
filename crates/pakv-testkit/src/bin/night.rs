//! A night on call, with real files: a store of a Debian system's files (key = path, value = content)
//! is backed up while it is written, checked, damaged in ten places, repaired, and everything outside
//! the damage compared byte for byte; another process reads all along. Prints how long each took. A
//! measurement that fails where anything is lost.
//!
//! `night [MIB [DIRECTORY...]]`: files of the directories (/usr/share and /usr/lib) until the store has
//! so many MiB (1024). Works in a new directory below the current one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use pakv::{Db, Durability, Options, inspect};
use pakv_testkit::timing::{age, now_ns, spread};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Keys of the paths begin with a slash; this one says when it was written.
const STAMP: &str = "stamp";
const DAMAGES: usize = 10;
/// The longest stretch of bytes that is overwritten in one place.
const DAMAGE_BYTES: usize = 4096;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if let (Some("read"), Some(store)) = (first.as_deref(), arguments.next()) {
        return read_along(Path::new(&store));
    }
    let mut arguments = std::env::args().skip(1);
    let mib: u64 = arguments.next().map_or(Ok(1024), |mib| mib.parse())?;
    let mut roots: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    if roots.is_empty() {
        roots = vec!["/usr/share".into(), "/usr/lib".into()];
    }
    let dir = tempfile::tempdir_in(".")?;
    let at = |name: &str| dir.path().join(name);
    let (store, copy) = (at("store"), at("copy"));
    let db = Options::new().durability(Durability::Buffered).open(&store)?;

    let begun = Instant::now();
    let sums = fill(&db, &roots, mib << 20)?;
    db.sync()?;
    say("fill", begun, db.stats()?.live_bytes);

    let mut reader = Command::new(std::env::current_exe()?)
        .args(["read".as_ref(), store.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Outcome<()> {
        let writer = scope.spawn(|| write_on(&db, &sums, &stop));
        let worked = at_work(&db, &store, &copy, &at("elsewhere"));
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().map_err(|_| "the writer panicked")??;
        println!("meanwhile            {written} writes");
        worked
    })?;
    drop(reader.stdin.take());
    let mut said = String::new();
    reader.stdout.take().ok_or("a pipe")?.read_to_string(&mut said)?;
    print!("{said}");
    if !reader.wait()?.success() {
        return Err("the reader failed".into());
    }
    db.close()?;

    let expected = contents(&Options::new().read_only(true).open(&copy)?)?;
    let (broken, touched) = damage(&copy, &at("broken"))?;
    let begun = Instant::now();
    let report = pakv::check(&broken)?;
    println!("check of the damage  {} findings", report.findings.len());
    say("  it took", begun, report.bytes_read);
    let report = pakv::repair(&broken, at("repaired"))?;
    println!(
        "repair               {} ranges left out, {:.2} s, {} MiB read",
        report.left_out.len(),
        report.duration.as_secs_f64(),
        report.bytes_read >> 20
    );
    let found = contents(&Options::new().read_only(true).open(at("repaired"))?)?;
    let lost: Vec<&Vec<u8>> = expected.keys().filter(|key| !found.contains_key(*key)).collect();
    let named: HashSet<&[u8]> = report.lost_keys().collect();
    let unnamed = lost.iter().filter(|key| !named.contains(key.as_slice())).count();
    let beyond = lost.iter().filter(|key| !touched.contains(**key)).count();
    let wrong = found.iter().filter(|(key, sum)| expected.get(*key) != Some(sum)).count();
    println!(
        "after the repair     {} keys; lost {}, of them not named {unnamed}; outside the damage \
        lost {beyond}, wrong {wrong}",
        found.len(),
        lost.len()
    );
    if beyond > 0 || wrong > 0 {
        return Err("something outside the damage is not what it was".into());
    }
    Ok(())
}

/// Sets files until there are so many bytes of them; returns their paths and checksums.
fn fill(db: &Db, roots: &[PathBuf], bytes_max: u64) -> Outcome<BTreeMap<String, u32>> {
    let (mut sums, mut bytes) = (BTreeMap::new(), 0);
    let mut left: Vec<PathBuf> = roots.iter().rev().cloned().collect();
    while let Some(path) = left.pop().filter(|_| bytes < bytes_max) {
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            let entries = fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path()));
            left.extend(entries.collect::<Result<Vec<_>, _>>()?);
        } else if kind.is_file()
            && let (Some(name), Ok(content)) = (path.to_str(), fs::read(&path))
        {
            db.set(name, &content)?;
            bytes += content.len() as u64;
            sums.insert(name.to_string(), crc32c::crc32c(&content));
        }
    }
    Ok(sums)
}

/// Sets random files again, and now and then the stamp.
fn write_on(db: &Db, sums: &BTreeMap<String, u32>, stop: &AtomicBool) -> Outcome<u64> {
    let paths: Vec<&String> = sums.keys().collect();
    let (mut rng, mut written) = (Rng::with_seed(1), 0);
    while !stop.load(Ordering::Relaxed) {
        db.set(STAMP, now_ns().to_string())?;
        let path = paths[rng.usize(..paths.len())];
        db.set(path, db.get(path)?.ok_or("a file is gone")?)?;
        written += 2;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(written)
}

/// What is done beside the writer.
fn at_work(db: &Db, store: &Path, copy: &Path, elsewhere: &Path) -> Outcome<()> {
    std::thread::sleep(Duration::from_secs(1));
    for name in ["backup, links", "  once more"] {
        let report = db.backup(copy)?;
        println!(
            "{name:<20} {:.3} s: {} segments linked, {} kept, {} MiB copied",
            report.duration.as_secs_f64(),
            report.segments_linked,
            report.segments_kept,
            report.bytes_copied >> 20
        );
    }
    let begun = Instant::now();
    let report = pakv::backup::restore(copy, elsewhere, |_| ())?;
    say("restore, verified", begun, report.bytes);
    for (name, cold) in [("check, cached", false), ("check, cold", true)] {
        if cold && !drop_caches() {
            println!("SKIPPED: check, cold: the page cache cannot be dropped here");
            break;
        }
        let begun = Instant::now();
        let report = pakv::check(store)?;
        say(name, begun, report.bytes_read);
        if let Some(finding) = report.findings.first() {
            return Err(format!("check of a sound store: {finding}").into());
        }
    }
    if drop_caches() {
        let (begun, mut bytes) = (Instant::now(), 0);
        let mut buffer = vec![0; 1 << 20];
        for entry in fs::read_dir(store)? {
            // Compaction may have taken it away.
            let Ok(mut file) = fs::File::open(entry?.path()) else { continue };
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    read => bytes += read as u64,
                }
            }
        }
        say("the disk, a bare read", begun, bytes);
    }
    Ok(())
}

/// Overwrites random stretches of a copy; returns the copy and the keys whose records they touch.
fn damage(copy: &Path, broken: &Path) -> Outcome<(PathBuf, HashSet<Vec<u8>>)> {
    fs::create_dir(broken)?;
    let mut logs = Vec::new();
    for entry in fs::read_dir(copy)? {
        let path = entry?.path();
        let name = path.file_name().ok_or("a name")?;
        fs::copy(&path, broken.join(name))?;
        if path.extension().is_some_and(|extension| extension == "log") {
            logs.push((broken.join(name), fs::metadata(&path)?.len()));
        }
    }
    let (mut rng, mut touched) = (Rng::with_seed(2), HashSet::new());
    let mut by_file: HashMap<PathBuf, Vec<(u64, u64)>> = HashMap::new();
    let all: u64 = logs.iter().map(|(_, bytes)| bytes).sum();
    for _ in 0..DAMAGES {
        // Any byte of all is as likely as any other.
        let mut at = rng.u64(..all);
        let (path, bytes) = logs
            .iter()
            .find(|(_, bytes)| {
                at < *bytes || {
                    at -= bytes;
                    false
                }
            })
            .ok_or("a segment")?;
        let length = (rng.usize(1..DAMAGE_BYTES) as u64).min(bytes - at);
        by_file.entry(path.clone()).or_default().push((at, at + length));
    }
    for (path, places) in by_file {
        for record in inspect::segment(&path)? {
            let (start, end) = (record.offset, record.offset + u64::from(record.length));
            if places.iter().any(|(from, to)| start < *to && *from < end) {
                touched.insert(record.key);
            }
        }
        let file = fs::OpenOptions::new().write(true).open(&path)?;
        for (from, to) in places {
            let noise: Vec<u8> =
                std::iter::repeat_with(|| rng.u8(..)).take((to - from) as usize).collect();
            std::os::unix::fs::FileExt::write_all_at(&file, &noise, from)?;
        }
    }
    Ok((broken.to_path_buf(), touched))
}

fn contents(db: &Db) -> Outcome<HashMap<Vec<u8>, u32>> {
    let mut contents = HashMap::new();
    for entry in db.scan()? {
        let (key, value) = entry.into_pair()?;
        contents.insert(key, crc32c::crc32c(&value));
    }
    Ok(contents)
}

/// Another process: refreshes, reads random files and compares them with the file system's until its
/// standard input ends; says how far behind it was.
fn read_along(store: &Path) -> Outcome<()> {
    let end = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let db = Options::new().read_only(true).open(store)?;
    let paths: Vec<Vec<u8>> = db.scan_prefix("/")?.map(|entry| entry.key().to_vec()).collect();
    let mut rng = Rng::with_seed(3);
    let (mut behind, mut took, mut reads) = (Vec::new(), Vec::new(), 0_u64);
    let mut last = None;
    while !end.is_finished() {
        let begun = Instant::now();
        db.refresh()?;
        took.push(begun.elapsed().as_secs_f64());
        let stamp = db.get(STAMP)?;
        if stamp.is_some() && stamp != last {
            behind.extend(stamp.as_deref().and_then(age));
            last = stamp;
        }
        let path = &paths[rng.usize(..paths.len())];
        let value = db.get(path)?.ok_or("a file is gone")?;
        if value != fs::read(std::str::from_utf8(path)?)? {
            return Err(format!("{} is not what it was", path.escape_ascii()).into());
        }
        reads += 1;
    }
    let mut out = std::io::stdout();
    writeln!(
        out,
        "a reader             {reads} files read and compared, {} refreshes",
        took.len()
    )?;
    writeln!(out, "  behind by          {}", spread(&mut behind))?;
    writeln!(out, "  a refresh took     {}", spread(&mut took))?;
    Ok(())
}

fn drop_caches() -> bool {
    fs::write("/proc/sys/vm/drop_caches", "1").is_ok()
}

fn say(what: &str, begun: Instant, bytes: u64) {
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{what:<20} {seconds:.2} s, {} MiB, {:.2} GB/s",
        bytes >> 20,
        bytes as f64 / seconds / 1e9
    );
}
