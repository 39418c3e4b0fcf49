//! Open, set, get, scan, close.
//!
//! Run it: `cargo run -p pakv --example quick_start`

use pakv::Db;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let db = Db::open(dir.path().join("inventory"))?;

    db.set("fruit/apple", "3")?;
    db.set("fruit/pear", "5")?;
    db.set("tool/hammer", "1")?;

    if let Some(pears) = db.get("fruit/pear")? {
        println!("pears: {}", pears.escape_ascii());
    }
    println!("was there a nail to delete? {}", db.delete("tool/nail")?);

    for entry in db.scan_prefix("fruit/")? {
        let (key, value) = entry.into_pair()?;
        println!("{} = {}", key.escape_ascii(), value.escape_ascii());
    }

    // Read, change and write in one step that no other thread can come between.
    let one_more = |old: Option<&[u8]>| {
        let old: u64 = old.and_then(|old| std::str::from_utf8(old).ok()?.parse().ok()).unwrap_or(0);
        Some((old + 1).to_string().into_bytes())
    };
    db.update("fruit/apple", one_more)?;
    assert_eq!(db.get("fruit/apple")?.as_deref(), Some(&b"4"[..]));

    // Dropping the handle closes the store as well; closing it says if something went wrong.
    db.close()?;
    Ok(())
}
