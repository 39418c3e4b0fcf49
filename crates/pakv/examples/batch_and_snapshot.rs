//! Several writes as one, a view that stays as it was, and a transaction.
//!
//! Run it: `cargo run -p pakv --example batch_and_snapshot`

use pakv::{Db, Result, Transaction, WriteBatch};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let db = Db::open(dir.path())?;

    // All of it is there after a crash, or none.
    let mut batch = WriteBatch::new();
    batch.set("account/ann", "100").set("account/bob", "20");
    db.write(&batch)?;

    // The snapshot does not see what comes after it, and nobody waits for it.
    let before = db.snapshot()?;

    let mut transaction = db.transaction()?;
    let amount = 30;
    let (ann, bob) = (balance(&transaction, "account/ann")?, balance(&transaction, "account/bob")?);
    if ann >= amount {
        transaction.set("account/ann", (ann - amount).to_string());
        transaction.set("account/bob", (bob + amount).to_string());
        transaction.commit()?;
    } else {
        transaction.rollback();
    }

    for (name, view) in [("before", before), ("after", db.snapshot()?)] {
        let mut total = 0;
        for entry in view.scan_prefix("account/") {
            let (key, value) = entry.into_pair()?;
            println!("{name}: {} has {}", key.escape_ascii(), value.escape_ascii());
            total += number(&value);
        }
        assert_eq!(total, 120, "no view shows half a transfer");
    }
    db.close()?;
    Ok(())
}

fn balance(transaction: &Transaction, key: &str) -> Result<u64> {
    Ok(transaction.get(key)?.map_or(0, |value| number(&value)))
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
