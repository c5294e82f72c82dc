//! Docker and Compose as programs, and the image that is tested.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The image under test.
pub(crate) const IMAGE: &str = "ringway-shop:tested";
/// What the image is made from.
const BASE_IMAGE: &str = "debian:bookworm-slim";
/// Jaeger, where it is made from a program.
const JAEGER_IMAGE: &str = "ringway-jaeger:tested";

/// Why nothing can be tested here, if so.
pub(crate) fn missing() -> Option<String> {
    let answers = |command: &mut Command| {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    if !answers(Command::new("docker").arg("info")) {
        return Some("no Docker engine answers (`docker info`)".to_owned());
    }
    if !answers(compose().arg("version")) {
        return Some("there is neither `docker compose` nor `docker-compose`".to_owned());
    }
    None
}

/// `docker compose`, or docker-compose where the engine's program has no such command.
pub(crate) fn compose() -> Command {
    static PLUGIN: OnceLock<bool> = OnceLock::new();
    let is_there = *PLUGIN.get_or_init(|| {
        let version = Command::new("docker").args(["compose", "version"]).output();
        version.is_ok_and(|output| output.status.success())
    });
    if !is_there {
        return Command::new("docker-compose");
    }
    let mut docker = Command::new("docker");
    docker.arg("compose");
    docker
}

/// What `docker` says; it must succeed.
pub(crate) fn docker(arguments: &[&str]) -> String {
    said(Command::new("docker").args(arguments))
}

/// What a container's `docker inspect` says by this template.
pub(crate) fn inspect(container: &str, template: &str) -> String {
    docker(&["inspect", "--format", template, container])
}

/// What `ringway` says in a container, as JSON.
pub(crate) fn ringway(container: &str, arguments: &[&str]) -> Value {
    let said = docker(&[&["exec", container, "ringway"], arguments].concat());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// A command's standard output, without the last end of line.
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// The project's root.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        root.unwrap().to_owned()
    })
}

/// The programs of the image, as they run on this host.
pub(crate) fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        if let Some(built) = env::var_os("RINGWAY_TEST_PROGRAMS") {
            return root().join(built);
        }
        // This program is TARGET/debug/deps/compose-...
        let this = env::current_exe().unwrap();
        let target = this.ancestors().nth(3).unwrap();
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo
            .args([
                "build",
                "--locked",
                "--package",
                "shop-demo",
                "--bin",
                "shop",
            ])
            .args(["--package", "ringway-cli", "--bin", "ringway"])
            .current_dir(root())
            .env("CARGO_TARGET_DIR", target);
        said(&mut cargo);
        target.join("debug")
    })
}

/// Builds the image from the programs of this host, once.
pub(crate) fn built_image() -> &'static str {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        ensure_base();
        let bin = root().join("tests/compose/bin");
        let from = format!("--from={}", programs().display());
        let into = format!("--into={}", bin.display());
        said(Command::new(root().join("deploy/build-on-host")).args([from, into]));
        let build_image = format!("BUILD_IMAGE={BASE_IMAGE}");
        docker_build(
            IMAGE,
            &root().join("deploy/Dockerfile"),
            root(),
            &[&build_image, "PROGRAMS=tests/compose/bin"],
        );
    });
    IMAGE
}

/// Jaeger's image where there is a program to make it from.
pub(crate) fn jaeger_image() -> Option<&'static str> {
    static BUILT: OnceLock<Option<&'static str>> = OnceLock::new();
    *BUILT.get_or_init(|| {
        let program = PathBuf::from(env::var_os("RINGWAY_JAEGER")?);
        ensure_base();
        let context = tempfile::tempdir().unwrap();
        std::fs::copy(root().join(program), context.path().join("jaeger")).unwrap();
        let recipe = root().join("tests/compose/jaeger.Dockerfile");
        docker_build(JAEGER_IMAGE, &recipe, context.path(), &[]);
        Some(JAEGER_IMAGE)
    })
}

fn docker_build(image: &str, recipe: &Path, context: &Path, arguments: &[&str]) {
    let mut docker = Command::new("docker");
    docker.args(["build", "--quiet", "--force-rm", "--tag", image, "--file"]);
    docker.arg(recipe).arg(context);
    for argument in arguments {
        docker.args(["--build-arg", argument]);
    }
    said(&mut docker);
}

/// The base image: there already, pulled, or made here.
fn ensure_base() {
    let works = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    if works(&["image", "inspect", BASE_IMAGE]) || works(&["pull", BASE_IMAGE]) {
        return;
    }
    let kept = env::var_os("RINGWAY_TEST_BASE").map(|kept| root().join(kept));
    let kept = kept.unwrap_or_else(|| env::temp_dir().join("ringway-base-image"));
    let script = root().join("tests/compose/base-image");
    said(Command::new(script).arg(kept).env("BASE_IMAGE", BASE_IMAGE));
}
