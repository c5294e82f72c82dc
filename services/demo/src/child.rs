//! One service as a child of the demo: this binary, started again.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::Service;

/// Which service to be, with its own arguments.
#[derive(clap::Args, Debug)]
pub struct Child {
    /// Removed when the demo has ended.
    #[arg(long)]
    scratch: PathBuf,
    #[command(subcommand)]
    service: Service,
}

/// Serves until the demo goes away or a signal says so.
pub async fn run(child: Child) -> ExitCode {
    let (gone, demo_gone) = tokio::sync::oneshot::channel();
    // A thread of its own: a runtime would wait for a read that never ends.
    std::thread::spawn(move || {
        wait_for_end_of_input();
        let _ = gone.send(());
    });
    let until = async {
        tokio::select! {
            _ = demo_gone => {}
            () = shop_link::signalled() => {}
        }
    };
    let code = child.service.run(until).await;
    // A demo that was killed could not do it; one that was not finds nothing to do.
    let _ = std::fs::remove_dir_all(&child.scratch);
    code
}

/// The demo holds the other end of stdin and never writes; however it ends, the
/// kernel closes it.
fn wait_for_end_of_input() {
    let mut byte = [0];
    while let Ok(1..) = std::io::stdin().read(&mut byte) {}
}
