//! When a process is asked to end.

use std::future::{Future, poll_fn};
use std::task::Poll;

use tokio::signal::unix::{SignalKind, signal};

/// Ready once the process is asked to end, by SIGTERM or SIGINT. It listens from the call on, not
/// only from the first poll: a signal that comes meanwhile is not lost, and does not kill.
///
/// Within a tokio runtime. Where signals can't be listened for, it says so in the log and is never
/// ready.
///
/// ```no_run
/// # async fn serve(server: ringway::BoundServer) -> Result<(), ringway::Error> {
/// let ends = ringway::terminated();
/// server.serve_with_shutdown(ends).await
/// # }
/// ```
pub fn terminated() -> impl Future<Output = ()> + Send + use<> {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
    let mut signals: Vec<_> = kinds
        .into_iter()
        .filter_map(|kind| match signal(kind) {
            Ok(signal) => Some(signal),
            Err(error) => {
                tracing::warn!(%error, "this process can't be ended by a signal");
                None
            }
        })
        .collect();
    poll_fn(move |context| {
        let came = signals
            .iter_mut()
            .any(|signal| signal.poll_recv(context).is_ready());
        if came { Poll::Ready(()) } else { Poll::Pending }
    })
}
