//! A `ringway interop-server` in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A server that ends with its test.
#[derive(Debug)]
pub struct InteropServer {
    child: Child,
    tcp: String,
}

impl InteropServer {
    /// Has `binary` serve in `directory` as `name`, on a TCP port and, if one is given, on a Unix
    /// socket; it serves when this returns.
    pub fn start(binary: &str, directory: &Path, name: &str, unix: Option<&Path>) -> Self {
        let mut command = Command::new(binary);
        command
            .args(["interop-server", "--port", "0", "--name", name])
            .env("RINGWAY_DIR", directory)
            .stdout(Stdio::piped());
        if let Some(unix) = unix {
            command.arg("--unix").arg(unix);
        }
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut said).unwrap();
        let port = said
            .strip_prefix("serving gRPC at 0.0.0.0:")
            .and_then(|addresses| addresses.split_whitespace().next())
            .unwrap_or_else(|| panic!("no address: {said:?}"));
        let tcp = format!("127.0.0.1:{port}");
        Self { child, tcp }
    }

    /// Where it serves gRPC: `HOST:PORT`.
    pub fn tcp(&self) -> &str {
        &self.tcp
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to end, and returns whether it did so as it should.
    pub fn stop(mut self) -> bool {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for InteropServer {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}
