//! The process that tests start to kill it, or to watch it fail: see [`kill::child`] for its verbs.

use pakv_testkit::kill;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    kill::child(&args).unwrap_or_else(|| Err("this is for tests, which know how to call it".into()))
}
