//! Where a model runs.

use crate::{Error, files::first_line};
use std::str::FromStr;

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// All cores, f32.
    #[default]
    Cpu,
    /// The NVIDIA GPU of that number, bf16 where it has it.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let cuda = name
            .strip_prefix("cuda")
            .map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match (name, cuda) {
            ("cpu", _) => Ok(Device::Cpu),
            (_, Some("")) => Ok(Device::Cuda(0)),
            (_, Some(number)) if number.parse::<usize>().is_ok() => {
                Ok(Device::Cuda(number.parse().unwrap_or(0)))
            }
            _ => Err(Error::Device {
                name: name.into(),
                why: "use cpu, cuda or cuda:N".into(),
            }),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Device {
    pub(crate) fn open(self) -> Result<candle_core::Device, Error> {
        match self {
            Device::Cpu => Ok(candle_core::Device::Cpu),
            Device::Cuda(number) => {
                candle_core::Device::new_cuda(number).map_err(|e| Error::Device {
                    name: self.to_string(),
                    why: format!(
                        "{}; needs an NVIDIA GPU and a build with --features cuda",
                        first_line(&e.to_string())
                    ),
                })
            }
        }
    }
}
