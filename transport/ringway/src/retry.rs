//! When a call that failed is sent again: gRPC's proposal A6, without hedging.
//!
//! Source: <https://github.com/grpc/proposal/blob/master/A6-client-retries.md>.
//!
//! - A call that never left this process is sent again until its deadline, and one that the server's
//!   library turned away before a handler saw it once. Neither counts as an attempt, and neither
//!   needs a policy.
//! - A call that a handler answered with a status is sent again if a [`RetryPolicy`] says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use ringway_local::clock;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Status};

use crate::channel::Shared;
use crate::client::Failure;
use crate::method::Method;
use crate::status;

/// Attempts that a policy may ask for, at most; more count as so many.
const MAX_ATTEMPTS: u32 = 5;
/// Share by which a backoff varies either way.
const JITTER: f64 = 0.2;
/// Attempts on connections that took the call no further, before a pause is made between them.
const AT_ONCE: u32 = 4;
/// Attempts that servers may leave out because they drain, one after another: what does so more often is
/// no server that is being replaced.
const MAX_LEFT_OUT: u32 = 32;
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

const PUSHBACK: &str = "grpc-retry-pushback-ms";
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// When calls that ended with a status are made again.
///
/// ```
/// use std::time::Duration;
/// use ringway::{Endpoint, RetryPolicy};
/// use tonic::Code;
///
/// # fn main() -> Result<(), ringway::Error> {
/// let endpoint = Endpoint::new("catalog:50051")?.retry_policy(RetryPolicy {
///     max_attempts: 3,
///     initial_backoff: Duration::from_millis(20),
///     retryable_codes: vec![Code::Unavailable],
///     ..RetryPolicy::default()
/// });
/// # drop(endpoint); Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; more than five count as five. Default: 3.
    pub max_attempts: u32,
    /// The time before the second attempt, which varies by 20 % either way. Default: 50 ms.
    pub initial_backoff: Duration,
    /// The longest time between two attempts, before it varies. Default: 1 s.
    pub max_backoff: Duration,
    /// What each further time is multiplied with. Default: 2.
    pub backoff_multiplier: f64,
    /// The codes after which a call is made again. Default: `UNAVAILABLE`.
    pub retryable_codes: Vec<Code>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            backoff_multiplier: 2.0,
            retryable_codes: vec![Code::Unavailable],
        }
    }
}

impl RetryPolicy {
    fn allows(&self, code: Code, attempts: u32) -> bool {
        self.retryable_codes.contains(&code) && attempts < self.max_attempts.min(MAX_ATTEMPTS)
    }

    /// The time before an attempt, when `retries` have been made without a word of the server's.
    fn backoff(&self, retries: u32) -> Duration {
        let grown = self
            .backoff_multiplier
            .max(0.0)
            .powi(retries.try_into().unwrap_or(i32::MAX));
        let backoff = self.initial_backoff.as_secs_f64() * grown;
        let varied = ringway_net::varied_by(JITTER);
        Duration::from_secs_f64(backoff.min(self.max_backoff.as_secs_f64()) * varied)
    }
}

/// Keeps a channel from retrying while most of what it sends fails: A6's retry throttling.
///
/// A channel has `max_tokens`; each failure that might be retried takes one, each success gives
/// back `token_ratio`. While half of them or more are gone, nothing is retried.
///
/// ```
/// use ringway::{Endpoint, RetryThrottling};
///
/// # fn main() -> Result<(), ringway::Error> {
/// let endpoint = Endpoint::new("catalog:50051")?.retry_throttling(RetryThrottling::default());
/// # drop(endpoint); Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryThrottling {
    /// Tokens at first, and at most; 1 to 1,000. Default: 10.
    pub max_tokens: u32,
    /// What a success gives back, in thousandths of a token at the finest. Default: 0.1.
    pub token_ratio: f64,
}

impl Default for RetryThrottling {
    fn default() -> Self {
        Self {
            max_tokens: 10,
            token_ratio: 0.1,
        }
    }
}

/// The throttle of one channel, in thousandths of a token.
#[derive(Debug)]
struct Throttle {
    left: AtomicI64,
    max: i64,
    gain: i64,
}

const TOKEN: i64 = 1000;

impl Throttle {
    #[allow(clippy::cast_possible_truncation, reason = "clamped to a few thousand")]
    fn new(settings: RetryThrottling) -> Self {
        let max = i64::from(settings.max_tokens.clamp(1, 1000)) * TOKEN;
        Self {
            left: AtomicI64::new(max),
            max,
            gain: (settings.token_ratio.clamp(0.0, 1000.0) * 1000.0) as i64,
        }
    }

    fn note_success(&self) {
        if self.left.load(Ordering::Relaxed) < self.max {
            self.change(self.gain);
        }
    }

    fn note_failure(&self) {
        self.change(-TOKEN);
    }

    fn change(&self, by: i64) {
        let step = |left: i64| Some((left + by).clamp(0, self.max));
        // It always has a next value.
        let _ = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    fn allows(&self) -> bool {
        self.left.load(Ordering::Relaxed) > self.max / 2
    }
}

/// What an endpoint says about calls that fail.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetrySettings {
    /// For all methods that no other one names.
    pub(crate) general: Option<Arc<RetryPolicy>>,
    /// By `package.Service` or `package.Service/Method`.
    pub(crate) named: Vec<(String, Arc<RetryPolicy>)>,
    pub(crate) throttling: Option<RetryThrottling>,
    pub(crate) wait_for_ready: bool,
}

/// The same, at work in a channel.
#[derive(Debug)]
pub(crate) struct Retries {
    settings: RetrySettings,
    throttle: Option<Throttle>,
}

impl Retries {
    pub(crate) fn new(settings: RetrySettings) -> Self {
        let throttle = settings.throttling.map(Throttle::new);
        Self { settings, throttle }
    }

    /// Whether any call may be retried by a policy.
    pub(crate) fn has_policies(&self) -> bool {
        self.settings.general.is_some() || !self.settings.named.is_empty()
    }

    /// The one of the method's own, of its service, or of all.
    fn policy(&self, path: &str) -> Option<Arc<RetryPolicy>> {
        let named = |name: &str| {
            let found = self.settings.named.iter().find(|(known, _)| known == name);
            found.map(|(_, policy)| Arc::clone(policy))
        };
        let method = path.trim_start_matches('/');
        let service = method.split('/').next().unwrap_or_default();
        named(method)
            .or_else(|| named(service))
            .or_else(|| self.settings.general.clone())
    }

    pub(crate) fn waits_for_ready(&self, extensions: &Extensions) -> bool {
        extensions
            .get::<WaitForReady>()
            .map_or(self.settings.wait_for_ready, |wait| wait.0)
    }

    /// A call has succeeded.
    pub(crate) fn note_success(&self) {
        if let Some(throttle) = &self.throttle {
            throttle.note_success();
        }
    }
}

/// Whether a call waits while no server can be reached, instead of failing: an extension of its
/// request, stronger than [`crate::Endpoint::wait_for_ready`].
///
/// Give such a call a deadline too, or it may wait for ever.
///
/// ```
/// use ringway::WaitForReady;
///
/// let mut request = tonic::Request::new(());
/// request.set_timeout(std::time::Duration::from_secs(5));
/// request.extensions_mut().insert(WaitForReady(true));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitForReady(pub bool);

/// One call and its attempts.
pub(crate) struct Attempts<'a> {
    retries: &'a Retries,
    /// The channel that took the last attempt, where it is another one.
    member: Option<Arc<Shared>>,
    method: &'static Method,
    policy: Option<Arc<RetryPolicy>>,
    deadline: Option<Instant>,
    pub(crate) wait_for_ready: bool,
    /// Attempts that ended with a status.
    ended: u32,
    /// Retries since the server last said when to come back.
    backoffs: u32,
    unsent: u32,
    /// The failure of the last attempt, as long as no server has taken the call.
    why_unsent: Option<Status>,
    turned_away: bool,
}

impl<'a> Attempts<'a> {
    /// A call that has to be over at `deadline`.
    pub(crate) fn new(
        retries: &'a Retries,
        method: &'static Method,
        deadline: Option<Instant>,
        wait_for_ready: bool,
    ) -> Self {
        Self {
            retries,
            member: None,
            method,
            policy: retries.policy(method.path()),
            deadline,
            wait_for_ready,
            ended: 0,
            backoffs: 0,
            unsent: 0,
            why_unsent: None,
            turned_away: false,
        }
    }

    /// The time that is left for the call; `None` if it has no deadline.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(clock::now()))
    }

    /// Has the settings of `member` hold, which takes the next attempt.
    pub(crate) fn go_by(&mut self, member: Option<Arc<Shared>>) {
        if let Some(member) = &member {
            self.policy = member.retries.policy(self.method.path());
        }
        self.member = member;
    }

    /// Takes note of an attempt that succeeded.
    pub(crate) fn note_success(&self) {
        self.settings().note_success();
    }

    fn settings(&self) -> &Retries {
        let member = self.member.as_ref();
        member.map_or(self.retries, |member| &member.retries)
    }

    /// Tells the server how often it, or another one, has been asked before.
    pub(crate) fn mark(&self, metadata: &mut MetadataMap) {
        if self.ended > 0 {
            metadata.insert(PREVIOUS_ATTEMPTS, self.ended.into());
        }
    }

    /// Waits for `future`, but not beyond the deadline.
    pub(crate) async fn within_deadline<T>(
        &self,
        future: impl Future<Output = T>,
    ) -> Result<T, Status> {
        match self.deadline {
            None => Ok(future.await),
            Some(deadline) => tokio::time::timeout_at(deadline.into(), future)
                .await
                .map_err(|_| self.expired()),
        }
    }

    /// The status of a call that is over because of its deadline: what kept it from being sent is what its caller
    /// has to see to.
    fn expired(&self) -> Status {
        match &self.why_unsent {
            None => status::expired(),
            Some(why) => status::expired_untaken(self.unsent, why.message()),
        }
    }

    /// Returns when the call may be sent again.
    ///
    /// # Errors
    /// The call's status, if it may not.
    pub(crate) fn after(&mut self, failure: Failure) -> BoxFuture<'_, Result<(), Status>> {
        Box::pin(self.pause_after(failure))
    }

    async fn pause_after(&mut self, failure: Failure) -> Result<(), Status> {
        let delay = match failure {
            Failure::Unsent(why) => self.pause_after_unsent(why),
            // As if it had not been sent: the next instance may drain as well.
            Failure::LeftOut(why) if self.unsent < MAX_LEFT_OUT => self.pause_after_unsent(why),
            Failure::Unprocessed(_) if !self.turned_away => {
                self.turned_away = true;
                self.why_unsent = None;
                Duration::ZERO
            }
            Failure::LeftOut(status) | Failure::Unprocessed(status) | Failure::Status(status) => {
                // A server has taken it: its handler may have run.
                self.why_unsent = None;
                self.backoff_after(status)?
            }
        };
        if delay > Duration::ZERO {
            self.within_deadline(tokio::time::sleep(delay)).await?;
        }
        match self.time_left() {
            Some(Duration::ZERO) => Err(self.expired()),
            _ => Ok(()),
        }
    }

    /// A server that loses each connection at once must not be asked without a pause.
    fn pause_after_unsent(&mut self, why: Status) -> Duration {
        self.why_unsent = Some(why);
        self.unsent = self.unsent.saturating_add(1);
        match self.unsent.checked_sub(AT_ONCE) {
            None | Some(0) => Duration::ZERO,
            Some(paused) => Duration::from_millis(1 << paused.min(7)).min(LONGEST_PAUSE),
        }
    }

    fn backoff_after(&mut self, status: Status) -> Result<Duration, Status> {
        self.ended += 1;
        let Some(policy) = &self.policy else {
            return Err(status);
        };
        let pushback = Pushback::of(&status);
        let retryable = policy.retryable_codes.contains(&status.code());
        if let Some(throttle) = &self.settings().throttle {
            if retryable || pushback == Pushback::Never {
                throttle.note_failure();
            }
            if !throttle.allows() {
                return Err(status);
            }
        }
        if !policy.allows(status.code(), self.ended) {
            return Err(status);
        }
        match pushback {
            Pushback::Never => Err(status),
            Pushback::After(delay) => {
                self.backoffs = 0;
                Ok(delay)
            }
            Pushback::Unsaid => {
                let backoff = policy.backoff(self.backoffs);
                self.backoffs += 1;
                Ok(backoff)
            }
        }
    }
}

/// When the server wants to be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pushback {
    Unsaid,
    After(Duration),
    /// Negative, or no number: not at all.
    Never,
}

impl Pushback {
    fn of(status: &Status) -> Self {
        let Some(value) = status.metadata().get(PUSHBACK) else {
            return Self::Unsaid;
        };
        let milliseconds = value.to_str().ok().and_then(|text| text.parse().ok());
        milliseconds.map_or(Self::Never, |milliseconds: u32| {
            Self::After(Duration::from_millis(milliseconds.into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed_back(value: &'static str) -> Pushback {
        let mut status = Status::unavailable("");
        status
            .metadata_mut()
            .insert(PUSHBACK, value.parse().unwrap());
        Pushback::of(&status)
    }

    #[test]
    fn a_server_says_when_to_come_back() {
        assert_eq!(Pushback::of(&Status::unavailable("")), Pushback::Unsaid);
        assert_eq!(pushed_back("0"), Pushback::After(Duration::ZERO));
        assert_eq!(
            pushed_back("70"),
            Pushback::After(Duration::from_millis(70))
        );
        for never in ["-1", "soon", "", "1.5", "99999999999"] {
            assert_eq!(pushed_back(never), Pushback::Never, "{never}");
        }
    }

    #[test]
    fn backoffs_grow_to_their_limit_and_vary() {
        let policy = RetryPolicy {
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_millis(300),
            ..RetryPolicy::default()
        };
        for (retries, expected) in [(0, 100.0), (1, 200.0), (2, 300.0), (30, 300.0)] {
            let found = policy.backoff(retries).as_secs_f64() * 1000.0;
            assert!(
                (expected * 0.8..=expected * 1.2).contains(&found),
                "{retries}: {found}"
            );
        }
    }

    #[test]
    fn no_policy_asks_for_more_than_five_attempts() {
        let policy = RetryPolicy {
            max_attempts: 100,
            ..RetryPolicy::default()
        };
        assert!(policy.allows(Code::Unavailable, 4));
        assert!(!policy.allows(Code::Unavailable, 5));
        assert!(!policy.allows(Code::Internal, 1));
    }

    #[test]
    fn failures_use_the_throttle_up_and_successes_fill_it() {
        let throttle = Throttle::new(RetryThrottling {
            max_tokens: 4,
            token_ratio: 0.5,
        });
        throttle.note_failure();
        assert!(throttle.allows());
        throttle.note_failure();
        assert!(!throttle.allows());
        throttle.note_success();
        assert!(throttle.allows());
        for _ in 0..10 {
            throttle.note_failure();
        }
        for _ in 0..4 {
            throttle.note_success();
            assert!(!throttle.allows());
        }
        throttle.note_success();
        assert!(throttle.allows());
    }

    #[test]
    fn the_most_specific_policy_counts() {
        let policy = |max_attempts| {
            Arc::new(RetryPolicy {
                max_attempts,
                ..RetryPolicy::default()
            })
        };
        let retries = Retries::new(RetrySettings {
            general: Some(policy(2)),
            named: vec![("a.B".into(), policy(3)), ("a.B/C".into(), policy(4))],
            ..RetrySettings::default()
        });
        for (path, expected) in [("/a.B/C", 4), ("/a.B/D", 3), ("/a.BC/D", 2)] {
            assert_eq!(retries.policy(path).unwrap().max_attempts, expected);
        }
    }
}
