//! The boundary to code that panics: what it says goes into one error, and not to the terminal.

use std::{
    any::Any,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// How many guards are up, in all threads.
static GUARDS: AtomicUsize = AtomicUsize::new(0);

/// Runs what may panic; a panic, in this thread or in one of rayon's that works for it, is silent and becomes its message.
///
/// # Errors
/// The panic's message, its first line.
pub fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let helps = GUARDS.load(SeqCst) > 0 && rayon::current_thread_index().is_some();
            if !helps && !GUARDED.get() {
                before(info);
            }
        }));
    });
    let was = GUARDED.replace(true);
    GUARDS.fetch_add(1, SeqCst);
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    GUARDS.fetch_sub(1, SeqCst);
    GUARDED.set(was);
    result.map_err(|payload| message(&*payload))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied());
    let line = text.and_then(|text| text.lines().next());
    line.unwrap_or("without a message").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn panics_become_messages() {
        assert_eq!(quietly(|| 7), Ok(7));
        assert_eq!(quietly::<()>(|| panic!("one\ntwo")), Err("one".into()));
        let many = quietly(|| {
            (0..100)
                .into_par_iter()
                .for_each(|i| assert!(i < 50, "at {i}"))
        });
        assert!(many.unwrap_err().starts_with("at "));
        let nested = quietly(|| quietly::<()>(|| panic!("inner")));
        assert_eq!(nested, Ok(Err("inner".into())));
    }
}
