//! The server: every path at once.

use std::path::PathBuf;

use clap::Args;
use ringway::Server;

use super::{DEFAULT_PORT, Error, runtime};

/// The options of `ringway interop-server`.
#[derive(Debug, Args)]
pub(crate) struct ServerOptions {
    /// TCP port for gRPC, on all addresses; 0 lets the kernel choose
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,

    /// Unix socket for gRPC, too
    #[arg(long, value_name = "FILE")]
    unix: Option<PathBuf>,

    /// What local clients call the server [default: localhost:PORT]
    #[arg(long, value_name = "HOST:PORT")]
    name: Option<String>,

    /// Serve the parent process over two pipes, as plugins do, and nobody else
    #[arg(long, hide = true)]
    pipe: bool,
}

/// Serves until it is told to end; its addresses go to standard output.
pub(crate) fn serve(options: ServerOptions) -> Result<(), Error> {
    runtime()?.block_on(async {
        if options.pipe {
            let server = ringway_interop::add_to(Server::builder());
            return server.serve_pipe().await.map_err(Error::Serve);
        }
        let ends = ringway::terminated();
        let server = bind(options).await.map_err(Error::Serve)?;
        let addresses = server.addresses().iter();
        let addresses: Vec<_> = addresses.map(ToString::to_string).collect();
        println!("serving gRPC at {}", addresses.join(" and "));
        server.serve_with_shutdown(ends).await.map_err(Error::Serve)
    })
}

async fn bind(options: ServerOptions) -> Result<ringway::BoundServer, ringway::Error> {
    let ServerOptions {
        port, unix, name, ..
    } = options;
    let name = name.unwrap_or_else(|| format!("localhost:{port}"));
    let mut builder = Server::builder()
        .name(&name)
        .listen(&format!("0.0.0.0:{port}"))?;
    if let Some(file) = unix {
        builder = builder.listen(&format!("unix:{}", file.display()))?;
    }
    let builder = ringway_interop::add_to(builder).introspection();
    let server = builder.bind().await?;
    tracing::info!(%name, "found by local clients");
    Ok(server)
}
