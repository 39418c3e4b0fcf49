//! The binary `pakv`: arguments in, exit code out. All of it is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    pakv_cli::main()
}
