//! Ctrl-C: the first one asks for an end, the second one makes it.

use crate::{Error, terminal};
use std::{
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// The exit code of a program that Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// A flag that the first Ctrl-C sets, saying `said`; the second one ends the program at once. A program has one: asked for
/// again, it is the same, and says what was to be said first.
///
/// # Errors
/// [`Error::Interrupt`] if there is another handler already, or the system has none.
pub fn flag(said: &'static str) -> Result<&'static AtomicBool, Error> {
    static STOP: AtomicBool = AtomicBool::new(false);
    static HANDLED: Mutex<bool> = Mutex::new(false);
    let mut handled = HANDLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*handled {
        ctrlc::set_handler(move || {
            if STOP.swap(true, Relaxed) {
                process::exit(INTERRUPTED);
            }
            terminal::say(&format!("\n{said}; press Ctrl-C again to stop at once"));
        })
        .map_err(|e| Error::Interrupt(e.to_string()))?;
        *handled = true;
    }
    Ok(&STOP)
}
