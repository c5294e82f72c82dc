//! `demo`: the shop as processes, its orders timed over each path.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use shop_demo::{Child, Customer, Error, Options};

/// Starts the shop's services as processes, places orders over each path in turn and
/// prints what they took.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Is one of the services.
    #[command(hide = true)]
    Service(Child),
    /// Places orders.
    #[command(hide = true)]
    Customer(Customer),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Service(child)) => return shop_demo::run_child(child).await,
        Some(Command::Customer(customer)) => return customer.run().await,
        None => {}
    }
    match demo(&cli.options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(options: &Options) -> Result<(), Error> {
    // Dropped in the middle, the services are killed and their files removed.
    let report = tokio::select! {
        // First, so that a signal is heard before there is anything to leave behind.
        biased;
        () = shop_link::signalled() => return Err(Error::Interrupted),
        report = shop_demo::measure(options) => report?,
    };
    println!("{}", report.table());
    if let Some(path) = &options.json {
        report.write(path)?;
    }
    if let Some(path) = &options.report {
        report.draw(path, command())?;
    }
    report.check()
}

/// What a person typed, without the directory of the program.
fn command() -> Vec<String> {
    let words = std::env::args_os().skip(1);
    let words = words.map(|word| word.to_string_lossy().into_owned());
    ["demo".to_owned()].into_iter().chain(words).collect()
}
