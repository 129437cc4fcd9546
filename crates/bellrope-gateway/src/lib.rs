//! bellrope-gateway
