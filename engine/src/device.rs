//! Which device to run on: parsing, listing and opening.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use atelico_kernels::ops;
use burn::tensor::Device;
#[cfg(any(feature = "vulkan", feature = "webgpu", feature = "metal", feature = "cuda"))]
use burn::tensor::DeviceType;

use crate::{Error, Result, kernel_cache};

/// A device as the user names it: `cpu`, `cuda[:N]`, `vulkan[:N]`, `metal[:N]`, `webgpu[:N]` or
/// `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeviceSpec {
    /// The best one present: CUDA, then Metal, Vulkan, WebGPU, the CPU.
    #[default]
    Auto,
    /// The N-th device of one kind.
    Kind(DeviceKind, usize),
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DeviceKind {
    Cuda,
    Metal,
    Vulkan,
    WebGpu,
    Cpu,
}

/// All kinds, best first.
const KINDS: [DeviceKind; 5] =
    [DeviceKind::Cuda, DeviceKind::Metal, DeviceKind::Vulkan, DeviceKind::WebGpu, DeviceKind::Cpu];

impl DeviceKind {
    /// The name that users give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
            Self::WebGpu => "webgpu",
            Self::Cpu => "cpu",
        }
    }

    /// Whether this build can use it.
    pub fn compiled(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::WebGpu => cfg!(feature = "webgpu"),
            Self::Cpu => cfg!(feature = "cpu"),
        }
    }

    /// The devices of this kind that are present; none when it is not compiled in.
    fn devices(self) -> Vec<Device> {
        if self != Self::Cpu {
            kernel_cache::start();
        }
        let list = || match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::enumerate(DeviceType::Cuda).into_vec(),
            #[cfg(feature = "metal")]
            Self::Metal => Device::enumerate(DeviceType::Metal).into_vec(),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Device::enumerate(DeviceType::Vulkan).into_vec(),
            #[cfg(feature = "webgpu")]
            Self::WebGpu => Device::enumerate(DeviceType::WebGpu).into_vec(),
            #[cfg(feature = "cpu")]
            Self::Cpu => vec![Device::flex()],
            #[allow(unreachable_patterns)]
            _ => Vec::new(),
        };
        // A missing driver library makes some runtimes panic instead of reporting no device.
        catch_unwind(AssertUnwindSafe(list)).unwrap_or_default()
    }
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let error = |problem: String| {
            let names = KINDS.map(DeviceKind::name).join("[:N], ");
            Error::Device { asked: text.into(), problem, available: format!("auto, {names}") }
        };
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        let (name, index) = text.split_once(':').unwrap_or((text, "0"));
        let index = index.parse().map_err(|_| error(format!("`{index}` is no device number")))?;
        let kind = KINDS.into_iter().find(|k| k.name().eq_ignore_ascii_case(name));
        match kind {
            Some(DeviceKind::Cpu) if index > 0 => Err(error("there is one CPU".into())),
            Some(kind) => Ok(Self::Kind(kind, index)),
            None => Err(error("no such kind of device".into())),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Kind(DeviceKind::Cpu, _) => f.write_str("cpu"),
            Self::Kind(kind, index) => write!(f, "{}:{index}", kind.name()),
        }
    }
}

/// An opened device and its exact name.
#[derive(Clone, Debug)]
pub struct OpenDevice {
    /// The device.
    pub device: Device,
    /// Its kind.
    pub kind: DeviceKind,
    /// Its name as [`DeviceSpec`] reads it, e.g. `cuda:0`.
    pub name: String,
}

/// The devices that this build can use on this machine, best first, as [`DeviceSpec`] reads them.
pub fn available() -> Vec<String> {
    KINDS
        .into_iter()
        .flat_map(|kind| (0..kind.devices().len()).map(move |i| DeviceSpec::Kind(kind, i).to_string()))
        .collect()
}

impl DeviceSpec {
    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::Device`] when it is not compiled in, not present or does not compute, listing what is
    /// present.
    pub fn open(self) -> Result<OpenDevice> {
        let problem = match self {
            Self::Auto => match KINDS.into_iter().find_map(open_or_warn) {
                Some(found) => return Ok(found),
                None => "no device is compiled in".into(),
            },
            Self::Kind(kind, _) if !kind.compiled() => "is not compiled into this build".into(),
            Self::Kind(kind, index) => match open(kind, index) {
                Some(Ok(found)) => return Ok(found),
                Some(Err(problem)) => problem,
                None => match kind.devices().len() {
                    0 => "is not present on this machine".into(),
                    n => format!("has no number {index}; {n} present"),
                },
            },
        };
        Err(Error::Device { asked: self.to_string(), problem, available: available().join(", ") })
    }
}

/// The `index`-th device of a kind, or why it can't be used; `None` when there is none.
fn open(kind: DeviceKind, index: usize) -> Option<std::result::Result<OpenDevice, String>> {
    let device = kind.devices().into_iter().nth(index)?;
    #[cfg(feature = "cuda")]
    if kind == DeviceKind::Cuda
        && let Err(problem) = ops::cuda_toolkit()
    {
        return Some(Err(problem));
    }
    ops::prepare(&device);
    if kind != DeviceKind::Cpu && !ops::computes(&device) {
        return Some(Err("fails its first computation: its driver or kernel compiler is missing or broken".into()));
    }
    Some(Ok(OpenDevice { device, kind, name: DeviceSpec::Kind(kind, index).to_string() }))
}

/// The first device of a kind; one that can't be used is told of and passed over.
fn open_or_warn(kind: DeviceKind) -> Option<OpenDevice> {
    open(kind, 0)?.map_err(|problem| tracing::warn!("{} {problem}; going on without it", kind.name())).ok()
}
