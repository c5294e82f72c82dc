//! One message each way.

use ringway_proto::grpc_testing::Empty;
use tokio::task::JoinSet;

use super::{LARGE_REQUEST_BYTES, LARGE_RESPONSE_BYTES, expect_zeros, simple};
use crate::client::Client;
use crate::failure::{Failure, expect_eq};

const CONCURRENT_CALLS: usize = 1_000;

pub(crate) async fn empty_unary(client: &Client) -> Result<(), Failure> {
    let answered = client.service().empty_call(Empty {}).await;
    let empty = client.take(answered.map_err(Failure::of("EmptyCall"))?)?;
    expect_eq("the response", empty, Empty {})
}

pub(crate) async fn large_unary(client: &Client) -> Result<(), Failure> {
    let request = simple(LARGE_REQUEST_BYTES, LARGE_RESPONSE_BYTES);
    let answered = client.service().unary_call(request).await;
    let response = client.take(answered.map_err(Failure::of("UnaryCall"))?)?;
    expect_zeros(response.payload.as_ref(), LARGE_RESPONSE_BYTES)
}

pub(crate) async fn concurrent_large_unary(client: &Client) -> Result<(), Failure> {
    let mut calls = JoinSet::new();
    for _ in 0..CONCURRENT_CALLS {
        let client = client.clone();
        calls.spawn(async move { large_unary(&client).await });
    }
    let mut done = 0;
    while let Some(joined) = calls.join_next().await {
        joined.map_err(|panicked| Failure::Unexpected(panicked.to_string()))??;
        done += 1;
    }
    expect_eq("the number of calls", done, CONCURRENT_CALLS)
}
