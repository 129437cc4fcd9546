//! bellrope
