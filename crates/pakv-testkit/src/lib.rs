//! Test tools of pakv.
