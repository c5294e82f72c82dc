//! Large calls, again and again.

use std::time::{Duration, Instant};

use ringway_proto::grpc_testing::test_service_client::TestServiceClient;

use crate::cases::{LARGE_REQUEST_BYTES, LARGE_RESPONSE_BYTES, expect_zeros, simple};
use crate::client::Client;
use crate::failure::Failure;

/// How `rpc_soak` and `channel_soak` are run: the flags of the descriptions, with their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soak {
    /// Calls to make. Default: 10.
    pub iterations: u32,
    /// Calls that may fail, or take too long. Default: 0.
    pub max_failures: u32,
    /// How long a call may take. Default: 1 s.
    pub max_latency: Duration,
    /// The time in which all calls must be done. Default: 10 s.
    pub overall_timeout: Duration,
    /// Size of a request's payload, in bytes. Default: 271,828.
    pub request_bytes: usize,
    /// Size of a response's payload, in bytes. Default: 314,159.
    pub response_bytes: i32,
}

impl Default for Soak {
    fn default() -> Self {
        Self {
            iterations: 10,
            max_failures: 0,
            max_latency: Duration::from_secs(1),
            overall_timeout: Duration::from_secs(10),
            request_bytes: LARGE_REQUEST_BYTES,
            response_bytes: LARGE_RESPONSE_BYTES,
        }
    }
}

pub(crate) async fn rpc_soak(client: &Client) -> Result<(), Failure> {
    soak(client, async || Ok(client.clone())).await
}

pub(crate) async fn channel_soak(client: &Client) -> Result<(), Failure> {
    soak(client, async || {
        let channel = client.endpoint.connect().await?;
        Ok(Client {
            channel,
            ..client.clone()
        })
    })
    .await
}

/// Makes the calls, each over what `connect` gives for it.
async fn soak(
    client: &Client,
    connect: impl AsyncFn() -> Result<Client, Failure>,
) -> Result<(), Failure> {
    let soak = &client.soak;
    let start = Instant::now();
    let mut failures = Vec::new();
    for done in 0..soak.iterations {
        if start.elapsed() > soak.overall_timeout {
            return Err(Failure::Unexpected(format!(
                "only {done} of {} calls were made within {:?}",
                soak.iterations, soak.overall_timeout
            )));
        }
        let begun = Instant::now();
        let outcome = match connect().await {
            Ok(client) => one_call(&client).await,
            Err(failure) => Err(failure),
        };
        let took = begun.elapsed();
        match outcome {
            Ok(()) if took > soak.max_latency => failures.push(format!("a call took {took:?}")),
            Ok(()) => {}
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    match failures.last() {
        Some(last) if failures.len() > soak.max_failures as usize => {
            let (count, all) = (failures.len(), soak.iterations);
            let text = format!("{count} of {all} calls failed, the last one because {last}");
            Err(Failure::Unexpected(text))
        }
        _ => Ok(()),
    }
}

async fn one_call(client: &Client) -> Result<(), Failure> {
    let soak = &client.soak;
    let mut service = TestServiceClient::new(client.channel.clone());
    let request = simple(soak.request_bytes, soak.response_bytes);
    let answered = service.unary_call(request).await;
    let response = client.take(answered.map_err(Failure::of("UnaryCall"))?)?;
    expect_zeros(response.payload.as_ref(), soak.response_bytes)
}
