//! From .proto files to a descriptor set, and what a run needs around it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost::Message;
use prost_types::FileDescriptorSet;
use tonic_prost_build::NON_PATH_TYPE_ALLOWLIST;

use crate::{builder::Builder, error::Error};

/// An argument that many build scripts pass for the sake of old protocs.
const HARMLESS_PROTOC_ARG: &str = "--experimental_allow_proto3_optional";

/// Compiles the files, or reads what was compiled before.
pub(crate) fn descriptors<P: AsRef<Path>>(
    builder: &Builder,
    protos: &[P],
    includes: &[P],
) -> Result<FileDescriptorSet, Error> {
    if builder.skip_protoc_run {
        return read(builder.file_descriptor_set_path.as_deref());
    }
    warn_of_protoc_args(&builder.protoc_args);
    let mut compiler = protox::Compiler::new(includes).map_err(Error::Proto)?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(protos)
        .map_err(Error::Proto)?;
    if builder.emit_rerun_if_changed {
        tell_cargo(&compiler);
    }
    if let Some(path) = &builder.file_descriptor_set_path {
        fs::write(path, compiler.encode_file_descriptor_set()).map_err(|source| {
            Error::WriteDescriptorSet {
                path: path.clone(),
                source,
            }
        })?;
    }
    Ok(compiler.file_descriptor_set())
}

/// Where to write.
pub(crate) fn out_dir(builder: &Builder) -> Result<PathBuf, Error> {
    match &builder.out_dir {
        Some(out_dir) => Ok(out_dir.clone()),
        None => std::env::var_os("OUT_DIR")
            .map(PathBuf::from)
            .ok_or(Error::NoOutDir),
    }
}

fn read(path: Option<&Path>) -> Result<FileDescriptorSet, Error> {
    let path = path.ok_or(Error::NoDescriptorSet)?;
    let encoded = fs::read(path).map_err(|source| Error::ReadDescriptorSet {
        path: path.to_owned(),
        source,
    })?;
    FileDescriptorSet::decode(encoded.as_slice()).map_err(|source| Error::DecodeDescriptorSet {
        path: path.to_owned(),
        source,
    })
}

fn warn_of_protoc_args(args: &[String]) {
    for arg in args.iter().filter(|arg| *arg != HARMLESS_PROTOC_ARG) {
        println!("cargo:warning=no protoc is run: its argument {arg} is ignored");
    }
}

/// Imports included; the well-known types have no file.
fn tell_cargo(compiler: &protox::Compiler) {
    for path in compiler.files().filter_map(|file| file.path()) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}

/// Lets tonic's generator take more types as requests and responses, until it is dropped.
#[derive(Debug)]
pub(crate) struct ExtendedTypes {
    before: &'static [&'static str],
}

impl ExtendedTypes {
    /// tonic-prost-build's own extended list, which it keeps private.
    const LIST: &'static [&'static str] = &["()", "bool", "i32", "i64", "u32", "u64", "f32", "f64"];

    pub(crate) fn allow(extended: bool) -> Self {
        let before = NON_PATH_TYPE_ALLOWLIST.with(|list| *list.borrow());
        if extended {
            NON_PATH_TYPE_ALLOWLIST.set(Self::LIST);
        }
        Self { before }
    }
}

impl Drop for ExtendedTypes {
    fn drop(&mut self) {
        NON_PATH_TYPE_ALLOWLIST.set(self.before);
    }
}
