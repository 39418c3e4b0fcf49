//! What the process says in its exit code. The numbers are part of the interface: scripts rely on
//! them.

use std::process::ExitCode;

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// The key is not there, or a condition did not hold: an answer, not a failure.
    Negative = 1,
    /// The arguments make no sense; nothing was tried.
    Usage = 2,
    /// The operating system refused something, or another failure.
    Failed = 3,
    /// The store is damaged.
    Corrupt = 4,
    /// Another process has the store open for writing.
    InUse = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_that_scripts_rely_on() {
        let numbers =
            [Exit::Done, Exit::Negative, Exit::Usage, Exit::Failed, Exit::Corrupt, Exit::InUse]
                .map(|exit| exit as u8);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    }
}
