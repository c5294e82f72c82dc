//! Kills clients and servers with SIGKILL at random instants under load of all kinds, and stops and continues
//! them, over each local transport in turn. Judges that no call stays without an end, that none is executed
//! twice, and that no descriptor, mapping, task, file or memory is left behind.
//!
//! The lateness of a call's end counts from the signal. Two parts of it are not Ringway's. What a sleeping thread of
//! this process is late is taken off. What the kernel takes to end the killed process is shown beside it (`dying`), and
//! a call is not held to account for it: nothing can be known of a death before it. On Linux 6.18 with two harnesses
//! on two CPUs, a process took 100 ms and more to die in one round of some hundreds, because each of its threads
//! goes round in the kernel until another thread has dropped the same entry of `/proc`.
//!
//! A third part can't be told apart. A process that has an io_uring lets go of its socket only after its death: the
//! kernel cancels a standing receive from a work queue. A bare receive on a ring, with no Ringway in it, delayed
//! the hang-up by 7 ms on average and by 44 ms at worst, where a socket and a pipe without one hung up with the
//! process; beside a load it was 119 ms, and one ring's work (`io_ring_exit_work`) waited 119 ms in its queue. So rounds
//! over `Socket` have the longest tail.
//!
//! A round's choices follow from its seed alone: `--rounds 1 --seed N` repeats them. What a machine is busy with
//! at that instant can't be repeated.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "the harness's own set-up: where that fails, no round says anything"
)]

mod journal;
mod load;
mod process;
mod resources;
mod round;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ringway_tests::Control;

use crate::round::{Choice, Survivor};
use crate::table::Table;

/// Rounds after which the process is to come to rest, which takes up to a second.
const ROUNDS_UNTIL_REST: u64 = 250;
/// Failed rounds after which no further one is begun.
const MAX_FAILED: usize = 10;

#[derive(Debug, Parser)]
#[command(about = "Kills and stops clients and servers at random instants under load")]
struct Options {
    #[command(subcommand)]
    role: Option<Role>,
    /// Rounds, each with one kill or stop.
    #[arg(long, default_value_t = 300)]
    rounds: u64,
    /// The seed of the first round; each further round has the next one. Random by default.
    #[arg(long)]
    seed: Option<u64>,
}

/// The role of a process that is to be killed.
#[derive(Debug, Subcommand)]
enum Role {
    /// Serves in this directory.
    #[command(hide = true)]
    Server { directory: PathBuf },
    /// Serves its parent over pipes.
    #[command(hide = true)]
    Plugin,
    /// Calls a server in this directory by this address.
    #[command(hide = true)]
    Client { directory: PathBuf, address: String },
    /// Calls a child of its own over pipes.
    #[command(hide = true)]
    Host,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match options.role {
            Some(Role::Server { directory }) => process::serve(directory).await,
            Some(Role::Plugin) => process::serve_parent().await,
            Some(Role::Client { directory, address }) => process::call(&directory, &address).await,
            Some(Role::Host) => process::call_child().await,
            None => return run(options.rounds, options.seed).await,
        }
        ExitCode::SUCCESS
    })
}

async fn run(rounds: u64, seed: Option<u64>) -> ExitCode {
    let first = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("{rounds} rounds from seed {first} on");
    let control = Control::start();
    let survivor = Survivor::start().await;
    let mut table = Table::new();
    let mut rested = first;
    for seed in first..first + rounds {
        let choice = Choice::of(seed);
        let judged = round::play(&choice, &survivor, &control).await;
        table.add(&choice, judged);
        let next = seed + 1;
        if next - rested == ROUNDS_UNTIL_REST || next == first + rounds {
            if let Some(problem) = survivor.is_at_rest().await {
                table.add_problem_of_rounds(&(rested..next), &problem);
            }
            rested = next;
        }
        if table.failed() >= MAX_FAILED {
            break;
        }
    }
    table.print();
    if table.is_passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
