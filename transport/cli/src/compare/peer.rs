//! The server of a path, in a process of its own, or in this one for `inproc`.

use std::ffi::OsString;
use std::path::{Path as FsPath, PathBuf};

use super::connect::{Client, connect};
use super::error::Error;
use super::options::Path;
use super::part::{Process, Ready, Usage};
use super::server::Serving;

/// A server to connect to, whose use of the machine counts with the client's.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) path: Path,
    pub(crate) address: String,
    scratch: PathBuf,
    home: Home,
}

#[derive(Debug)]
enum Home {
    Process(Process),
    Here(Serving),
}

impl Peer {
    /// Starts the server of `path`; its sockets go to `scratch`.
    pub(crate) async fn start(path: Path, scratch: &FsPath) -> Result<Self, Error> {
        if path == Path::Inproc {
            let serving = Serving::start(path, scratch).await?;
            return Ok(Peer {
                path,
                address: serving.address.clone(),
                scratch: scratch.to_owned(),
                home: Home::Here(serving),
            });
        }
        let path_name = path.to_string();
        let args = ["--path", &path_name, "--scratch"].map(OsString::from);
        let args = args.into_iter().chain([scratch.as_os_str().to_owned()]);
        let mut process = Process::start_part("bench-server", args)?;
        let ready: Ready = process.hear()?;
        Ok(Peer {
            path,
            address: ready.address,
            scratch: scratch.to_owned(),
            home: Home::Process(process),
        })
    }

    /// Opens a new connection to it.
    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        connect(self.path, &self.address, &self.scratch).await
    }

    /// CPU time of client and server so far.
    pub(crate) fn cpu_ns(&mut self) -> Result<u64, Error> {
        let client_ns = Usage::cpu_of_self().cpu_ns;
        match &mut self.home {
            Home::Process(process) => Ok(client_ns + process.cpu_ns()?),
            Home::Here(_) => Ok(client_ns),
        }
    }

    /// CPU time and memory of client and server.
    pub(crate) fn usage(&mut self) -> Result<Usage, Error> {
        let client = Usage::of_self().map_err(|source| Error::Process {
            what: "could not read this process's memory".to_owned(),
            source,
        })?;
        match &mut self.home {
            Home::Process(process) => Ok(client.plus(process.usage()?)),
            Home::Here(_) => Ok(client),
        }
    }

    /// Ends the server.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        match self.home {
            Home::Process(_ends_when_dropped) => Ok(()),
            Home::Here(serving) => serving.stop().await,
        }
    }
}
