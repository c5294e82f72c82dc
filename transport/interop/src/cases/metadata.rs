//! Metadata in front of an answer and behind it.

use ringway::Trailers;
use tonic::Request;
use tonic::metadata::{MetadataMap, MetadataValue};

use super::streams::{expect_end, expect_part};
use super::{LARGE_REQUEST_BYTES, LARGE_RESPONSE_BYTES, expect_zeros, output, simple};
use crate::client::Client;
use crate::failure::{Failure, expect_eq};
use crate::service::{ECHO_INITIAL, ECHO_TRAILING};

const INITIAL: &str = "test_initial_metadata_value";
const TRAILING: [u8; 3] = [0xab; 3];

pub(crate) async fn custom_metadata(client: &Client) -> Result<(), Failure> {
    let request = with_metadata(simple(LARGE_REQUEST_BYTES, LARGE_RESPONSE_BYTES));
    let answered = client.service().unary_call(request).await;
    let response = answered.map_err(Failure::of("UnaryCall"))?;
    client.came_by(&response)?;
    expect_initial(response.metadata())?;
    let trailing = response.extensions().get::<Trailers>();
    expect_trailing(trailing.map(|trailers| &trailers.0))?;
    expect_zeros(response.get_ref().payload.as_ref(), LARGE_RESPONSE_BYTES)?;

    let request = output(LARGE_REQUEST_BYTES, &[LARGE_RESPONSE_BYTES]);
    let request = with_metadata(tokio_stream::once(request));
    let answered = client.service().full_duplex_call(request).await;
    let response = answered.map_err(Failure::of("FullDuplexCall"))?;
    client.came_by(&response)?;
    expect_initial(response.metadata())?;
    let mut responses = response.into_inner();
    expect_part(&mut responses, LARGE_RESPONSE_BYTES).await?;
    expect_end(&mut responses).await?;
    let trailing = responses.trailers().await;
    expect_trailing(trailing.map_err(Failure::of("the trailers"))?.as_ref())
}

fn with_metadata<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert(ECHO_INITIAL, MetadataValue::from_static(INITIAL));
    metadata.insert_bin(ECHO_TRAILING, MetadataValue::from_bytes(&TRAILING));
    request
}

fn expect_initial(metadata: &MetadataMap) -> Result<(), Failure> {
    let found: Vec<_> = metadata.get_all(ECHO_INITIAL).iter().collect();
    let expected = MetadataValue::from_static(INITIAL);
    expect_eq("the initial metadata", found, vec![&expected])
}

fn expect_trailing(trailing: Option<&MetadataMap>) -> Result<(), Failure> {
    let nothing = MetadataMap::new();
    let values = trailing.unwrap_or(&nothing).get_all_bin(ECHO_TRAILING);
    let found: Vec<_> = values.iter().collect();
    let expected = MetadataValue::from_bytes(&TRAILING);
    expect_eq("the trailing metadata", found, vec![&expected])
}
