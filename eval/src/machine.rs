//! What a run's machine is, for who wants to run it again.

use crate::gpu_memory::{query, visible_card};
use headkv_engine::Device;
use std::{fs, thread};

/// The processor and its threads, and the GPU with its driver where one is asked for; as far as the system says.
pub fn describe(device: &str) -> String {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor_name(&processor).unwrap_or(std::env::consts::ARCH);
    let cpu = format!("{processor}, {threads} threads");
    let gpu = match device.parse() {
        Ok(Device::Cuda(number)) => gpu(number),
        _ => None,
    };
    gpu.map_or(cpu.clone(), |gpu| format!("{gpu}; {cpu}"))
}

fn processor_name(cpuinfo: &str) -> Option<&str> {
    let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let name = lines.find(|(key, _)| key.trim() == "model name")?.1.trim();
    Some(name).filter(|name| !name.is_empty())
}

fn gpu(number: usize) -> Option<String> {
    let found = query(&visible_card(number)?, "name,driver_version")?;
    let (name, driver) = found.split_once(", ")?;
    Some(format!("{name}, driver {driver}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_has_its_name_and_threads() {
        let info = "processor\t: 0\nmodel name\t: A Chip 9000\nflags\t: a b\n";
        assert_eq!(processor_name(info), Some("A Chip 9000"));
        assert_eq!(processor_name("model name\t:\n"), None);
        assert!(describe("cpu").ends_with(" threads"));
        assert!(describe("cuda:99").ends_with(" threads"));
    }
}
