//! The polls of the sides, by the shipped rules: whether one begins, for how long, and what it teaches.

use super::*;

impl Simulation {
    pub(super) fn may_spin(&self) -> bool {
        self.machine.machine.cpus > 1
    }

    /// Begins to poll, if the rules say so.
    pub(super) fn begin_poll(&mut self, thread: usize) -> bool {
        let caller = self.workers[thread].caller.take();
        if !self.may_spin() {
            return false;
        }
        if let Some(link) = caller
            && let Some((spin, budget)) = self.begin_caller(thread, link)
        {
            let side = &self.links[link].sides[CLIENT];
            side.posture.begin_polling(&side.end);
            self.poll(thread, spin, budget, Some(link));
            return true;
        }
        if let Some(link) = caller {
            self.with_posture(thread, link, CLIENT, |posture, end| {
                posture.wait_for_doorbell(end)
            });
        }
        let busy: Vec<_> = self.workers[thread]
            .links
            .iter()
            .copied()
            .filter(|(link, side)| self.links[*link].sides[*side].busy)
            .collect();
        if busy.is_empty() {
            return false;
        }
        let Some(peer) = self.peer(thread, &busy) else {
            return false;
        };
        let worker = &mut self.workers[thread];
        let (spin, place) = worker
            .place
            .begin(&self.rules.spin, self.rules.policy, peer);
        worker.place = place;
        let Some(spin) = spin else {
            return false;
        };
        self.poll(thread, Some(spin), spin.budget, None);
        true
    }

    /// The poll of a caller, as `Call::look_as` begins it.
    pub(super) fn begin_caller(
        &mut self,
        thread: usize,
        link: usize,
    ) -> Option<(Option<Spin>, Duration)> {
        let Some(peer) = self.peer(thread, &[(link, CLIENT)]) else {
            let of = &self.links[link];
            let sits_out = self.rules.sits_out
                && self.rules.policy != WaitPolicy::Park
                && of.shared_cpu.polls_on(of.delivered);
            return sits_out.then_some((None, SIT_OUT));
        };
        let place = self.links[link].place;
        let (spin, place) = place.begin(&self.rules.spin, self.rules.policy, peer);
        self.links[link].place = place;
        spin.map(|spin| (Some(spin), spin.budget))
    }

    pub(super) fn poll(
        &mut self,
        thread: usize,
        spin: Option<Spin>,
        budget: Duration,
        link: Option<usize>,
    ) {
        let now = self.machine.now;
        let budget = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
        let until = now + budget;
        let next = self.next_line(thread, link).unwrap_or(until).min(until);
        let poll = Poll {
            spin,
            since: now,
            until,
            next,
            link,
        };
        self.workers[thread].step = Some(Step::Poll(poll));
        self.machine.end_step_at(thread, next);
    }

    /// When the first record that is published already will be seen.
    pub(super) fn next_line(&self, thread: usize, caller: Option<usize>) -> Option<Nanos> {
        let front = |link: usize, side: usize| {
            let ring = self.links[link].sides[side].end.ring.borrow();
            ring.front().map(|(at, _)| *at)
        };
        match caller {
            Some(link) => front(link, CLIENT),
            None => {
                let links = self.workers[thread].links.iter();
                let of = links.filter_map(|(link, side)| {
                    let end = &self.links[*link].sides[*side];
                    let polled = end.busy.then(|| front(*link, *side)).flatten();
                    end.listed.into_iter().chain(polled).min()
                });
                of.min()
            }
        }
    }

    pub(super) fn end_poll(&mut self, thread: usize, poll: Poll, outcome: Outcome) {
        let Some(link) = poll.link else {
            let worker = &mut self.workers[thread];
            if let Some(spin) = poll.spin {
                worker.place = worker.place.learn(&self.rules.spin, spin, outcome);
            }
            if outcome == Outcome::Missed {
                self.workers[thread].ops.push_back(Op::Park);
            }
            return;
        };
        let found = outcome != Outcome::Missed;
        let brought = found && self.take_records(thread, link, CLIENT);
        if let Some(spin) = poll.spin
            && (brought || !found)
        {
            let place = self.links[link].place;
            self.links[link].place = place.learn(&self.rules.spin, spin, outcome);
        }
        let in_flight = self.links[link].in_flight;
        self.with_posture(thread, link, CLIENT, |posture, end| {
            if brought {
                // The one that was taken just now is counted still.
                let quiet = (in_flight <= 1).then(|| posture.opened());
                posture.finish_answered(end, quiet)
            } else {
                posture.finish_polling(end)
            }
        });
    }

    /// What the nearest peer does; `None` where one waits for this very CPU.
    pub(super) fn peer(&self, thread: usize, ends: &[(usize, usize)]) -> Option<PeerPosture> {
        let mut nearest = PeerPosture::Asleep;
        for (link, side) in ends {
            let other = &self.links[*link].sides[1 - side];
            let posture = match (other.end.word.get(), other.end.rung.get()) {
                (Word::Asleep, true) => PeerPosture::ComingUp,
                (Word::Asleep, false) => PeerPosture::Asleep,
                _ => PeerPosture::Runs,
            };
            let here = self.machine.cpu(other.driver) == self.machine.cpu(thread);
            if self.rules.waits_for_this_cpu && posture == PeerPosture::ComingUp && here {
                return None;
            }
            nearest = nearest.nearer(if self.rules.posture_known {
                posture
            } else {
                PeerPosture::Unknown
            });
        }
        Some(nearest)
    }
}
