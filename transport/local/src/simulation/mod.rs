//! A simulation in virtual time of who polls, parks and wakes; no clock, no thread, no runtime.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `machine` | CPUs, a scheduler, the costs of a switch and of a wake |
//! | `program` | what is simulated: threads, links, scripts of tasks and handlers |
//! | `sides` | drivers and callers by the shipped rules: `Learned`, `SidePosture`, `Habits` |
//! | `workloads` | the shop, `compare`'s rows, larger machines |
//! | `ranking` | holds it against what was measured, and the adaptive policy against fixed ones |
//! | `heuristics` | what each rule is worth |
//! | `scaling` | more CPUs than the two of the measurements |
//! | `cores` | the rule by which drivers share connections, window by window |
//!
//! `cargo test -p ringway-local --lib simulation -- --nocapture` prints its tables. `docs/simulation.md` says what they
//! are good for.

mod cores;
mod heuristics;
mod machine;
mod program;
mod ranking;
mod scaling;
mod sides;
mod workloads;
