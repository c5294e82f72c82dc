//! One attempt at a call, of each kind and over either kind of path.

use std::future::Future;
use std::sync::Arc;

use http::uri::PathAndQuery;
use prost::Message;
use ringway_local::Connection;
use ringway_net::{CallSettings, Fate, Kept};
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::client::{self, Failure, Head};
use crate::method::{CallOptions, Method};
use crate::path::Path;
use crate::resend::Requests;
use crate::trace::Step;
use crate::traced::Traced;

/// What stays the same from one attempt to the next.
#[derive(Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) method: &'static Method,
    pub(crate) options: &'a CallOptions,
}

impl Plan<'_> {
    pub(crate) fn path(&self) -> PathAndQuery {
        PathAndQuery::from_static(self.method.path())
    }

    pub(crate) fn settings(&self) -> CallSettings {
        CallSettings {
            send_compression: self.options.send_compression,
            accept_compression: self.options.accept_compression.clone(),
            max_decoding_bytes: self.options.limits.decoding,
            max_encoding_bytes: self.options.limits.encoding,
            origin: None,
        }
    }
}

/// A call that can be attempted.
pub(crate) trait Attempt: Send {
    /// What comes back.
    type Answer;

    /// Attempts it over a local connection.
    fn over_local(
        &mut self,
        plan: Plan<'_>,
        connection: &Arc<Connection>,
        head: &Head<'_>,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Failure>> + Send;

    /// Attempts it over the network.
    fn over_network(
        &mut self,
        plan: Plan<'_>,
        instance: Traced,
        metadata: MetadataMap,
        extensions: Extensions,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Status>> + Send;

    /// Whether its requests are still there.
    fn may_be_sent_again(&self) -> bool;
}

/// How a call failed on the network.
pub(crate) fn failure(status: Status) -> Failure {
    match Fate::of(&status) {
        Fate::Unsent => Failure::Unsent(status),
        Fate::LeftOut => Failure::LeftOut(status),
        Fate::Unprocessed => Failure::Unprocessed(status),
        Fate::MayHaveRun => Failure::Status(status),
    }
}

/// One request.
pub(crate) struct One<M, R>(Arc<M>, std::marker::PhantomData<fn() -> R>);

impl<M, R> One<M, R> {
    pub(crate) fn new(message: M) -> Self {
        Self(Arc::new(message), std::marker::PhantomData)
    }

    fn request(&self, metadata: MetadataMap, extensions: Extensions) -> Request<Kept<M>> {
        Request::from_parts(metadata, extensions, Kept::Shared(Arc::clone(&self.0)))
    }
}

impl<M, R> Attempt for One<M, R>
where
    M: Message + 'static,
    R: Message + Default + Unpin + 'static,
{
    type Answer = R;

    async fn over_local(
        &mut self,
        Plan { method, options }: Plan<'_>,
        connection: &Arc<Connection>,
        head: &Head<'_>,
    ) -> Result<Response<R>, Failure> {
        let path = Path::over(connection);
        client::unary(connection, path, method, options, head, &*self.0).await
    }

    async fn over_network(
        &mut self,
        plan: Plan<'_>,
        instance: Traced,
        metadata: MetadataMap,
        extensions: Extensions,
    ) -> Result<Response<R>, Status> {
        let request = self.request(metadata, extensions);
        let trace = instance.trace().clone();
        let answer = ringway_net::unary(instance, plan.path(), &plan.settings(), request).await;
        trace.step(Step::Decoded);
        answer
    }

    fn may_be_sent_again(&self) -> bool {
        true
    }
}

/// One request, a stream of responses.
pub(crate) struct OneToMany<M, R>(pub(crate) One<M, R>);

impl<M, R> Attempt for OneToMany<M, R>
where
    M: Message + 'static,
    R: Message + Default + Unpin + 'static,
{
    type Answer = Streaming<R>;

    async fn over_local(
        &mut self,
        Plan { method, options }: Plan<'_>,
        connection: &Arc<Connection>,
        head: &Head<'_>,
    ) -> Result<Response<Streaming<R>>, Failure> {
        let (path, message) = (Path::over(connection), &*self.0.0);
        client::server_streaming(connection, path, method, options, head, message).await
    }

    async fn over_network(
        &mut self,
        plan: Plan<'_>,
        instance: Traced,
        metadata: MetadataMap,
        extensions: Extensions,
    ) -> Result<Response<Streaming<R>>, Status> {
        let request = self.0.request(metadata, extensions);
        ringway_net::server_streaming(
            instance.until_its_end(),
            plan.path(),
            &plan.settings(),
            request,
        )
        .await
    }

    fn may_be_sent_again(&self) -> bool {
        true
    }
}

/// A stream of requests, one response.
pub(crate) struct ManyToOne<S: Stream, R>(Requests<S>, std::marker::PhantomData<fn() -> R>);

impl<S, R> ManyToOne<S, R>
where
    S: Stream,
    S::Item: Message,
{
    pub(crate) fn new(requests: S, keep_bytes: usize) -> Self {
        Self(
            Requests::new(requests, keep_bytes),
            std::marker::PhantomData,
        )
    }
}

impl<S, M, R> Attempt for ManyToOne<S, R>
where
    S: Stream<Item = M> + Send + 'static,
    M: Message + 'static,
    R: Message + Default + Unpin + 'static,
{
    type Answer = R;

    async fn over_local(
        &mut self,
        Plan { method, options }: Plan<'_>,
        connection: &Arc<Connection>,
        head: &Head<'_>,
    ) -> Result<Response<R>, Failure> {
        let (path, requests) = (Path::over(connection), self.0.reader());
        client::client_streaming(connection, path, method, options, head, requests).await
    }

    async fn over_network(
        &mut self,
        plan: Plan<'_>,
        instance: Traced,
        metadata: MetadataMap,
        extensions: Extensions,
    ) -> Result<Response<R>, Status> {
        let request = Request::from_parts(metadata, extensions, self.0.reader());
        let (trace, settings) = (instance.trace().clone(), plan.settings());
        let answer = ringway_net::client_streaming(instance, plan.path(), &settings, request).await;
        trace.step(Step::Decoded);
        answer
    }

    fn may_be_sent_again(&self) -> bool {
        self.0.may_be_sent_again()
    }
}

/// A stream of requests, a stream of responses.
pub(crate) struct ManyToMany<S: Stream, R>(pub(crate) ManyToOne<S, R>);

impl<S, M, R> Attempt for ManyToMany<S, R>
where
    S: Stream<Item = M> + Send + 'static,
    M: Message + 'static,
    R: Message + Default + Unpin + 'static,
{
    type Answer = Streaming<R>;

    async fn over_local(
        &mut self,
        Plan { method, options }: Plan<'_>,
        connection: &Arc<Connection>,
        head: &Head<'_>,
    ) -> Result<Response<Streaming<R>>, Failure> {
        let requests = &self.0.0;
        let (path, reader) = (Path::over(connection), requests.reader());
        let answer = client::streaming(connection, path, method, options, head, reader).await?;
        requests.commit();
        Ok(answer)
    }

    async fn over_network(
        &mut self,
        plan: Plan<'_>,
        instance: Traced,
        metadata: MetadataMap,
        extensions: Extensions,
    ) -> Result<Response<Streaming<R>>, Status> {
        let requests = &self.0.0;
        let request = Request::from_parts(metadata, extensions, requests.reader());
        let settings = plan.settings();
        let answer =
            ringway_net::streaming(instance.until_its_end(), plan.path(), &settings, request)
                .await?;
        requests.commit();
        Ok(answer)
    }

    fn may_be_sent_again(&self) -> bool {
        self.0.may_be_sent_again()
    }
}
