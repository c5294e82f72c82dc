//! The builder: tonic-prost-build's names and defaults.
//!
//! What concerns services is passed on to tonic's own builder, which generates what ours are made
//! from; what concerns messages goes to prost.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use prost_build::Config;
use prost_types::FileDescriptorSet;

use crate::{
    compile,
    error::Error,
    stubs::{Failure, StubGenerator},
};

const PROST_CODEC: &str = "tonic_prost::ProstCodec";

/// Starts a configuration, with tonic-prost-build's defaults.
pub fn configure() -> Builder {
    Builder {
        tonic: tonic_prost_build::configure(),
        messages: Messages::default(),
        build_services: [true, true],
        build_transport: true,
        build_blocking_client: false,
        use_arc_self: false,
        codec_path: PROST_CODEC.to_owned(),
        with_extended_rust_types: false,
        out_dir: None,
        include_file: None,
        file_descriptor_set_path: None,
        skip_protoc_run: false,
        protoc_args: Vec::new(),
        emit_rerun_if_changed: std::env::var_os("CARGO").is_some(),
    }
}

/// Configures what is generated, and where to.
///
/// ```
/// # let out = tempfile::tempdir()?;
/// # let proto = out.path().join("hello.proto");
/// # std::fs::write(&proto, "syntax = \"proto3\"; package hello; message M { bytes b = 1; }
/// #     service Greeter { rpc Greet(M) returns (stream M); }")?;
/// ringway_build::configure()
///     .build_server(false)
///     .bytes(".")
///     .out_dir(out.path())
///     .compile_protos(&[proto.as_path()], &[out.path()])?;
///
/// let source = std::fs::read_to_string(out.path().join("hello.rs"))?;
/// assert!(source.contains("pub struct GreeterClient<T = ringway::Channel>"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is generated until one of the `compile` functions is called"]
pub struct Builder {
    tonic: tonic_prost_build::Builder,
    messages: Messages,
    /// Clients, servers.
    build_services: [bool; 2],
    build_transport: bool,
    build_blocking_client: bool,
    use_arc_self: bool,
    codec_path: String,
    pub(crate) with_extended_rust_types: bool,
    pub(crate) out_dir: Option<PathBuf>,
    pub(crate) include_file: Option<PathBuf>,
    pub(crate) file_descriptor_set_path: Option<PathBuf>,
    pub(crate) skip_protoc_run: bool,
    pub(crate) protoc_args: Vec<String>,
    pub(crate) emit_rerun_if_changed: bool,
}

/// What is passed to prost: pairs are of a path and what goes to it.
#[derive(Clone, Debug, Default)]
struct Messages {
    extern_paths: Vec<(String, String)>,
    field_attributes: Vec<(String, String)>,
    message_attributes: Vec<(String, String)>,
    enum_attributes: Vec<(String, String)>,
    type_attributes: Vec<(String, String)>,
    boxed: Vec<String>,
    btree_map: Vec<String>,
    bytes: Vec<String>,
    skip_debug: HashSet<String>,
    compile_well_known_types: bool,
}

impl Messages {
    fn apply(&self, config: &mut Config) {
        for (path, rust) in &self.extern_paths {
            config.extern_path(path, rust);
        }
        for (path, attribute) in &self.field_attributes {
            config.field_attribute(path, attribute);
        }
        for (path, attribute) in &self.message_attributes {
            config.message_attribute(path, attribute);
        }
        for (path, attribute) in &self.enum_attributes {
            config.enum_attribute(path, attribute);
        }
        for (path, attribute) in &self.type_attributes {
            config.type_attribute(path, attribute);
        }
        for path in &self.boxed {
            config.boxed(path);
        }
        self.apply_containers(config);
    }

    /// Each of these replaces what the `Config` had before, so they are set only if asked for.
    fn apply_containers(&self, config: &mut Config) {
        if !self.btree_map.is_empty() {
            config.btree_map(&self.btree_map);
        }
        if !self.bytes.is_empty() {
            config.bytes(&self.bytes);
        }
        if !self.skip_debug.is_empty() {
            config.skip_debug(&self.skip_debug);
        }
        if self.compile_well_known_types {
            config.compile_well_known_types();
        }
    }
}

fn pair(path: impl AsRef<str>, other: impl AsRef<str>) -> (String, String) {
    (path.as_ref().to_owned(), other.as_ref().to_owned())
}

/// What is generated for services.
impl Builder {
    /// Whether to generate clients. Default: yes.
    pub fn build_client(mut self, enable: bool) -> Self {
        self.build_services[0] = enable;
        self.tonic = self.tonic.build_client(enable);
        self
    }

    /// Whether to generate, beside each client `FooClient`, a `FooBlockingClient` for threads without
    /// a runtime, in the module `foo_blocking_client`: the same methods without `async`, with
    /// iterators where those have streams. It takes `ringway` with the feature `blocking`. Default: no.
    pub fn build_blocking_client(mut self, enable: bool) -> Self {
        self.build_blocking_client = enable;
        self
    }

    /// Whether to generate servers. Default: yes.
    pub fn build_server(mut self, enable: bool) -> Self {
        self.build_services[1] = enable;
        self.tonic = self.tonic.build_server(enable);
        self
    }

    /// Whether clients get `connect`. Default: yes.
    pub fn build_transport(mut self, enable: bool) -> Self {
        self.build_transport = enable;
        self.tonic = self.tonic.build_transport(enable);
        self
    }

    /// Handlers take `Arc<Self>` instead of `&self`. Default: no.
    pub fn use_arc_self(mut self, enable: bool) -> Self {
        self.use_arc_self = enable;
        self.tonic = self.tonic.use_arc_self(enable);
        self
    }

    /// Methods of the trait answer UNIMPLEMENTED unless they are written. Default: no.
    pub fn generate_default_stubs(mut self, enable: bool) -> Self {
        self.tonic = self.tonic.generate_default_stubs(enable);
        self
    }

    /// An attribute on the server modules of matching packages.
    pub fn server_mod_attribute<P: AsRef<str>, A: AsRef<str>>(
        mut self,
        path: P,
        attribute: A,
    ) -> Self {
        self.tonic = self.tonic.server_mod_attribute(path, attribute);
        self
    }

    /// An attribute on matching servers.
    pub fn server_attribute<P: AsRef<str>, A: AsRef<str>>(mut self, path: P, attribute: A) -> Self {
        self.tonic = self.tonic.server_attribute(path, attribute);
        self
    }

    /// An attribute on matching service traits.
    pub fn trait_attribute<P: AsRef<str>, A: AsRef<str>>(mut self, path: P, attribute: A) -> Self {
        self.tonic = self.tonic.trait_attribute(path, attribute);
        self
    }

    /// An attribute on the client modules of matching packages.
    pub fn client_mod_attribute<P: AsRef<str>, A: AsRef<str>>(
        mut self,
        path: P,
        attribute: A,
    ) -> Self {
        self.tonic = self.tonic.client_mod_attribute(path, attribute);
        self
    }

    /// An attribute on matching clients.
    pub fn client_attribute<P: AsRef<str>, A: AsRef<str>>(mut self, path: P, attribute: A) -> Self {
        self.tonic = self.tonic.client_attribute(path, attribute);
        self
    }

    /// Leaves out the comments of these services and methods.
    pub fn disable_comments<I, S>(mut self, paths: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        self.tonic = self.tonic.disable_comments(paths);
        self
    }

    /// Where messages are, seen from the service modules. Default: `super`.
    pub fn proto_path(mut self, proto_path: impl AsRef<str>) -> Self {
        self.tonic = self.tonic.proto_path(proto_path);
        self
    }

    /// Kept for build scripts that set it: as in tonic-prost-build, the package is always part of a
    /// method's path.
    pub fn emit_package(self, _enable: bool) -> Self {
        self
    }

    /// The codec of the messages: `tonic_prost::ProstCodec` is the only one that Ringway's stubs
    /// have, any other is an error when compiling.
    pub fn codec_path(mut self, path: impl AsRef<str>) -> Self {
        self.codec_path = path.as_ref().to_owned();
        self
    }
}

/// What is generated for messages: passed to `prost_build::Config` as it is.
impl Builder {
    /// Uses a type or package that exists elsewhere.
    pub fn extern_path(mut self, proto_path: impl AsRef<str>, rust_path: impl AsRef<str>) -> Self {
        self.messages.extern_paths.push(pair(proto_path, rust_path));
        self
    }

    /// An attribute on matching fields.
    pub fn field_attribute<P: AsRef<str>, A: AsRef<str>>(mut self, path: P, attribute: A) -> Self {
        self.messages.field_attributes.push(pair(path, attribute));
        self
    }

    /// An attribute on matching messages.
    pub fn message_attribute<P: AsRef<str>, A: AsRef<str>>(
        mut self,
        path: P,
        attribute: A,
    ) -> Self {
        self.messages.message_attributes.push(pair(path, attribute));
        self
    }

    /// An attribute on matching enums and one-ofs.
    pub fn enum_attribute<P: AsRef<str>, A: AsRef<str>>(mut self, path: P, attribute: A) -> Self {
        self.messages.enum_attributes.push(pair(path, attribute));
        self
    }

    /// An attribute on matching messages, enums and one-ofs.
    pub fn type_attribute<P: AsRef<str>, A: AsRef<str>>(mut self, path: P, attribute: A) -> Self {
        self.messages.type_attributes.push(pair(path, attribute));
        self
    }

    /// Boxes matching fields.
    pub fn boxed<P: AsRef<str>>(mut self, path: P) -> Self {
        self.messages.boxed.push(path.as_ref().to_owned());
        self
    }

    /// Uses `BTreeMap` for matching map fields.
    pub fn btree_map<P: AsRef<str>>(mut self, path: P) -> Self {
        self.messages.btree_map.push(path.as_ref().to_owned());
        self
    }

    /// Uses `bytes::Bytes` for matching `bytes` fields; the default is `Vec<u8>`.
    pub fn bytes<P: AsRef<str>>(mut self, path: P) -> Self {
        self.messages.bytes.push(path.as_ref().to_owned());
        self
    }

    /// Leaves out `Debug` for matching messages.
    pub fn skip_debug<I, S>(mut self, paths: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let paths = paths.into_iter().map(|path| path.as_ref().to_owned());
        self.messages.skip_debug.extend(paths);
        self
    }

    /// Generates Google's well-known types instead of using `prost_types`. Default: no.
    pub fn compile_well_known_types(mut self, enable: bool) -> Self {
        self.messages.compile_well_known_types = enable;
        self.tonic = self.tonic.compile_well_known_types(enable);
        self
    }

    /// Allows wrapped well-known types as requests and responses. Default: no.
    pub fn with_extended_rust_types(mut self, enable: bool) -> Self {
        self.with_extended_rust_types = enable;
        self
    }
}

/// Where it comes from and where it goes.
impl Builder {
    /// The directory to write to. Default: `$OUT_DIR`.
    pub fn out_dir(mut self, out_dir: impl AsRef<Path>) -> Self {
        self.out_dir = Some(out_dir.as_ref().to_owned());
        self
    }

    /// A file in the output directory that includes all the others as nested modules.
    pub fn include_file(mut self, path: impl AsRef<Path>) -> Self {
        self.include_file = Some(path.as_ref().to_owned());
        self
    }

    /// Also writes the descriptor set, as reflection wants it, to this file.
    pub fn file_descriptor_set_path(mut self, path: impl AsRef<Path>) -> Self {
        self.file_descriptor_set_path = Some(path.as_ref().to_owned());
        self
    }

    /// Reads the descriptor set from [`Builder::file_descriptor_set_path`] instead of compiling
    /// .proto files.
    pub fn skip_protoc_run(mut self) -> Self {
        self.skip_protoc_run = true;
        self
    }

    /// Taken and ignored, with a warning: no protoc is run.
    pub fn protoc_arg<A: AsRef<str>>(mut self, arg: A) -> Self {
        self.protoc_args.push(arg.as_ref().to_owned());
        self
    }

    /// Whether Cargo is told which .proto files were read. Default: yes, if Cargo runs this.
    pub fn emit_rerun_if_changed(mut self, enable: bool) -> Self {
        self.emit_rerun_if_changed = enable;
        self
    }
}

/// Generating.
impl Builder {
    /// Compiles .proto files and generates code.
    ///
    /// # Errors
    /// When a file can't be read or is not valid, and when the output can't be written.
    pub fn compile_protos<P: AsRef<Path>>(self, protos: &[P], includes: &[P]) -> io::Result<()> {
        self.compile_with_config(Config::new(), protos, includes)
    }

    /// As [`Builder::compile_protos`], on top of a configuration of prost's. Settings of it that
    /// concern protoc have no effect.
    ///
    /// # Errors
    /// As [`Builder::compile_protos`].
    pub fn compile_with_config<P: AsRef<Path>>(
        self,
        mut config: Config,
        protos: &[P],
        includes: &[P],
    ) -> io::Result<()> {
        self.check()?;
        let fds = compile::descriptors(&self, protos, includes)?;
        config.type_attribute(".", "#[allow(clippy::all)]");
        self.generate(config, fds)
    }

    /// Generates code from a compiled descriptor set.
    ///
    /// # Errors
    /// When the output can't be written.
    pub fn compile_fds(self, fds: FileDescriptorSet) -> io::Result<()> {
        self.compile_fds_with_config(fds, Config::new())
    }

    /// As [`Builder::compile_fds`], on top of a configuration of prost's.
    ///
    /// # Errors
    /// As [`Builder::compile_fds`].
    pub fn compile_fds_with_config(self, fds: FileDescriptorSet, config: Config) -> io::Result<()> {
        self.check()?;
        self.generate(config, fds)
    }

    /// The generator alone, for `prost_build::Config::service_generator`. It panics where the
    /// functions above return an error.
    #[must_use]
    pub fn service_generator(self) -> Box<dyn prost_build::ServiceGenerator> {
        Box::new(self.stub_generator(None))
    }

    fn check(&self) -> Result<(), Error> {
        if self.codec_path == PROST_CODEC {
            return Ok(());
        }
        Err(Error::CustomCodec {
            codec_path: self.codec_path.clone(),
        })
    }

    fn generate(self, mut config: Config, fds: FileDescriptorSet) -> io::Result<()> {
        config.out_dir(compile::out_dir(&self)?);
        if let Some(path) = &self.include_file {
            config.include_file(path);
        }
        self.messages.apply(&mut config);
        let _types = compile::ExtendedTypes::allow(self.with_extended_rust_types);
        let failure = Failure::default();
        if self.build_services.contains(&true) {
            config.service_generator(Box::new(self.stub_generator(Some(failure.clone()))));
        }
        config.compile_fds(fds)?;
        match failure.take() {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    fn stub_generator(self, failure: Option<Failure>) -> StubGenerator {
        StubGenerator {
            build_transport: self.build_transport,
            build_blocking_client: self.build_blocking_client,
            use_arc_self: self.use_arc_self,
            tonic: self.tonic.service_generator(),
            failure,
        }
    }
}
