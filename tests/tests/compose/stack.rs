//! A stack that is up.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::engine::{built_image, compose, docker, inspect, jaeger_image, root, said};

/// The services that can be called, in the order of `docker-compose up`.
pub(crate) const SERVICES: [&str; 6] = [
    "catalog",
    "inventory",
    "media",
    "payments",
    "orders",
    "gateway",
];

/// The files of a stack, and its containers. Dropped, it is gone, with its volume.
pub(crate) struct Stack {
    project: String,
    files: Vec<PathBuf>,
    variables: Vec<(&'static str, String)>,
    gateway: String,
}

impl Stack {
    /// Brings `deploy/compose.yaml` up, with further files of `deploy/` or `tests/compose/`.
    pub(crate) fn up(project: &str, further: &[&str]) -> Self {
        Self::up_with(project, further, &[])
    }

    /// The same, with values for variables of the files.
    pub(crate) fn up_with(
        project: &str,
        further: &[&str],
        variables: &[(&'static str, String)],
    ) -> Self {
        let mut stack = Self {
            project: format!("ringway-test-{project}"),
            files: Vec::new(),
            variables: variables.to_vec(),
            gateway: String::new(),
        };
        stack.add("deploy/compose.yaml");
        further.iter().for_each(|file| stack.add(file));
        let set = |name, value: &str| (name, value.to_owned());
        stack.variables.push(set("SHOP_IMAGE", built_image()));
        // Ports that nobody has.
        stack.variables.push(set("SHOP_PORT", "0"));
        stack.variables.push(set("JAEGER_PORT", "0"));
        stack.down();
        let mut up = vec!["up", "--detach", "--no-build", "gateway"];
        match jaeger_image() {
            Some(jaeger) => {
                stack.add("tests/compose/jaeger.yaml");
                stack.variables.push(set("JAEGER_IMAGE", jaeger));
                up.push("jaeger");
            }
            // Nobody there, nothing to export, and nothing to warn of.
            None => stack.variables.push(set("OTEL_EXPORTER_OTLP_ENDPOINT", "")),
        }
        stack.compose(&up);
        stack.gateway = stack.published("gateway", 8080);
        stack
    }

    /// Takes a further file into account from now on.
    pub(crate) fn add(&mut self, file: &str) {
        self.files.push(root().join(file));
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
        for file in &self.files {
            command.arg("--file").arg(file);
        }
        command
            .args(["--project-name", &self.project])
            .envs(self.variables.iter().cloned());
        command
    }

    /// What Compose says; it must succeed.
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        said(self.command().args(arguments))
    }

    /// The ids of a service's containers.
    pub(crate) fn containers(&self, service: &str) -> Vec<String> {
        let ids = self.compose(&["ps", "--quiet", service]);
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
        let mut down = self.command();
        down.args(["down", "--volumes", "--timeout", "5"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Nothing depends on it: what stays behind is taken down before the next one.
        let _ = down.status();
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
