//! What the figures were measured on.

use serde::Serialize;

/// The machine, and the build that ran on it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Processors that this process may use.
    pub(crate) cpus: usize,
    /// The processor's own name.
    pub(crate) model: String,
    /// The kernel's release.
    pub(crate) kernel: String,
    pub(crate) arch: &'static str,
    pub(crate) memory_bytes: u64,
    /// `release` or `debug`: figures of a debug build mean nothing.
    pub(crate) build: &'static str,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let system = rustix::system::uname();
        let info = rustix::system::sysinfo();
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            model: model(&cpuinfo).unwrap_or("unknown").to_owned(),
            kernel: system.release().to_string_lossy().into_owned(),
            arch: std::env::consts::ARCH,
            memory_bytes: info.totalram * u64::from(info.mem_unit),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
        }
    }
}

/// Arm kernels give no name.
fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_known() {
        let machine = Machine::this();
        assert!(machine.cpus >= 1 && machine.memory_bytes > 1 << 20);
        assert!(machine.kernel.contains('.'), "{}", machine.kernel);
    }

    #[test]
    fn the_model_is_the_first_processors() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Zen 5: big\nprocessor\t: 1\nmodel name\t: x\n";
        assert_eq!(model(cpuinfo), Some("Zen 5: big"));
        assert_eq!(model("CPU implementer\t: 0x41\n"), None);
    }
}
