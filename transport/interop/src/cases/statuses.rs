//! Calls that end with a status.

use ringway_proto::grpc_testing::unimplemented_service_client::UnimplementedServiceClient;
use ringway_proto::grpc_testing::{EchoStatus, Empty, SimpleRequest, StreamingOutputCallRequest};
use tonic::Code;

use crate::client::Client;
use crate::failure::{Failure, expect_code, expect_eq};

const MESSAGE: &str = "test status message";
const SPECIAL_MESSAGE: &str = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";

pub(crate) async fn status_code_and_message(client: &Client) -> Result<(), Failure> {
    unary_call(client, MESSAGE).await?;
    let request = StreamingOutputCallRequest {
        response_status: wish(MESSAGE),
        ..StreamingOutputCallRequest::default()
    };
    let requests = tokio_stream::once(request);
    // The status may come in place of the stream, or at its end.
    let ended = match client.service().full_duplex_call(requests).await {
        Ok(response) => client.take(response)?.message().await,
        Err(status) => Err(status),
    };
    let status = expect_code("FullDuplexCall", ended, Code::Unknown)?;
    expect_eq("the status message", status.message(), MESSAGE)
}

pub(crate) async fn special_status_message(client: &Client) -> Result<(), Failure> {
    unary_call(client, SPECIAL_MESSAGE).await
}

async fn unary_call(client: &Client, message: &str) -> Result<(), Failure> {
    let request = SimpleRequest {
        response_status: wish(message),
        ..SimpleRequest::default()
    };
    let ended = client.service().unary_call(request).await;
    let status = expect_code("UnaryCall", ended, Code::Unknown)?;
    expect_eq("the status message", status.message(), message)
}

fn wish(message: &str) -> Option<EchoStatus> {
    Some(EchoStatus {
        code: Code::Unknown.into(),
        message: message.to_owned(),
    })
}

pub(crate) async fn unimplemented_method(client: &Client) -> Result<(), Failure> {
    let ended = client.service().unimplemented_call(Empty {}).await;
    expect_code("UnimplementedCall", ended, Code::Unimplemented)?;
    Ok(())
}

pub(crate) async fn unimplemented_service(client: &Client) -> Result<(), Failure> {
    let mut service = UnimplementedServiceClient::new(client.channel.clone());
    let ended = service.unimplemented_call(Empty {}).await;
    expect_code("UnimplementedCall", ended, Code::Unimplemented)?;
    Ok(())
}
