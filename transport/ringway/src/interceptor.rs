//! tonic's interceptors over any caller, so that they are in force on every path.

use prost::Message;
use tokio_stream::Stream;
use tonic::service::Interceptor;
use tonic::{Request, Response, Status, Streaming};

use crate::client::Caller;
use crate::method::{CallOptions, Method};

/// A caller that shows each request to an interceptor first.
#[derive(Debug, Clone)]
pub struct Intercepted<T, F> {
    inner: T,
    interceptor: F,
}

impl<T, F: Interceptor> Intercepted<T, F> {
    /// Puts `interceptor` in front of `inner`.
    pub fn new(inner: T, interceptor: F) -> Self {
        Self { inner, interceptor }
    }

    fn intercept<M>(&mut self, request: Request<M>) -> Result<Request<M>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let seen = self
            .interceptor
            .call(Request::from_parts(metadata, extensions, ()))?;
        let (metadata, extensions, ()) = seen.into_parts();
        Ok(Request::from_parts(metadata, extensions, message))
    }
}

impl<T, F> Caller for Intercepted<T, F>
where
    T: Caller,
    F: Interceptor + Clone + Send,
{
    async fn unary<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<M>,
    ) -> Result<Response<R>, Status>
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let request = self.intercept(request)?;
        self.inner.unary(method, options, request).await
    }

    async fn server_streaming<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<M>,
    ) -> Result<Response<Streaming<R>>, Status>
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let request = self.intercept(request)?;
        self.inner.server_streaming(method, options, request).await
    }

    async fn client_streaming<S, M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<S>,
    ) -> Result<Response<R>, Status>
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let request = self.intercept(request)?;
        self.inner.client_streaming(method, options, request).await
    }

    async fn streaming<S, M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        request: Request<S>,
    ) -> Result<Response<Streaming<R>>, Status>
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        let request = self.intercept(request)?;
        self.inner.streaming(method, options, request).await
    }
}
