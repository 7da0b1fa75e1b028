//! The end of an engine.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use candle_core::Device;
use tokio::sync::mpsc::Sender;

use crate::request::Request;

/// How long an engine may take to end: a client that never reads its answer may keep its thread for good.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells an engine to end. What its thread holds on a GPU is freed before this returns: the driver's own end, which comes with
/// the program's, and a tensor's that is freed at the same moment crash.
pub(crate) fn end(engine: &Sender<Request>, thread: &JoinHandle<()>, device: &Device) {
    // Not blocking_send, which panics in a runtime.
    let told = engine.try_send(Request::Terminate).is_ok();
    let here = thread.thread().id() == thread::current().id();
    if !told || here || !device.is_cuda() {
        return;
    }
    let start = Instant::now();
    while !thread.is_finished() && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
}
