//! Rust values in and out of the store, through serde.
//!
//! Run it: `cargo run -p pakv --example typed_values`

use pakv::{Db, Error};
use serde::{Deserialize, Serialize};

/// An enum around the versions of a type lets the program read what an older one wrote.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Person {
    V1 { name: String },
    V2 { name: String, born: u16 },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let db = Db::open(dir.path())?;

    db.set_as("person/1", &Person::V1 { name: "Ada".to_string() })?;
    db.set_as("person/2", &Person::V2 { name: "Grace".to_string(), born: 1906 })?;

    for key in ["person/1", "person/2", "person/3"] {
        match db.get_as::<Person>(key)? {
            Some(Person::V1 { name }) => println!("{key}: {name}"),
            Some(Person::V2 { name, born }) => println!("{key}: {name}, born {born}"),
            None => println!("{key}: nobody"),
        }
    }

    // A value of another type is an error of its own, not "not found".
    db.set("person/4", [255, 255])?;
    assert!(matches!(db.get_as::<Person>("person/4"), Err(Error::Decode { .. })));
    db.close()?;
    Ok(())
}
