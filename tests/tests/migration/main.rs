//! The tonic applications of `tests/migration`, before and after they came to Ringway: a greeter, and one of the
//! size of a real service.
#![allow(clippy::unwrap_used)]

mod diffs;
mod tickets;

use ringway_tests::within;
use tokio::sync::oneshot;

/// An address of this host that nobody has.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Runs one application's client against one's server.
macro_rules! calls {
    ($test:ident, $client:ident, $server:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            within(async {
                let address = free_address();
                let (stop, stopped) = oneshot::channel::<()>();
                let serving = tokio::spawn({
                    let address = address.clone();
                    async move { $server::serve(&address, async { stopped.await.unwrap() }).await }
                });
                let mut client = loop {
                    if let Ok(mut client) = $client::connect(&address).await
                        && client
                            .greet($client::greeter::Hello::default())
                            .await
                            .is_ok()
                    {
                        break client;
                    }
                    tokio::task::yield_now().await;
                };
                let hello = $client::greeter::Hello { name: "Ada".into() };
                let greeting = client.greet(hello.clone()).await.unwrap().into_inner();
                assert_eq!(greeting.text, "Hello Ada!");
                let all = client.greet_all(tokio_stream::iter([hello.clone(), hello]));
                let mut all = all.await.unwrap().into_inner();
                assert_eq!(all.message().await.unwrap(), Some(greeting.clone()));
                assert_eq!(all.message().await.unwrap(), Some(greeting));
                assert_eq!(all.message().await.unwrap(), None);
                drop(client);
                stop.send(()).unwrap();
                serving.await.unwrap().unwrap();
            })
            .await;
        }
    };
}

calls!(before, greeter_before, greeter_before);
calls!(after, greeter_after, greeter_after);
calls!(the_client_first, greeter_after, greeter_before);
calls!(the_server_first, greeter_before, greeter_after);
