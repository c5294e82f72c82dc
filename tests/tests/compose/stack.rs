//! A stack that is up.

use std::process::{Command, Stdio};

use crate::engine::{built_image, compose, docker, inspect, jaeger_image, root, said};
use crate::load::{eventually, try_page};

/// The services that can be called, in the order of `docker-compose up`.
pub(crate) const SERVICES: [&str; 6] = [
    "catalog",
    "inventory",
    "media",
    "payments",
    "orders",
    "gateway",
];

/// Files of `deploy/` and `tests/compose/` that go on top of `compose.yaml`, and their variables.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Overlay {
    files: Vec<&'static str>,
    variables: Vec<(&'static str, String)>,
}

impl Overlay {
    pub(crate) fn of(files: &[&'static str]) -> Self {
        Self {
            files: files.to_vec(),
            variables: Vec::new(),
        }
    }

    /// With a value for a variable of the files.
    pub(crate) fn with(mut self, variable: &'static str, value: String) -> Self {
        self.variables.push((variable, value));
        self
    }
}

/// What is up, and its containers. Dropped, it is gone, with its volumes.
pub(crate) struct Stack {
    project: String,
    overlay: Overlay,
    jaeger: Option<&'static str>,
    gateway: String,
}

impl Stack {
    /// Brings `deploy/compose.yaml` up, with an overlay, and without Jaeger.
    pub(crate) fn up(project: &str, overlay: Overlay) -> Self {
        Self::start(project, overlay, None)
    }

    /// The same with Jaeger, where there is one.
    pub(crate) fn up_with_jaeger(project: &str, overlay: Overlay) -> Self {
        Self::start(project, overlay, jaeger_image())
    }

    fn start(project: &str, overlay: Overlay, jaeger: Option<&'static str>) -> Self {
        let mut stack = Self {
            project: format!("ringway-test-{project}"),
            overlay,
            jaeger,
            gateway: String::new(),
        };
        // What an earlier run left behind.
        stack.down();
        stack.apply();
        stack
    }

    /// Puts another overlay in the place of the one that it has; what does not change goes on running.
    pub(crate) fn switch(&mut self, overlay: &Overlay) {
        if self.overlay != *overlay {
            self.overlay = overlay.clone();
            self.apply();
        }
    }

    fn apply(&mut self) {
        let mut up = vec!["up", "--detach", "--no-build", "gateway"];
        up.extend(self.jaeger.map(|_| "jaeger"));
        self.compose(&up);
        self.gateway = self.published("gateway", 8080);
        // It has been started, and no more is known.
        eventually("the gateway answers", || {
            try_page(&self.gateway, "/healthz").is_some()
        });
    }

    /// Whether it has a Jaeger.
    pub(crate) fn has_jaeger(&self) -> bool {
        self.jaeger.is_some()
    }

    /// Where the gateway is reached from outside.
    pub(crate) fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Where a service's port is reached from outside.
    pub(crate) fn published(&self, service: &str, port: u16) -> String {
        self.compose(&["port", service, &port.to_string()])
    }

    fn command(&self) -> Command {
        let mut command = compose();
        let jaeger = self.jaeger.map(|_| "tests/compose/jaeger.yaml");
        let files = ["deploy/compose.yaml"].into_iter().chain(jaeger);
        for file in files.chain(self.overlay.files.iter().copied()) {
            command.arg("--file").arg(root().join(file));
        }
        command
            .args(["--project-name", &self.project])
            .env("SHOP_IMAGE", built_image())
            // Ports that nobody has.
            .envs([("SHOP_PORT", "0"), ("JAEGER_PORT", "0")])
            .envs(self.overlay.variables.iter().cloned());
        match self.jaeger {
            Some(image) => command.env("JAEGER_IMAGE", image),
            // Nobody there, nothing to export, and nothing to warn of.
            None => command.env("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        };
        command
    }

    /// What Compose says; it must succeed.
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        said(self.command().args(arguments))
    }

    /// The ids of a service's containers.
    pub(crate) fn containers(&self, service: &str) -> Vec<String> {
        let ids = self.compose(&["ps", "--all", "--quiet", service]);
        ids.lines().map(str::to_owned).collect()
    }

    /// The id of a service's only container.
    pub(crate) fn container(&self, service: &str) -> String {
        let [id] = <[String; 1]>::try_from(self.containers(service)).unwrap();
        id
    }

    /// Whether a container's health check says that it is well.
    pub(crate) fn is_healthy(container: &str) -> bool {
        inspect(container, "{{.State.Health.Status}}") == "healthy"
    }

    /// The warnings and errors in the log of a service's only container.
    pub(crate) fn warnings(&self, service: &str) -> Vec<String> {
        let container = self.container(service);
        let mut logs = Command::new("docker");
        let output = logs.args(["logs", &container]).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        let alarms = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        log.lines().filter(alarms).map(str::to_owned).collect()
    }

    /// What the first process of a service's container has open.
    pub(crate) fn descriptors(&self, service: &str) -> String {
        docker(&["exec", &self.container(service), "ls", "-l", "/proc/1/fd"])
    }

    fn down(&self) {
        let quietly = |command: &mut Command| {
            let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
            // Nothing depends on it: what stays behind is taken down before the next one.
            let _ = quiet.status();
        };
        quietly(
            self.command()
                .args(["down", "--volumes", "--remove-orphans", "--timeout", "5"]),
        );
        // Those of overlays that it had before, too.
        let label = format!("label=com.docker.compose.project={}", self.project);
        let volumes = Command::new("docker")
            .args(["volume", "ls", "--quiet", "--filter", &label])
            .output();
        let volumes = volumes.map_or_else(|_| Vec::new(), |output| output.stdout);
        let volumes = String::from_utf8_lossy(&volumes).into_owned();
        if !volumes.is_empty() {
            quietly(
                Command::new("docker")
                    .args(["volume", "rm"])
                    .args(volumes.lines()),
            );
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.command().args(["logs", "--tail=20"]).output();
            eprintln!(
                "{}",
                logs.map_or_else(
                    |error| error.to_string(),
                    |logs| { String::from_utf8_lossy(&logs.stdout).into_owned() }
                )
            );
        }
        self.down();
    }
}
