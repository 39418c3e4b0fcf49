//! Every input in the corpora, and every one that once failed, through its target: the quick part of
//! fuzzing, without a fuzzing engine.

use std::path::{Path, PathBuf};

use pakv_fuzz::TARGETS;

/// Inputs of a target: `corpus/TARGET`, kept small, and `regressions/TARGET`, kept for ever.
fn inputs(folder: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("an entry can be read").path()).collect();
    paths.sort();
    paths
}

#[test]
fn no_input_of_the_corpora_fails() {
    for (name, run) in TARGETS {
        let corpus = inputs("corpus", name);
        assert!(!corpus.is_empty(), "the corpus of {name} is empty");
        for path in corpus.into_iter().chain(inputs("regressions", name)) {
            // Where it panics, this is the last line, and what to run.
            println!("{name} {}", path.display());
            run(&std::fs::read(&path).expect("an input can be read"));
        }
    }
}

#[test]
fn every_prefix_of_a_small_input_is_an_input() {
    for (name, run) in TARGETS {
        let Some(path) = inputs("corpus", name).into_iter().next() else { continue };
        let bytes = std::fs::read(&path).expect("an input can be read");
        for len in 0..bytes.len().min(200) {
            println!("{name} {}, cut at {len}", path.display());
            run(&bytes[..len]);
        }
    }
}

/// A few thousand inputs near the corpora, without the engine's guidance: finds what is easy to find
/// on a machine that cannot fuzz. `PAKV_FUZZ_MUTATIONS` asks for more,
/// `PAKV_FUZZ_TARGET` for those of one target.
#[test]
fn inputs_near_the_corpora_do_not_fail() {
    let count = std::env::var("PAKV_FUZZ_MUTATIONS").ok().and_then(|count| count.parse().ok());
    let only = std::env::var("PAKV_FUZZ_TARGET").ok();
    for (name, run) in TARGETS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let corpus: Vec<Vec<u8>> = inputs("corpus", name)
            .iter()
            .map(|path| std::fs::read(path).expect("an input can be read"))
            .collect();
        for seed in 0..count.unwrap_or(300_u64) {
            let input = mutated(&corpus, &mut Random(seed));
            let result = std::panic::catch_unwind(|| run(&input));
            assert!(result.is_ok(), "{name}, mutation {seed}: {input:?}");
        }
    }
}

/// Numbers that a seed decides (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }
}

/// One of the inputs, with bytes changed, removed, repeated, or taken from another.
fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let pick = |random: &mut Random| corpus.get(random.below(corpus.len())).cloned();
    let mut input = pick(random).unwrap_or_default();
    for _ in 0..1 + random.below(8) {
        let at = random.below(input.len());
        let end = (at + random.below(16)).min(input.len());
        match random.below(6) {
            0 | 1 => input.iter_mut().skip(at).take(1).for_each(|byte| {
                *byte = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(6)];
            }),
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            4 => {
                let other = pick(random).unwrap_or_default();
                let from = random.below(other.len());
                let to = (from + random.below(64)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            _ => input.iter_mut().skip(at).take(4).for_each(|byte| *byte = random.below(256) as u8),
        }
    }
    input
}
