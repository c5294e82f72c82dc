//! Tasks of one type: tokio's machinery is compiled for each type of future that is spawned, and weighs more than
//! most of the futures.

use std::future::Future;
use std::pin::Pin;

/// A future that is as good as any other to spawn.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Spawns `task`, which goes on by itself.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    spawn_task(Box::pin(task));
}

/// The one place where that is compiled.
pub(crate) fn spawn_task(task: Task) {
    drop(tokio::spawn(task));
}
