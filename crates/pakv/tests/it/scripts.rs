//! Runs the scripts in `scripts/`; see `pakv_testkit::script` for what they can say.

use std::path::Path;

use pakv_testkit::{files, script};

/// Each script is a test of its own, so that a failure names it and they run side by side.
macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                script::run(&directory().join(stringify!($name)));
            }
        )*

        #[test]
        fn every_script_is_run() {
            let found = files::names(&directory(), "");
            let listed = [$(stringify!($name)),*];
            assert_eq!(found, listed, "the files in scripts/ and the list here, in order");
        }
    };
}

scripts!(batches, compaction, deletes, expiry, partial, recovery, snapshots, writes);

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/scripts")
}
