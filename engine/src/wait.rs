//! From asynchronous to blocking, on any thread.

use std::future::Future;

/// Runs a future that waits for the engine alone, on this thread.
///
/// The engine has a runtime and threads of its own, and what is awaited are its channels, which belong to no runtime: that
/// works inside of another runtime too, where a second one would panic.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}
