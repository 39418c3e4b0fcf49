//! Tests of the program `pakv` from outside. One binary, because linking is what takes time.

/// Errors that a recorded session cannot make: full disks, damaged files, odd directories, limits.
mod bad_input;
/// `kill -9` of every verb.
mod kills;
/// A directory to run pakv in, and what a run of it gave.
mod kit;
/// Pipes that break, bytes that are not text, processes side by side.
mod pipes;
/// The shell on a pseudo-terminal.
mod pty;
/// The sessions recorded in `tests/sessions`, in the README and in the documentation, run again.
mod sessions;
/// The shell reading scripts.
mod shell;
/// Ctrl-C and a polite kill in the middle of what takes its time.
mod signals;
/// What verbs do at a terminal and not elsewhere.
mod terminal;
/// `watch` beside processes that write.
mod watching;
