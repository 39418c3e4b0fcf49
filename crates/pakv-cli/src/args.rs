//! Every argument that pakv takes: help, manual pages, completions and the shell's lines all come
//! from these definitions. The shell's dot commands alone are defined elsewhere, beside the shell.
//! Nothing here touches a store.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};

use crate::parse;

/// A persistent key/value store in a directory
#[derive(Debug, Parser)]
#[command(
    name = "pakv",
    version,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    max_term_width = 100,
    after_help = AFTER_HELP,
    long_about = "A persistent key/value store in a directory: no server, no set-up.\n\n\
        Keys and values are any bytes. Without a VERB, on a terminal, the shell opens."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

const AFTER_HELP: &str = "\
Forms of --output:
  text  for people and pipes: exact bytes in a pipe or file; on a terminal, bytes that would garble
        it are escaped
  json  an object a line, errors too; bytes that are not UTF-8 as base64, under key_base64 and
        value_base64
  raw   exact bytes, nothing escaped or added, on a terminal too; durations in milliseconds

Exit codes:
  0  done
  1  key not found, or a condition did not hold
  2  usage
  3  I/O or another failure
  4  the store is damaged
  5  the store is in use

Examples:
  pakv set name Ann
  pakv get name
  pakv scan --prefix user: --keys
  pakv import people.jsonl
  pakv shell < script";

/// What holds for every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Directory of the store
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PAKV_DB",
        hide_env_values = true,
        default_value = "pakv-data",
        value_hint = ValueHint::DirPath
    )]
    pub(crate) db: PathBuf,

    /// Form of results and errors
    #[arg(long, global = true, value_name = "FORM", default_value = "text")]
    pub(crate) output: OutputForm,

    // Read by `run` before clap parses, since what clap says has colour too; here for help and
    // validation.
    /// When to use colour; auto: on a terminal, unless NO_COLOR is set, or where CLICOLOR_FORCE is
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorWhen,

    /// How long a verb that writes waits for a store in use: 0, 500ms, 10s
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "1s",
        allow_hyphen_values = true,
        value_parser = parse::wait
    )]
    pub(crate) wait: Duration,

    /// Say on standard error what the store does: opens and what recovery did, compactions
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

/// What `--output` can be. The help of the program says what each means, once, instead of that of
/// every verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OutputForm {
    #[default]
    Text,
    Json,
    Raw,
}

/// What `--color` can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    Auto,
    Always,
    Never,
}

/// What to do: one subcommand of `pakv`, one line of the shell. The help of each is on its
/// arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Set(SetArgs),
    Get(GetArgs),
    #[command(visible_alias = "del")]
    Rm(RmArgs),
    Exists(ExistsArgs),
    Ttl(TtlArgs),
    Expire(ExpireArgs),
    Persist(PersistArgs),
    Incr(IncrArgs),
    Scan(ScanArgs),
    Import(ImportArgs),
    Export(ExportArgs),
    Watch(WatchArgs),
    Stats(StatsArgs),
    Compact(CompactArgs),
    Check(CheckArgs),
    Repair(RepairArgs),
    Dump(DumpArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Bench(BenchArgs),
    Shell(ShellArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Set a key to a value
///
/// Silent on success; the value is on the disk when pakv returns. A value that was there is
/// replaced, its expiry too: without --ttl the key no longer expires. Creates the store if there is
/// none, unless --if-present or --if-value asks for a key that could not be there. A condition that
/// does not hold changes nothing and exits with 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv set name Ann
  pakv set photo --file photo.jpg
  date | pakv set now -
  pakv set -- -k -v                      key and value that begin with a dash
  pakv set session:7 ann --ttl 90s
  pakv set leader node-1 --if-absent || echo 'somebody else leads'
  pakv set count 8 --if-value 7")]
pub(crate) struct SetArgs {
    /// The key: any bytes, 1 byte to 64 KiB
    pub(crate) key: OsString,

    /// The value: any bytes up to 512 MiB; `-` takes it from standard input
    #[arg(required_unless_present = "file", allow_negative_numbers = true)]
    pub(crate) value: Option<OsString>,

    /// Take the value from a file
    #[arg(long, value_name = "FILE", conflicts_with = "value", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// Let the key expire after this long: 500ms, 90s, 1h30m, 7d
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse::ttl)]
    pub(crate) ttl: Option<Duration>,

    #[command(flatten)]
    pub(crate) condition: ConditionArgs,
}

/// What must hold for `set` to set; at most one.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct ConditionArgs {
    /// Only if the key is not there
    #[arg(long)]
    pub(crate) if_absent: bool,

    /// Only if the key is there
    #[arg(long)]
    pub(crate) if_present: bool,

    /// Only if the key holds exactly this value
    #[arg(long, value_name = "OLD", allow_negative_numbers = true)]
    pub(crate) if_value: Option<OsString>,
}

/// Print the value of a key
///
/// In a pipe or file: the value's exact bytes and nothing else. On a terminal a newline follows,
/// and bytes that would garble it are shown as \xNN; `--output raw` prints exact bytes there too.
/// With `--output json`: an object with key and value. A missing key prints `Key not found` on
/// standard error and exits with 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv get name
  pakv get photo > photo.jpg
  pakv get colour --default blue")]
pub(crate) struct GetArgs {
    /// The key
    pub(crate) key: OsString,

    /// Print this, and exit with 0, if the key is not there
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    pub(crate) default: Option<OsString>,
}

/// Remove keys
///
/// Silent on success. Keys that are named are removed together: after a crash all of them are gone or
/// none. A key that is not there is named on standard error, the others are removed all the same, and
/// the exit code is 1. With --prefix keys go in batches of 10,000: interrupted, some are gone and the
/// rest are there. It is no error if no key begins so; a question is asked first, on a terminal, and
/// elsewhere --yes is needed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv rm name
  pakv rm user:1 user:2
  pakv rm --prefix session: --yes")]
pub(crate) struct RmArgs {
    /// The keys
    #[arg(value_name = "KEY", required_unless_present = "prefix")]
    pub(crate) keys: Vec<OsString>,

    /// Remove every key that begins with this instead
    #[arg(long, conflicts_with = "keys")]
    pub(crate) prefix: Option<OsString>,

    /// Do not ask before a prefix is removed
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Tell whether a key is there
///
/// Prints true and exits with 0, or prints false and exits with 1. The answer is on standard
/// output, so nothing is said on standard error. With `--output json`: an object with key and
/// exists.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv exists name
  if pakv exists lock > /dev/null; then echo locked; fi")]
pub(crate) struct ExistsArgs {
    /// The key
    pub(crate) key: OsString,
}

/// Print how much longer a key will be there
///
/// A duration such as `1h 29m 59s 950ms`, or `never` if the key does not expire. With `--output
/// raw`: whole milliseconds, or `never`. With `--output json`: an object with key, and ttl_ms and
/// expires_at_ms (milliseconds since 1970), both null if it does not expire.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv ttl session:7
  pakv --output raw ttl session:7")]
pub(crate) struct TtlArgs {
    /// The key
    pub(crate) key: OsString,
}

/// Make a key expire
///
/// Silent on success. From that moment on the key is not there, for every verb, and an older value
/// does not come back. Replaces an expiry that the key had.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv expire session:7 90s
  pakv expire session:7 1h30m
  pakv expire offer --at 2030-01-01T00:00:00+01:00
  pakv expire offer --at 1893452400000")]
#[group(skip)]
pub(crate) struct ExpireArgs {
    /// The key
    pub(crate) key: OsString,

    /// After this long: 500ms, 90s, 1h30m, 7d
    #[arg(
        value_name = "DURATION",
        required_unless_present = "at",
        allow_hyphen_values = true,
        value_parser = parse::ttl
    )]
    pub(crate) ttl: Option<Duration>,

    /// At this instant: RFC 3339 with an offset or Z, or milliseconds since 1970
    #[arg(
        long,
        value_name = "INSTANT",
        conflicts_with = "ttl",
        allow_hyphen_values = true,
        value_parser = parse::instant
    )]
    pub(crate) at: Option<SystemTime>,
}

/// Remove the expiry of a key
///
/// Silent on success, whether or not the key had an expiry.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  pakv persist session:7")]
pub(crate) struct PersistArgs {
    /// The key
    pub(crate) key: OsString,
}

/// Add to the integer that a key holds
///
/// Prints the sum and stores it as decimal digits; a missing key counts as 0, an expiry is kept.
/// Integers have 64 bits and a sign; a value that is not one, or a sum that does not fit, is an error
/// and changes nothing. No other writer comes in between.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv incr visits
  pakv incr stock --by -3")]
pub(crate) struct IncrArgs {
    /// The key
    pub(crate) key: OsString,

    /// What to add
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = parse::integer)]
    pub(crate) by: i64,
}

/// Which keys: a prefix, a range, or the part of the range that begins with the prefix.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub(crate) struct RangeArgs {
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: Option<OsString>,

    /// Only keys from this one on, itself included
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<OsString>,

    /// Only keys before this one, itself not included
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<OsString>,
}

/// List keys and values in key order
///
/// One line each: key, tab, value. In a pipe or file the bytes are exact, so a value with a newline
/// spans lines; on a terminal, control characters, backslashes and bytes that are not UTF-8 are
/// escaped (\n, \t, \\, \xNN), and `--output raw` prints exact bytes there too. The shell takes a key
/// as it is shown, in double quotes. With `--output json`: an object a line, as `export` writes it.
/// Keys are ordered by their bytes. The range is half-open: --from is in it, --to is not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv scan
  pakv scan --prefix user: --keys
  pakv scan --from a --to m --limit 10
  pakv scan --reverse --limit 1            the last key
  pakv scan --prefix user: --count
  pakv --output json scan | jq .key")]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    pub(crate) range: RangeArgs,

    /// From the last key to the first
    #[arg(long)]
    pub(crate) reverse: bool,

    /// At most this many
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true, value_parser = parse::count)]
    pub(crate) limit: Option<u64>,

    /// Keys without their values, which are not read
    #[arg(long)]
    pub(crate) keys: bool,

    /// Only print how many there are
    #[arg(long, conflicts_with_all = ["keys", "reverse"])]
    pub(crate) count: bool,
}

/// What a file of keys and values looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// A JSON object a line: key, value, expires_at_ms; bytes that are not UTF-8 as key_base64,
    /// value_base64
    Jsonl,
    /// Key, tab, value up to the end of the line; nothing is escaped, expiries are left out
    Tsv,
    /// Columns key, value and expires_at_ms under a header line that names them
    Csv,
}

/// Load keys and values from a file
///
/// Creates the store if there is none. Keys that are there are overwritten; of a key that comes
/// twice, the later counts. An entry that has expired meanwhile removes its key.
///
/// A line that cannot be read stops the import and is named by its number: every line before it is
/// in the store and on the disk, it and all after it are not. With --skip-bad such lines are
/// counted and left out. Interrupted (Ctrl-C, kill), the store holds a part of the lines, from the
/// first on without a gap. At the end everything is on the disk.
#[derive(Debug, Args)]
#[command(after_help = "\
Formats:
  jsonl  {\"key\":\"a\",\"value\":\"1\",\"expires_at_ms\":1893452400000}; the last is optional, and
         key_base64, value_base64 carry bytes that are not UTF-8
  tsv    key, tab, value up to the end of the line, tabs included; nothing is escaped
  csv    the first line names the columns: key, value and, if wanted, expires_at_ms

Examples:
  pakv import people.jsonl
  pakv import table.txt --format tsv
  zcat big.jsonl.gz | pakv import")]
pub(crate) struct ImportArgs {
    /// The file; standard input if absent or `-`
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// Format of the file; if not given, by the file's name, else jsonl
    #[arg(long)]
    pub(crate) format: Option<FileFormat>,

    /// Count lines that cannot be read and go on; an error only where no line can be read
    #[arg(long)]
    pub(crate) skip_bad: bool,
}

/// Write keys and values to a file
///
/// In key order, as of the moment it began. A file that exists is replaced once the export is
/// complete, not before. jsonl and csv carry any bytes and expiries exactly. tsv carries no
/// expiries, and an entry whose key holds a tab or a newline, or whose value holds a newline, stops
/// it with an error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv export backup.jsonl
  pakv export --prefix user: users.csv
  pakv export --format tsv | sort -t \"$(printf '\\t')\" -k 2
  pakv --db old export | pakv --db new import")]
pub(crate) struct ExportArgs {
    /// The file; standard output if absent or `-`
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// Format of the file; if not given, by the file's name, else jsonl
    #[arg(long)]
    pub(crate) format: Option<FileFormat>,

    #[command(flatten)]
    pub(crate) range: RangeArgs,
}

/// Print changes as they are committed
///
/// An object a line, whatever --output says: seqno, op (`set` or `delete`), key, value, and
/// expires_at_ms where it expires; bytes that are not UTF-8 as key_base64 and value_base64. In the
/// order in which they were written, each once. batch_rest says how many changes of the same batch
/// follow. Works beside a process that writes, and looks for changes twenty times a second.
///
/// To go on later, give --from the seqno of the last line and 1. Compaction drops what was
/// overwritten: where it has been, changes are gone, which is said with the first number that can be
/// had, and the exit code is 1. That a key expires is no change.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv watch
  pakv watch --prefix user: | jq --unbuffered -r .key
  pakv watch --from 1 --no-follow > changes.jsonl
  pakv watch --from 1042")]
pub(crate) struct WatchArgs {
    /// Changes from this sequence number on; if not given, those to come
    #[arg(long, value_name = "SEQNO", allow_negative_numbers = true, value_parser = parse::count)]
    pub(crate) from: Option<u64>,

    /// Only changes of keys that begin with this
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: Option<OsString>,

    /// End after the changes that are there already
    #[arg(long, requires = "from")]
    pub(crate) no_follow: bool,
}

/// Show statistics of the store
///
/// Live bytes are those that a get can reach; garbage is what compaction will give back. The bar of
/// a segment is as long as the segment is large, and filled as far as it is live.
///
/// With --watch the figures come again each second until Ctrl-C: in place on a terminal, a line or a
/// JSON object each in a pipe. With --top: which values are the largest, and which prefixes of keys
/// weigh most. A prefix ends with '/', ':' or '.' and weighs what the records of all its keys take on
/// the disk; of prefixes of the same keys only the longest is listed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv stats
  pakv stats --json | jq .space_amplification
  pakv stats --watch
  pakv stats --top 10")]
pub(crate) struct StatsArgs {
    /// As one JSON object; the same as `--output json`
    #[arg(long)]
    pub(crate) json: bool,

    /// Again each second
    #[arg(long)]
    pub(crate) watch: bool,

    /// The largest values and the heaviest prefixes instead, this many of each
    #[arg(long, value_name = "N", conflicts_with = "watch")]
    pub(crate) top: Option<usize>,
}

/// Reclaim the space of garbage now
///
/// pakv does this by itself where it is needed to keep the store within 1.5 times the bytes of its live
/// keys and values: in the background while a store is open, and before a verb that wrote ends. This does it at once and for all
/// garbage, and says what it gave back. Interrupted, it has done nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  pakv compact")]
pub(crate) struct CompactArgs {}

/// Check the whole store for damage
///
/// Reads everything and changes nothing: every record's checksum, hints against their segments, the
/// manifest against the directory, sequence numbers, batches. Works while another process writes to
/// the store. One line for each thing that is wrong: file, offset, length, what is wrong, and the
/// keys whose values are affected, as far as they are known. Exits with 4 if anything is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv check
  pakv --db /srv/data check || echo 'call somebody'
  pakv check --json | jq -r 'select(.finding) | .keys[]?'")]
pub(crate) struct CheckArgs {
    /// As JSON objects, a line each: the findings, then the summary; the same as `--output json`
    #[arg(long)]
    pub(crate) json: bool,
}

/// Make a new store of all that is good in a damaged one
///
/// SRC is only read: nothing in it is changed or created. Stop whatever writes to it first; if it is
/// open for writing all the same, a note says so. Everything that is provably good comes over, of
/// each key its newest value and its expiry. A deleted key stays deleted, and a key whose newest
/// value is damaged is left out rather than given an older one. Each range of bytes that is left out
/// is told in a line, with the keys that are known to have stood there. Works without a manifest,
/// without hints, and past noise in the middle of a file.
///
/// Exits with 0 when the new store is complete, whether or not anything had to be left out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv repair damaged repaired
  pakv repair damaged repaired --json > report.jsonl
  pakv --db repaired check")]
pub(crate) struct RepairArgs {
    /// Directory of the damaged store
    #[arg(value_name = "SRC", value_hint = ValueHint::DirPath)]
    pub(crate) source: PathBuf,

    /// Directory of the new store: it must not exist, or be empty
    #[arg(value_name = "DST", value_hint = ValueHint::DirPath)]
    pub(crate) target: PathBuf,

    /// As JSON objects, a line each: what was left out, then the summary; the same as `--output
    /// json`
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what is in a file of a store
///
/// One line for each record of a segment: where it stands, its length, the state of its checksum,
/// its sequence number, whether it sets or deletes, its expiry in milliseconds since 1970, and its
/// key. Hints and manifests are shown likewise. Goes on past damage, shows it as a line of its own,
/// and exits with 4 if there was any. Works while another process writes to the store.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv dump 7                              segment 7 of the store
  pakv dump pakv-data/0000000007.hint
  pakv dump MANIFEST
  pakv dump 7 --json | jq -r 'select(.kind == \"tombstone\") | .key'")]
pub(crate) struct DumpArgs {
    /// A file, in this directory or the store's, or the number of a segment of the store
    #[arg(value_name = "FILE|SEGMENT", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,

    /// As JSON objects, a line each; the same as `--output json`
    #[arg(long)]
    pub(crate) json: bool,
}

/// Copy the store to another directory while it is in use
///
/// The backup is a store itself, as of one moment: whole batches, everything that was acknowledged
/// before, on the disk when pakv returns. Another process may have the store open and go on writing.
///
/// Segments that no longer change are shared with the store (hard links): no time and no space. Where
/// DIR is on another file system they are copied. A backup that is in DIR already is brought up to
/// date: only what is new comes, what is gone goes. Interrupted, DIR is still the backup it was; a
/// first one says that it is unfinished. A directory with another store, or a backup that somebody
/// has written to, is left alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv backup /backups/monday
  pakv --db /backups/monday get name      look into it
  pakv restore /backups/monday restored")]
pub(crate) struct BackupArgs {
    /// The directory: new, empty, or with an earlier backup of the same store
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
}

/// Make a store out of a backup
///
/// Every record is verified as it is copied, and every value is read again from the new store. The
/// backup is not changed and nothing is shared with it. One that is damaged is refused, with the
/// place of the damage and exit code 4.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  pakv restore /backups/monday pakv-data")]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) backup: PathBuf,

    /// The directory of the new store: one that holds none
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
}

/// Measure pakv on this machine
///
/// Makes a store of its own in a new directory inside DIR, whose disk is the one that is measured, and
/// removes it afterwards (interrupted, it stays: pakv-bench-N). One after the other: fill, overwrite,
/// read, scan (an operation is 100 entries from a random key on), and reads while one more thread
/// writes without a pause. Each ends after --seconds, the fill also when all keys are there; what
/// follows works on the keys that it has set.
///
/// Reads of a store that fits in memory do not wait for the disk. With sync, the default as for every
/// verb, writes wait for it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv bench
  pakv bench /mnt/disk --durability buffered --keys 1000000
  pakv bench --threads 8 --plot bench.svg
  pakv bench --json > figures.jsonl")]
pub(crate) struct BenchArgs {
    /// Where the store is made for the time of the measurement
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// Keys, of 16 bytes each
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) keys: u64,

    /// Bytes of a value
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=pakv::MAX_VALUE_BYTES as u64))]
    pub(crate) value_bytes: u64,

    /// When a write is acknowledged: sync, buffered, or synced every DURATION, such as 100ms
    #[arg(long, value_name = "WHEN", default_value = "sync", value_parser = parse::durability)]
    pub(crate) durability: pakv::Durability,

    /// Threads that work at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,

    /// How long each part takes at most
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,

    /// Draw latency and space over time
    #[arg(long, value_name = "FILE.svg", value_hint = ValueHint::FilePath)]
    pub(crate) plot: Option<PathBuf>,

    /// As JSON, an object for each part; the same as `--output json`
    #[arg(long)]
    pub(crate) json: bool,
}

/// Open the shell, or run a script
///
/// Every verb is a line, but for bench, completions, man and shell. On a terminal: history, completion of verbs and keys, and errors do not
/// end it; `.help` tells more. A script, from a file or standard input: lines run one by one and
/// the first that fails stops it, with its number and its exit code.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv shell
  pakv shell < script
  pakv shell --keep-going script
  printf 'set a 1\\nincr a\\n' | pakv shell")]
pub(crate) struct ShellArgs {
    /// A script; if absent or `-`, lines come from standard input, on a terminal from whoever types
    /// there
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// In a script, go on after a line that fails; the exit code is that of the first failure
    #[arg(long)]
    pub(crate) keep_going: bool,
}

/// Print a completion script for bash, zsh, fish, elvish or PowerShell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv completions bash > /etc/bash_completion.d/pakv
  pakv completions zsh > ~/.zfunc/_pakv
  pakv completions fish > ~/.config/fish/completions/pakv.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell it is for
    pub(crate) shell: clap_complete::Shell,
}

/// Write the manual pages
///
/// pakv.1 and one page for each verb, such as pakv-set.1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pakv man man1 && man -l man1/pakv.1")]
pub(crate) struct ManArgs {
    /// The directory they are written to; created if there is none
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
}

/// A line of the shell: a verb without a program name and without the global options, which hold
/// for the whole session.
#[derive(Debug, Parser)]
#[command(
    name = "pakv",
    multicall = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    max_term_width = 100
)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

/// Verbs that make no sense inside the shell.
const OUTSIDE_ONLY: [&str; 4] = ["bench", "shell", "completions", "man"];

impl Cli {
    /// Parses the words of one line of the shell, quoting already taken off: `["set", "name",
    /// "Ann"]`. The definitions are [`Cli::shell_command`]'s, which a shell keeps: to set them up
    /// takes longer than to parse.
    ///
    /// # Errors
    /// Usage errors, and what `help` and `--help` print, which clap returns the same way.
    pub(crate) fn parse_shell_line(
        command: &mut clap::Command,
        words: Vec<OsString>,
    ) -> Result<Verb, clap::Error> {
        let matches = command.try_get_matches_from_mut(words)?;
        <Line as clap::FromArgMatches>::from_arg_matches(&matches).map(|line| line.verb)
    }

    /// The definitions of the shell's lines: what completion and help inside the shell go by.
    pub(crate) fn shell_command() -> clap::Command {
        let without_outsiders = |command: clap::Command| {
            let verbs: Vec<_> = command.get_subcommands().cloned().collect();
            verbs.into_iter().filter(|verb| !OUTSIDE_ONLY.contains(&verb.get_name()))
        };
        let line = Line::command();
        clap::Command::new("pakv")
            .multicall(true)
            .subcommand_required(true)
            .subcommand_value_name("VERB")
            .subcommand_help_heading("Verbs")
            .max_term_width(100)
            .subcommands(without_outsiders(line).collect::<Vec<_>>())
    }
}
