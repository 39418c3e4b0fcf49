//! Where the shell keeps the lines that were typed: `$XDG_STATE_HOME/pakv/history`, else
//! `~/.local/state/pakv/history`, readable by its owner alone, since lines hold values.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How many lines are kept.
pub(crate) const MAX_ENTRIES: usize = 1000;

/// The history's path by the environment; `None` where that names no home.
pub(crate) fn path(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // A relative XDG_STATE_HOME is to be ignored, says the XDG base directory specification. An
    // empty variable is relative too.
    let directory = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = directory("XDG_STATE_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".local").join("state")))?;
    Some(state.join("pakv").join("history"))
}

/// Makes sure that the file is there and private before anything is written to it.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(variables: &[(&str, &str)]) -> Option<PathBuf> {
        path(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_state_directory_comes_before_the_home() {
        let state = Some(PathBuf::from("/state/pakv/history"));
        let home = Some(PathBuf::from("/home/u/.local/state/pakv/history"));
        assert_eq!(path_of(&[("XDG_STATE_HOME", "/state"), ("HOME", "/home/u")]), state);
        assert_eq!(path_of(&[("HOME", "/home/u")]), home);
        assert_eq!(path_of(&[("XDG_STATE_HOME", ""), ("HOME", "/home/u")]), home);
        assert_eq!(path_of(&[("XDG_STATE_HOME", "state"), ("HOME", "/home/u")]), home);
    }

    #[test]
    fn without_a_home_there_is_no_history() {
        assert_eq!(path_of(&[]), None);
        assert_eq!(path_of(&[("HOME", "")]), None);
    }
}
