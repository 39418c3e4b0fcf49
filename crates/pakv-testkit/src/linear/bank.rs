//! What spans keys: transfers between accounts never change their sum, and a batch is seen whole.
//! The money is moved by transactions, the stamps are set by batches; an audit looks at both.

use fastrand::Rng;
use pakv::{Db, Result, Scan, Snapshot, WriteBatch};

const ACCOUNTS: u64 = 5;
const BALANCE: u64 = 100;
const STAMPS: u64 = 4;

fn account(number: u64) -> String {
    format!("account/{number}")
}

/// Opens the accounts and sets the first stamps, in one batch.
pub(super) fn open(db: &Db) -> Result<()> {
    let mut batch = WriteBatch::new();
    for number in 0..ACCOUNTS {
        batch.set(account(number), BALANCE.to_string());
    }
    stamp_with(&mut batch, 0);
    db.write(&batch)
}

/// Sets every stamp to the same new number.
pub(super) fn stamp(db: &Db, number: u64) -> Result<()> {
    let mut batch = WriteBatch::new();
    stamp_with(&mut batch, number);
    db.write(&batch)
}

fn stamp_with(batch: &mut WriteBatch, number: u64) {
    for index in 0..STAMPS {
        batch.set(format!("stamp/{index}"), number.to_string());
    }
}

/// Moves some money, or finds that there is too little and goes back.
pub(super) fn transfer(db: &Db, rng: &mut Rng) -> Result<()> {
    let (from, to) = (account(rng.u64(..ACCOUNTS)), account(rng.u64(..ACCOUNTS)));
    let amount = rng.u64(1..60);
    let mut transaction = db.transaction()?;
    let (Some(here), Some(there)) =
        (number(transaction.get(&from)?), number(transaction.get(&to)?))
    else {
        // An audit finds that an account is gone or unreadable, and says so.
        return Ok(());
    };
    if from == to || here < amount {
        transaction.rollback();
        return Ok(());
    }
    transaction.set(from, (here - amount).to_string());
    transaction.set(to, (there + amount).to_string());
    transaction.commit()
}

/// Looks at everything in a snapshot, from both ends and twice, and in a scan.
///
/// # Errors
/// The store's; a finding is in the answer.
pub(super) fn audit(db: &Db) -> Result<std::result::Result<(), String>> {
    let snapshot = db.snapshot()?;
    let first = picture(&snapshot)?;
    let mut backwards = entries(snapshot.scan().rev())?;
    backwards.reverse();
    let scanned = entries(db.scan()?)?;
    let second = picture(&snapshot)?;
    for (what, entries) in [("a snapshot", &first), ("a scan", &money(scanned))] {
        if let Err(found) = check(entries) {
            return Ok(Err(format!("{what} shows {found}")));
        }
    }
    if first != second || first != money(backwards) {
        return Ok(Err(format!("a snapshot answers {first:?} and then {second:?}")));
    }
    Ok(Ok(()))
}

type Entries = Vec<(String, String)>;

/// The accounts and stamps, by a get of each: a scan of the snapshot is compared with that.
fn picture(snapshot: &Snapshot) -> Result<Entries> {
    let names = (0..ACCOUNTS).map(account).chain((0..STAMPS).map(|index| format!("stamp/{index}")));
    let mut entries = Vec::new();
    for name in names {
        if let Some(value) = snapshot.get(&name)? {
            entries.push((name, String::from_utf8_lossy(&value).into_owned()));
        }
    }
    Ok(entries)
}

fn entries(scan: impl Iterator<Item = <Scan as Iterator>::Item>) -> Result<Entries> {
    scan.map(|entry| {
        let (key, value) = entry.into_pair()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((text(key), text(value)))
    })
    .collect()
}

fn money(entries: Entries) -> Entries {
    let is_ours = |key: &str| key.starts_with("account/") || key.starts_with("stamp/");
    entries.into_iter().filter(|(key, _)| is_ours(key)).collect()
}

fn check(entries: &Entries) -> std::result::Result<(), String> {
    let (accounts, stamps): (Vec<_>, Vec<_>) =
        entries.iter().partition(|(key, _)| key.starts_with("account/"));
    let sum: u64 = accounts.iter().filter_map(|(_, value)| value.parse::<u64>().ok()).sum();
    let is_whole = accounts.len() as u64 == ACCOUNTS
        && stamps.len() as u64 == STAMPS
        && stamps.windows(2).all(|pair| pair.first().map(|s| &s.1) == pair.last().map(|s| &s.1));
    if sum == ACCOUNTS * BALANCE && is_whole {
        return Ok(());
    }
    Err(format!("a sum of {sum}, not {}, or parts of a batch: {entries:?}", ACCOUNTS * BALANCE))
}

fn number(value: Option<Vec<u8>>) -> Option<u64> {
    std::str::from_utf8(&value?).ok()?.parse().ok()
}
