//! Records the calls that the handlers of a round's servers have executed: a line for each unary call, written
//! before it is answered, in a file that outlives them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Journal(PathBuf);

impl Journal {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns what contradicts "each call that was answered is executed once, and none twice".
    pub(crate) fn judge(&self, answered: &[u64]) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let mut times = HashMap::<u64, usize>::new();
        for line in text.lines() {
            *times.entry(line.parse().unwrap()).or_default() += 1;
        }
        // Streams have no number of their own.
        times.remove(&0);
        let twice = times.iter().filter(|(_, times)| **times > 1);
        let twice = twice.map(|(call, times)| format!("call {call} was executed {times} times"));
        let missing = answered.iter().filter(|call| !times.contains_key(call));
        let missing = missing.map(|call| format!("call {call} was answered, not executed"));
        twice.chain(missing).collect()
    }
}
