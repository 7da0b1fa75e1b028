//! The peak of a GPU's memory while something runs, as the driver's own tool tells it.

use headkv_engine::Device;
use std::{
    env,
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
            let card = visible_card(number);
            while let (false, Some(card)) = (done.load(Relaxed), &card) {
                peak = used(card).into_iter().chain(peak).reduce(f64::max);
                thread::sleep(Duration::from_millis(50));
            }
            peak
        });
        let result = work();
        done.store(true, Relaxed);
        (result, watcher.join().ok().flatten())
    })
}

/// The name by which the driver's tool knows the GPU that CUDA counts so.
pub fn visible_card(number: usize) -> Option<String> {
    card(number, env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())
}

/// The card that the driver's tool knows by that name: CUDA counts those that `CUDA_VISIBLE_DEVICES` lists, in its order,
/// by their numbers or the beginnings of their UUIDs; what stands behind one that is neither is not visible.
fn card(number: usize, visible: Option<&str>) -> Option<String> {
    let Some(visible) = visible.map(str::trim) else {
        return Some(number.to_string());
    };
    let known = |name: &&str| {
        name.parse::<usize>().is_ok() || name.starts_with("GPU-") || name.starts_with("MIG-")
    };
    let names = visible.split(',').map(str::trim);
    names.take_while(known).nth(number).map(String::from)
}

/// Bytes in use on a GPU.
fn used(card: &str) -> Option<f64> {
    let mebibytes: f64 = query(card, "memory.used")?.parse().ok()?;
    Some(mebibytes * 1024.0 * 1024.0)
}

/// What the driver's tool says of a GPU, without units; several fields with `, ` between them.
pub fn query(card: &str, fields: &str) -> Option<String> {
    let output = Command::new("nvidia-smi")
        // The numbers of its list are those of the bus; CUDA's are, too, if it is told so.
        .args([
            &format!("--id={card}"),
            &format!("--query-gpu={fields}"),
            "--format=csv,noheader,nounits",
        ])
        .output()
        .ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_the_one_that_cuda_counts() {
        let card = |number, visible| card(number, visible);
        assert_eq!(card(1, None).as_deref(), Some("1"));
        assert_eq!(card(0, Some("3,1")).as_deref(), Some("3"));
        assert_eq!(card(1, Some("3, GPU-8f1a")).as_deref(), Some("GPU-8f1a"));
        assert_eq!(card(2, Some("3,1")), None);
        assert_eq!(card(1, Some("0,-1,2")), None);
        assert_eq!(card(0, Some("")), None);
    }
}
