//! Cuts the power of a file system under a store, again and again, and checks the store each time.
//!
//! ```text
//! power_cut COUNT [SEED [ext4|xfs]]
//! power_cut 500           500 cuts of ext4, from a random seed
//! power_cut 500 7 xfs     of XFS, with the workload and the delays of seed 7
//! ```
//!
//! Needs root and loop mounts; exits with 3 where the machine has none. Its other verbs are those
//! of the child that it starts: `write DIR SEED STEP…`, `hold DIR SEED`, `fill DIR SEGMENT_BYTES`.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use pakv_testkit::kill;
use pakv_testkit::power::{Cuts, Filesystem, private_mounts, skipped};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["write", dir, seed, first_steps @ ..] => {
            let first_steps: Vec<u64> =
                first_steps.iter().map(|step| step.parse()).collect::<Result<_, _>>()?;
            kill::write_until_killed(Path::new(dir), seed.parse()?, &first_steps)?;
            Ok(ExitCode::SUCCESS)
        }
        ["hold", dir, seed] => {
            let db = kill::options(seed.parse()?).open(dir)?;
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
            db.close()?;
            Ok(ExitCode::SUCCESS)
        }
        ["fill", dir, segment_bytes] => {
            kill::fill_until_it_fails(Path::new(dir), segment_bytes.parse()?)?;
            Ok(ExitCode::SUCCESS)
        }
        [count] => cut(count.parse()?, fastrand::u64(..), Filesystem::Ext4),
        [count, seed] => cut(count.parse()?, seed.parse()?, Filesystem::Ext4),
        [count, seed, "ext4"] => cut(count.parse()?, seed.parse()?, Filesystem::Ext4),
        [count, seed, "xfs"] => cut(count.parse()?, seed.parse()?, Filesystem::Xfs),
        _ => {
            eprintln!("usage: power_cut COUNT [SEED [ext4|xfs]]");
            Ok(ExitCode::from(2))
        }
    }
}

fn cut(count: u64, seed: u64, filesystem: Filesystem) -> Result<ExitCode, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let name = filesystem.name();
    // A multiple of three means `Durability::Sync`.
    let seed = seed / 3 * 3;
    let started = Instant::now();
    let cuts = private_mounts().and_then(|()| Cuts::new(filesystem, &program, seed));
    let mut cuts = match cuts {
        Ok(cuts) => cuts,
        Err(refusal) => {
            skipped(&format!("power cuts of {name}"), &refusal);
            return Ok(ExitCode::from(3));
        }
    };
    let mut failed = false;
    while cuts.tally().cuts < count && !failed {
        if let Err(problem) = cuts.cut() {
            eprintln!("{problem}");
            failed = true;
        }
    }
    let tally = cuts.tally();
    println!(
        "{} power cuts of {name} from seed {seed}: {} of them in an open, {} acknowledged steps \
         checked, {}; {} more acknowledged while the power went, {} of them gone; {} children ended \
         by SIGBUS after the cut; {:.1} s",
        tally.cuts,
        tally.in_open,
        tally.acknowledged,
        if failed { "FAILED" } else { "0 lost, 0 revived" },
        tally.acknowledged_late,
        tally.late_and_gone,
        tally.bus_errors,
        started.elapsed().as_secs_f64()
    );
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
