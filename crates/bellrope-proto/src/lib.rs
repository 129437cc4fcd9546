//! bellrope-proto
