//! Lines of the shell: any line has words or an error; words that are quoted are read back; a line
//! that was read, quoted and read again means the same; Tab never makes a line worse.
//!
//! The first byte chooses: a line, a list of words, or a line to complete and the keys of a store.

use std::cell::RefCell;

use arbitrary::{Arbitrary, Unstructured};
use pakv_cli::fuzzing::{Shell, quote, split, split_open};

thread_local! {
    /// The definitions of lines take longer to set up than to use.
    static SHELL: RefCell<Shell> = RefCell::new(Shell::default());
}

/// One input.
pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    match mode % 3 {
        0 => check_line(rest),
        1 => {
            if let Ok(words) = Vec::<Vec<u8>>::arbitrary(&mut Unstructured::new(rest)) {
                check_words(&words);
            }
        }
        _ => {
            let (keys, line) = match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&rest[end + 1..], &rest[..end]),
                None => (&[][..], rest),
            };
            let keys: Vec<_> = keys.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if let Ok(line) = str::from_utf8(line) {
                check_completion(line, &keys);
            }
        }
    }
}

fn check_line(line: &[u8]) {
    let open = split_open(line);
    let words = match split(line) {
        Ok(words) => words,
        Err(reason) => {
            assert!(reason.contains("column"), "{reason}");
            return;
        }
    };
    assert_eq!(open.as_ref(), Ok(&words), "a whole line is one that could go on");
    check_words(&words);
    let parsed = SHELL.with_borrow_mut(|shell| shell.parse(words));
    // Parsed anew: nothing of one line is left in the definitions for the next.
    let words = split(line).expect("it has words");
    assert_eq!(SHELL.with_borrow_mut(|shell| shell.parse(words)), parsed);
}

fn check_words(words: &[Vec<u8>]) {
    let quoted: Vec<_> = words.iter().map(|word| quote(word)).collect();
    for (word, quoted) in words.iter().zip(&quoted) {
        let shown = quoted.chars().all(|char| !char.is_control());
        assert!(shown, "{} is not fit for a terminal", quoted.escape_debug());
        assert_eq!(split(quoted.as_bytes()).as_deref(), Ok(&[word.clone()][..]), "{quoted}");
    }
    let line = quoted.join(" ");
    assert_eq!(split(line.as_bytes()).as_deref(), Ok(words), "{line}");
}

fn check_completion(line: &str, keys: &[Vec<u8>]) {
    // Names of files are the machine's, and not the input's.
    if line.contains('/') {
        return;
    }
    let Some(done) = SHELL.with_borrow(|shell| shell.complete(line, keys)) else { return };
    let (kept, typed) = line.split_at(done.offset);
    let before = split_open(line.as_bytes()).expect("a line that is completed has words");
    let new_word = typed.is_empty() && (kept.is_empty() || kept.ends_with([' ', '\t']));
    let completed = |text: &str| {
        let line = format!("{kept}{text}");
        let after = split_open(line.as_bytes());
        let after = after.unwrap_or_else(|reason| panic!("Tab makes it {line:?}: {reason}"));
        assert_eq!(after.len(), before.len() + usize::from(new_word), "Tab makes it {line:?}");
        let same = if new_word { before.len() } else { before.len() - 1 };
        assert_eq!(after[..same], before[..same], "Tab makes it {line:?}");
        let begun = before.get(same).map_or(&[][..], Vec::as_slice);
        assert!(after[same].starts_with(begun), "Tab makes it {line:?}");
    };
    // Where nothing can go in, the line stays as it was typed.
    for replacement in done.replacements.iter().filter(|replacement| *replacement != typed) {
        completed(replacement);
    }
    // As the editor does it: what all have in common goes in where it is more than was typed.
    if done.common.len() > typed.len() {
        completed(&done.common);
    }
}
