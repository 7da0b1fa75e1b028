//! The peak of a GPU's memory while something runs, as the driver's own tool tells it.

use headkv_engine::Device;
use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

/// Runs `work`, and gives the most bytes that were in use on the GPU meanwhile, other programs' included; `None` on the
/// CPU, or where `nvidia-smi` is missing.
pub fn watch<R>(device: Device, work: impl FnOnce() -> R) -> (R, Option<f64>) {
    let Device::Cuda(number) = device else {
        return (work(), None);
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak: Option<f64> = None;
            while !done.load(Relaxed) {
                peak = used(number).into_iter().chain(peak).reduce(f64::max);
                thread::sleep(Duration::from_millis(50));
            }
            peak
        });
        let result = work();
        done.store(true, Relaxed);
        (result, watcher.join().ok().flatten())
    })
}

/// Bytes in use on a GPU.
fn used(number: usize) -> Option<f64> {
    let output = Command::new("nvidia-smi")
        .args([
            &format!("--id={number}"),
            "--query-gpu=memory.used",
            "--format=csv,noheader,nounits",
        ])
        .output()
        .ok()?;
    let mebibytes: f64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    Some(mebibytes * 1024.0 * 1024.0)
}
