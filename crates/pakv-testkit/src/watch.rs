//! A guard against what never ends. Not a measurement: the limit is far above what anything takes.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// What takes longer than this hangs.
pub const HANG: Duration = Duration::from_secs(60);

/// Does `work` in another thread and panics where it does not end. What `work` panics with is
/// passed on.
pub fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, done) = channel();
    let thread = std::thread::spawn(move || {
        let result = work();
        let _ = sender.send(());
        result
    });
    if let Err(RecvTimeoutError::Timeout) = done.recv_timeout(HANG) {
        panic!("{what}: it hangs");
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
