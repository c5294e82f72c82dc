//! Calls over a channel: the first attempt over a connection at hand, and all further ones.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use ringway_local::runtime;
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{CancellationHandle, Extensions, Request, Response, Status, Streaming};

use crate::admission::Admitted;
use crate::attempt::{self, Attempt, ManyToMany, ManyToOne, One, OneToMany, Plan};
use crate::channel::{Channel, Route, Routed};
use crate::client::{self, Caller, Failure, Head};
use crate::instances::Instance;
use crate::method::{CallOptions, Method};
use crate::path::Path;
use crate::retry::Attempts;
use crate::trace::{Calling, Trace};
use crate::traced::Traced;

impl Caller for Channel {
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would move its request once more"
    )]
    fn unary<M, R>(
        &mut self,
        method: &'static Method,
        options: &CallOptions,
        mut request: Request<M>,
    ) -> impl Future<Output = Result<Response<R>, Status>> + Send
    where
        M: Message + 'static,
        R: Message + Default + Unpin + 'static,
    {
        // In one piece: each future that a request and its response go through moves them once more.
        async move {
            let calling = Calling::begin(method.path());
            let deadline = self.complete(request.metadata_mut());
            let _admitted = match &self.shared.admission {
                None => None,
                Some(_) => self
                    .admit(deadline)
                    .await
                    .inspect_err(|status| calling.failed(status))?,
            };
            let mut first = None;
            if let Some((instance, shared)) = self.at_hand() {
                let connection = &instance.connection;
                let head = Head::new(request.metadata(), deadline, calling.trace())
                    .inspect_err(|status| calling.failed(status))?;
                let path = Path::over(connection);
                let message = request.get_ref();
                match client::unary(connection, path, method, options, &head, message).await {
                    Ok(response) => {
                        shared.note(instance, None);
                        shared.retries.note_success();
                        calling.succeeded();
                        return Ok(response);
                    }
                    Err(Failure::Status(status)) if !shared.retries.has_policies() => {
                        shared.note(instance, Some(&status));
                        calling.failed(&status);
                        return Err(status);
                    }
                    Err(failure) => {
                        first = Some(First {
                            instance: Arc::clone(instance),
                            failure,
                        })
                    }
                }
            }
            let (metadata, extensions, message) = request.into_parts();
            let call = Call {
                plan: Plan { method, options },
                metadata,
                deadline,
                extensions,
                trace: calling.trace(),
            };
            let answered = Box::pin(self.make(call, One::new(message), first));
            let answered = runtime::anywhere(answered).await;
            calling.end(&answered);
            answered
        }
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
        let (mut metadata, extensions, message) = request.into_parts();
        let deadline = self.complete(&mut metadata);
        let calling = Calling::begin(method.path());
        let _admitted = self
            .admit(deadline)
            .await
            .inspect_err(|status| calling.failed(status))?;
        let call = Call {
            plan: Plan { method, options },
            metadata,
            deadline,
            extensions,
            trace: calling.trace(),
        };
        let answered = {
            let answered = pin!(self.make(call, OneToMany(One::new(message)), None));
            runtime::anywhere(answered).await
        };
        calling.end_unless_ok(&answered);
        answered
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
        let plan = Plan { method, options };
        if can_be_cancelled(request.extensions()) {
            return ringway_net::client_streaming(
                self.clone(),
                plan.path(),
                &plan.settings(),
                request,
            )
            .await;
        }
        let (mut metadata, extensions, requests) = request.into_parts();
        let deadline = self.complete(&mut metadata);
        let calling = Calling::begin(method.path());
        let _admitted = self
            .admit(deadline)
            .await
            .inspect_err(|status| calling.failed(status))?;
        let call = Call {
            plan,
            metadata,
            deadline,
            extensions,
            trace: calling.trace(),
        };
        let attempt = ManyToOne::new(requests, self.shared.endpoint.retry_buffer_bytes);
        let answered = {
            let answered = pin!(self.make(call, attempt, None));
            runtime::anywhere(answered).await
        };
        calling.end(&answered);
        answered
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
        let plan = Plan { method, options };
        if can_be_cancelled(request.extensions()) {
            return ringway_net::streaming(self.clone(), plan.path(), &plan.settings(), request)
                .await;
        }
        let (mut metadata, extensions, requests) = request.into_parts();
        let deadline = self.complete(&mut metadata);
        let calling = Calling::begin(method.path());
        let _admitted = self
            .admit(deadline)
            .await
            .inspect_err(|status| calling.failed(status))?;
        let call = Call {
            plan,
            metadata,
            deadline,
            extensions,
            trace: calling.trace(),
        };
        let attempt = ManyToOne::new(requests, self.shared.endpoint.retry_buffer_bytes);
        let answered = {
            let answered = pin!(self.make(call, ManyToMany(attempt), None));
            runtime::anywhere(answered).await
        };
        calling.end_unless_ok(&answered);
        answered
    }
}

/// A call, but for its requests.
struct Call<'a> {
    plan: Plan<'a>,
    metadata: MetadataMap,
    deadline: Option<Instant>,
    extensions: Extensions,
    trace: &'a Trace,
}

/// What became of the first attempt, made before anything was kept for a second one.
struct First {
    instance: Arc<Instance>,
    failure: Failure,
}

impl Channel {
    /// Waits for a call's turn, where the endpoint limits how many there may be.
    pub(crate) async fn admit(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Option<Admitted>, Status> {
        match &self.shared.admission {
            None => Ok(None),
            Some(admission) => {
                let admitted = admission.admit(deadline);
                runtime::anywhere(admitted).await.map(Some)
            }
        }
    }

    /// Makes a call, with as many attempts as it takes and may have.
    async fn make<A: Attempt>(
        &mut self,
        call: Call<'_>,
        mut attempt: A,
        first: Option<First>,
    ) -> Result<Response<A::Answer>, Status> {
        let shared = Arc::clone(&self.shared);
        let mut attempts = Attempts::new(
            &shared.retries,
            call.plan.method,
            call.deadline,
            shared.waits_for_ready(&call.extensions),
        );
        if let Some(First { instance, failure }) = first {
            self.note_failure(&instance, &failure);
            attempts.after(failure).await?;
        }
        loop {
            let made = self.attempt(&call, &mut attempt, &mut attempts).await?;
            match made {
                Ok(answer) => {
                    attempts.note_success();
                    return Ok(answer);
                }
                Err(failure) if attempt.may_be_sent_again() => attempts.after(failure).await?,
                Err(failure) => return Err(failure.into_status()),
            }
        }
    }

    /// One attempt; the outer error is final.
    async fn attempt<A: Attempt>(
        &mut self,
        call: &Call<'_>,
        attempt: &mut A,
        attempts: &mut Attempts<'_>,
    ) -> Result<Result<Response<A::Answer>, Failure>, Status> {
        let route = self.route(attempts.wait_for_ready);
        // Permission is held until the response begins.
        let Routed {
            to: route,
            admitted: _admitted,
            member,
        } = attempts.within_deadline(route).await??;
        let mut metadata = call.metadata.clone();
        if let (Route::Local(_), Some(member)) = (&route, &member) {
            member.add_user_agent(&mut metadata);
        }
        attempts.go_by(member);
        attempts.mark(&mut metadata);
        match route {
            Route::Local(instance) => {
                let head = Head::new(&metadata, call.deadline, call.trace)?;
                let made = attempt
                    .over_local(call.plan, &instance.connection, &head)
                    .await;
                match &made {
                    Ok(_) => self.shared.note(&instance, None),
                    Err(failure) => self.note_failure(&instance, failure),
                }
                Ok(made)
            }
            Route::Net(instance) => {
                let extensions = call.extensions.clone();
                self.shared.leave_user_agent_to_tonic(metadata.as_mut());
                let mut request = Request::from_parts(metadata, extensions, ());
                if let Some(time_left) = attempts.time_left() {
                    request.set_timeout(time_left);
                }
                let (metadata, extensions, ()) = request.into_parts();
                let traced = Traced::new(instance.clone(), call.trace);
                let made = attempt
                    .over_network(call.plan, traced, metadata, extensions)
                    .await;
                instance.note(&made);
                Ok(made.map(over_the_network).map_err(attempt::failure))
            }
        }
    }

    /// Lets go of an instance that took a call no further, and takes note of one that failed it.
    fn note_failure(&mut self, instance: &Instance, failure: &Failure) {
        match failure {
            Failure::Status(status) => self.shared.note(instance, Some(status)),
            Failure::Unsent(_) | Failure::LeftOut(_) | Failure::Unprocessed(_) => {
                self.forget(&instance.connection)
            }
        }
    }
}

/// Whether the caller keeps a handle to cancel the call with: only tonic can tell when it is used,
/// so the call goes through HTTP types on every path. It ends a stream of requests; a call of one
/// request has sent it by then, and is given up by dropping it.
fn can_be_cancelled(extensions: &Extensions) -> bool {
    extensions.get::<CancellationHandle>().is_some()
}

fn over_the_network<R>(mut response: Response<R>) -> Response<R> {
    response.extensions_mut().insert(Path::Grpc);
    response
}
