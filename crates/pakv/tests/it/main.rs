//! The integration tests of the library: one binary, since linking is most of the cost of a test on
//! a small machine.

mod background; // pace and end of the background threads, and when one of them fails
mod backup; // beside writers and compaction, incremental, refused, restored
mod check; // what check finds and what it does not take for damage; what repair decides
mod concurrent; // readers, writers, transactions, snapshots and compaction together
mod conditions; // compare-and-set, update, batches, transactions
mod crash_states; // what a crash in compaction or rotation can leave, made by copying files
mod damage; // a byte flipped, a file cut, lost, swapped or newer: the truth or a typed error
mod errors; // what bad calls get, and how it reads
mod fixtures;
mod hintless; // sealed segments of small records that have no hint
mod history; // for the others: a store whose every state is known
mod hostile; // what a stranger may have put into the directory: nothing outside it is touched
mod limits; // each limit below, at and above it
mod locking; // one writer; readers beside it that write nothing
mod mapping; // files read through memory while they grow
mod model; // random operations against the reference model
mod observed; // what a subscriber of tracing is told
mod prefix; // what a snapshot sees is a prefix of the order of writes
mod prepared; // zeros behind the records of a synced store
mod readers; // a reader beside a writer moves on
mod recovery; // the active segment cut at every byte, torn tails, holes
mod regressions;
mod scan; // order, ranges, both ends, laziness
mod scripts; // plain-text scripts with the expected output beside each command
mod snapshot; // a consistent view while writes and compaction go on
mod ttl; // expiry to the millisecond, nothing older revived, bytes given back
mod values; // the plain verbs, any bytes, typed values
mod watch; // each change once and in order, or that some are gone
