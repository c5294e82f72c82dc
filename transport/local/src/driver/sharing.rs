//! What a driver does about its load.

use std::sync::Arc;
use std::time::Instant;

use super::Driver;
use super::crew::Sharing;
use super::load::{LoadRules, Reading, Verdict, Weighed, per_mille, share_out};
use super::turn::Turn;

impl Driver {
    /// Does what the load of the last window asks for.
    #[cold]
    pub(super) fn judge_load(&self, turn: &mut Turn, now: Instant) {
        let window = turn.load.end_window(now);
        let Some(crew) = self.crew.upgrade() else {
            return;
        };
        match crew.sharing() {
            Some(Sharing::ByLoad) => {}
            Some(Sharing::Restless) => {
                if crew.hand_on(crew.driver(self.number)) {
                    turn.busy.clear();
                }
                return;
            }
            None => return,
        }
        let rules = &LoadRules::SHIPPED;
        let busy = per_mille(window.busy, window.length);
        self.standing.note(now, busy);
        let taker = window.weights.as_ref();
        let taker = taker.and_then(|_| crew.taker(self.number, now, rules));
        let reading = Reading {
            length: window.length,
            busy,
            is_first: self.number == 0,
            first_busy: crew.first_busy(now, rules),
            weighed: window.weights.as_ref().map(|weights| Weighed {
                connections: weights.connections(),
                idle_cpu: per_mille(weights.idle_cpu(), window.length),
                taker_busy: taker.map(|taker| taker.busy),
            }),
        };
        match (turn.load.judge(rules, reading), window.weights, taker) {
            (Verdict::Weigh, ..) => turn.load.begin_weighing(),
            (Verdict::Share, Some(weights), Some(taker)) => {
                let times = weights.times();
                let taken = window.length * taker.busy / 1000;
                let chosen = share_out(&times, taken);
                let given = chosen.iter().filter_map(|at| weights.connection(*at));
                let given: Vec<_> = given.filter(|mine| mine.is_driven_by(self)).collect();
                let more = chosen.iter().map(|at| times[*at]).sum();
                let more = per_mille(more, window.length);
                if given.is_empty() || !crew.give(&given, taker, now, rules, more) {
                    return turn.load.pause(rules);
                }
                turn.busy
                    .retain(|busy| !given.iter().any(|given| Arc::ptr_eq(given, busy)));
                tracing::debug!(connections = given.len(), "a busy driver shares");
            }
            (Verdict::Return, ..) => {
                turn.busy.clear();
                crew.give_back(crew.driver(self.number), now, rules, busy);
            }
            _ => {}
        }
    }
}
