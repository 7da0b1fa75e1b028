//! The boundary to libraries that panic on damaged files.

#[cfg(feature = "engine")]
pub use headkv_engine::check::guard::quietly;

/// Runs what may panic; a panic becomes an error.
///
/// # Errors
/// That it panicked: without the engine, its message goes to the terminal.
#[cfg(not(feature = "engine"))]
pub fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run))
        .map_err(|_| "its reader panicked".into())
}
