//! Takes the package's files out of the README: each code block that follows a line with `` `PATH`: `` in it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// In the workspace, and in the package of its own, where Cargo puts it.
const READMES: [&str; 2] = ["../../README.md", "README.md"];

fn main() -> Result<(), Box<dyn Error>> {
    let found = READMES.into_iter().find(|path| Path::new(path).exists());
    let path_of_readme = found.ok_or("there is no README.md")?;
    println!("cargo::rerun-if-changed={path_of_readme}");
    let readme = fs::read_to_string(path_of_readme)?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is set by Cargo")?);
    for path in [
        "proto/greeter.proto",
        "src/lib.rs",
        "src/bin/server.rs",
        "src/bin/client.rs",
    ] {
        let code =
            block_of(&readme, path).ok_or_else(|| format!("{path_of_readme} has no {path}"))?;
        // A port of the kernel's choosing: tests share their machine.
        let code = code.replace("0.0.0.0:50051", "127.0.0.1:0");
        let name = Path::new(path).file_name().ok_or("a path without a name")?;
        fs::write(out.join(name), code)?;
    }
    ringway_build::configure().compile_protos(&[out.join("greeter.proto")], &[out])?;
    Ok(())
}

fn block_of<'a>(readme: &'a str, path: &str) -> Option<&'a str> {
    let (_, after) = readme.split_once(&format!("`{path}`:"))?;
    let (_, fenced) = after.split_once("```")?;
    let (_, code) = fenced.split_once('\n')?;
    Some(code.split_once("```")?.0)
}
