//! What is simulated: threads that drive links and run tasks, the links between them, and the scripts of tasks and
//! handlers.

use super::machine::Nanos;

/// What a task or a handler does, in turn. A handler answers at the end; a task begins anew.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) stages: Vec<Stage>,
    /// CPU after the last stage: a handler's answer, a task's rest.
    pub(super) end: Nanos,
    /// It is a task of its own, which any worker of its process runs.
    pub(super) spawned: bool,
}

/// Computes, then makes calls at the same time and awaits them all.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) cpu: Nanos,
    pub(super) calls: Vec<CallOf>,
}

/// A call over a link, of a script at its server.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallOf {
    pub(super) link: usize,
    pub(super) script: usize,
}

impl Script {
    /// A handler that computes for `cpu`.
    pub(super) fn handler(cpu: Nanos) -> Self {
        Self {
            stages: vec![Stage {
                cpu,
                calls: Vec::new(),
            }],
            end: 0,
            spawned: false,
        }
    }
}

/// A thread of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct ThreadOf {
    pub(super) process: usize,
    /// It drives links; if not, it only runs tasks.
    pub(super) drives: bool,
    /// It computes for ever.
    pub(super) busy: bool,
}

/// A link and the threads that drive its two ends: the client's, the server's.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkOf {
    pub(super) drivers: [usize; 2],
}

/// A task: its thread and its script, begun every `every` nanoseconds, or as soon as it has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct TaskOf {
    pub(super) thread: usize,
    pub(super) script: usize,
    pub(super) every: Option<Nanos>,
}

/// What calls cost, in nanoseconds of CPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallCosts {
    /// A caller's way to a published request.
    pub(super) send: Nanos,
    /// A server's way from a record to its handler, and from there to a published answer.
    pub(super) serve: Nanos,
    /// A client's way from a record to a call that has its answer.
    pub(super) deliver: Nanos,
    /// The runtime's way to a task that was woken.
    pub(super) task: Nanos,
    /// The part of `send` and of `deliver` under the connection's lock.
    pub(super) lock: Nanos,
}

/// A whole program: processes with their threads, links, scripts and tasks.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) threads: Vec<ThreadOf>,
    pub(super) links: Vec<LinkOf>,
    pub(super) scripts: Vec<Script>,
    pub(super) tasks: Vec<TaskOf>,
    pub(super) calls: CallCosts,
}
