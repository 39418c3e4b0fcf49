//! The process that `tests/processes.rs` starts to kill it: `kill_child write DIR SEED STEP…`,
//! `kill_child hold DIR`, `kill_child fill DIR SEGMENT_BYTES` or `kill_child read mapped|positional
//! DIR`.

use std::path::Path;

use pakv_testkit::kill;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["write", dir, seed, first_steps @ ..] => {
            let first_steps: Vec<u64> =
                first_steps.iter().map(|step| step.parse()).collect::<Result<_, _>>()?;
            kill::write_until_killed(Path::new(dir), seed.parse()?, &first_steps)?;
        }
        ["hold", dir] => kill::hold(Path::new(dir))?,
        ["fill", dir, segment_bytes] => {
            kill::fill_until_it_fails(Path::new(dir), segment_bytes.parse()?)?;
        }
        ["read", reads, dir] => kill::read_all(Path::new(dir), *reads == "positional")?,
        _ => return Err("this is for tests/processes.rs, which knows how to call it".into()),
    }
    Ok(())
}
