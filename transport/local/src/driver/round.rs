//! A round of a driver: a pass over each connection that is ready, or busy and has something.
//!
//! Connections that press have their turn last, and share what a round has for their uid, as those of a crowd do: see
//! [`pressing`](crate::pressing).

use std::sync::Arc;
use std::time::Instant;

use super::meter::LoadMeter;
use super::turn::Turn;
use super::{Driver, MAX_BUSY};
use crate::connection::{Connection, Progress};
use crate::pressing::{ALLOWANCE, Shares};
use crate::waiting::Pass;

impl Driver {
    /// Drives what is ready; keeps what was busy for the look that follows.
    pub(super) fn pass(&self, turn: &mut Turn) -> Progress {
        // One alone keeps nobody waiting for longer than a pass. Of several, those put off by the last round included,
        // those that press are listed, and wait for their turn in one line with the others that do.
        let mut put_off = turn.ready.iter();
        let is_alone = turn.busy.len() <= 1 && put_off.all(|it| turn.holds(it));
        let waits = |busy: &Connection| !is_alone && busy.presses();
        for busy in turn.busy.iter().filter(|busy| waits(busy)) {
            if busy.has_work() {
                busy.mark_ready();
            }
        }
        let _pass = Pass::enter();
        turn.shares.begin();
        // First: those that are busy could take all of each round.
        let spare = std::mem::take(&mut turn.spare);
        let mut list = std::mem::replace(&mut turn.ready, spare);
        let mut total = self.drive_list(turn, &mut list);
        if self.role.take_listed()
            && let Some(ready) = &mut *self.ready.lock()
        {
            std::mem::swap(ready, &mut list);
        }
        let Turn {
            busy, load, shares, ..
        } = turn;
        for connection in busy.iter().filter(|busy| busy.has_work()) {
            if waits(connection) || shares.is_overspent(connection.peer_uid()) {
                connection.mark_ready();
                continue;
            }
            if turn.looked {
                connection.tallies().note_look(true);
            }
            total = total.and(drive_light(load, shares, connection));
        }
        turn.looked = false;
        // What an ended one still holds would keep the driver awake for ever.
        turn.busy.retain(|busy| busy.is_open());
        total = total.and(self.drive_list(turn, &mut list));
        turn.spare = list;
        if !turn.pressing.is_empty() {
            total = total.and(self.drive_pressing(turn));
        }
        if !turn.ready.is_empty() {
            // They are on nobody's list but the turn's: the driver comes back for them.
            self.role.note_listed();
        }
        total
    }

    /// Drives the light ones of `list`, but for those whose uid has taken too much of the round, and lines up those that
    /// press.
    fn drive_list(&self, turn: &mut Turn, list: &mut Vec<Arc<Connection>>) -> Progress {
        let mut total = Progress::Idle;
        for connection in list.drain(..) {
            if connection.presses() {
                turn.pressing.push(connection);
            } else if turn.shares.is_overspent(connection.peer_uid()) {
                turn.ready.push(connection);
            } else {
                total = total.and(self.drive_listed(turn, connection, drive_light));
            }
        }
        total
    }

    /// Drives those that press, of each uid as many as its share allows, and puts the others off.
    #[cold]
    fn drive_pressing(&self, turn: &mut Turn) -> Progress {
        let mut total = Progress::Idle;
        let mut pressing = std::mem::take(&mut turn.pressing);
        let mut began = Instant::now();
        for connection in pressing.drain(..) {
            let uid = connection.peer_uid();
            if turn.shares.is_spent(uid) {
                turn.ready.push(connection);
                continue;
            }
            let drive = |load: &mut LoadMeter, _: &mut Shares, it: &Arc<_>| load.drive(it);
            total = total.and(self.drive_listed(turn, connection, drive));
            let now = Instant::now();
            turn.shares.charge(uid, now - began);
            began = now;
        }
        turn.pressing = pressing;
        total
    }

    /// Drives one of the list by `drive`.
    fn drive_listed(
        &self,
        turn: &mut Turn,
        connection: Arc<Connection>,
        drive: impl Fn(&mut LoadMeter, &mut Shares, &Arc<Connection>) -> Progress,
    ) -> Progress {
        if self.generation() != turn.generation {
            connection.list_anew();
            return Progress::Idle;
        }
        if !connection.is_driven_by(self) {
            // It was given away while it was being listed.
            connection.mark_ready();
            return Progress::Idle;
        }
        let promised = connection.unlist();
        let brought = drive(&mut turn.load, &mut turn.shares, &connection);
        let known = turn.holds(&connection);
        // Whoever has done already what it was listed for looks on by itself.
        let looks = promised || brought > Progress::Idle;
        if looks && !known && connection.is_open() && turn.busy.len() < MAX_BUSY {
            connection.look_as_driver();
            turn.busy.push(connection);
        } else if promised && !known {
            connection.cease_to_look_as_driver();
        } else if !known && connection.is_open() {
            // It may have been rung for, which is spent now.
            connection.rely_on_doorbell();
        }
        brought
    }
}

/// Drives one that does not press; briefly, where others have taken its uid's share already.
#[inline]
fn drive_light(
    load: &mut LoadMeter,
    shares: &mut Shares,
    connection: &Arc<Connection>,
) -> Progress {
    if shares.is_spent(connection.peer_uid()) {
        let brought = connection.briefly(|| load.drive(connection));
        shares.note_light(connection.peer_uid(), Instant::now);
        return brought;
    }
    let brought = load.drive(connection);
    if connection.presses() {
        // It has used up a pass.
        shares.charge(connection.peer_uid(), ALLOWANCE);
    } else {
        shares.note_light(connection.peer_uid(), Instant::now);
    }
    brought
}
