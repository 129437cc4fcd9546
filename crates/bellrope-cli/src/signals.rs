//! What happens to a signal that comes while the first is still being obeyed.

use std::{
    ffi::c_int,
    io,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::flag;

/// Lets every one of `signals` after the first end the program at once, with 128 plus its number.
pub(crate) fn second_ends_at_once(signals: &[c_int]) -> io::Result<()> {
    let first_came = Arc::new(AtomicBool::new(false));
    for &signal in signals {
        // In this order: the first signal finds the flag down, and raises it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&first_came))?;
        flag::register(signal, Arc::clone(&first_came))?;
    }
    Ok(())
}
