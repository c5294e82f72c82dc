//! Pings, their answers, and when silence means that the peer is lost.

use std::time::Instant;

use crate::ProtocolError;
use crate::config::KeepAlive;
use crate::limits::MAX_PINGS_OUTSTANDING;

/// Pings under way in both directions.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    next_token: u64,
    to_send: Vec<u64>,
    outstanding: Vec<u64>,
    to_answer: Vec<u64>,
}

impl Pings {
    /// Queues a ping; None if enough are under way.
    pub(crate) fn start(&mut self) -> Option<u64> {
        if self.under_way() >= MAX_PINGS_OUTSTANDING {
            return None;
        }
        self.next_token += 1;
        self.to_send.push(self.next_token);
        Some(self.next_token)
    }

    pub(crate) fn on_ping(&mut self, token: u64) -> Result<(), ProtocolError> {
        if self.to_answer.len() >= MAX_PINGS_OUTSTANDING {
            return Err(ProtocolError::PingFlood);
        }
        self.to_answer.push(token);
        Ok(())
    }

    pub(crate) fn on_pong(&mut self, token: u64) -> Result<(), ProtocolError> {
        let found = self.outstanding.iter().position(|known| *known == token);
        let index = found.ok_or(ProtocolError::UnsolicitedPong)?;
        self.outstanding.remove(index);
        Ok(())
    }

    pub(crate) fn next_pong(&mut self) -> Option<u64> {
        (!self.to_answer.is_empty()).then(|| self.to_answer.remove(0))
    }

    pub(crate) fn next_ping(&mut self) -> Option<u64> {
        let token = (!self.to_send.is_empty()).then(|| self.to_send.remove(0))?;
        self.outstanding.push(token);
        Some(token)
    }

    pub(crate) fn under_way(&self) -> usize {
        self.to_send.len() + self.outstanding.len()
    }

    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        !self.to_send.is_empty() || !self.to_answer.is_empty()
    }
}

/// What a timer of keepalive asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    Ping,
    Lost,
}

/// Any frame counts as a sign of life, not only the answer to our ping.
#[derive(Debug)]
pub(crate) struct Watch {
    config: KeepAlive,
    heard: Instant,
    asked: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(config: KeepAlive, now: Instant) -> Self {
        Watch {
            config,
            heard: now,
            asked: None,
        }
    }

    #[inline]
    pub(crate) fn on_frame(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    /// Calls begin after a time in which nobody watched: the silence until now says nothing.
    pub(crate) fn on_resume(&mut self, now: Instant) {
        if !self.config.while_idle {
            self.on_frame(now);
        }
    }

    /// The next time to look, if the peer is watched at the moment.
    pub(crate) fn next(&self, calls_in_flight: bool) -> Option<Instant> {
        if !calls_in_flight && !self.config.while_idle {
            return None;
        }
        match self.asked {
            Some(asked) => asked.checked_add(self.config.timeout),
            None => self.heard.checked_add(self.config.interval),
        }
    }

    pub(crate) fn look(&mut self, now: Instant, calls_in_flight: bool) -> Verdict {
        match self.next(calls_in_flight) {
            Some(at) if at <= now => {}
            _ => return Verdict::Fine,
        }
        if self.asked.is_some() {
            return Verdict::Lost;
        }
        self.asked = Some(now);
        Verdict::Ping
    }
}
