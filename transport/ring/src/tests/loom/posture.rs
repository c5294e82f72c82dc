//! The posture of a side together with the doorbell: no schedule in which all threads park while a record lies
//! there.

use std::sync::Arc;

use loom::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{RING_BYTES, model, send};
use crate::{Announce, Endpoint, Peek, PeerSleep, Producer, SidePosture, SleepWord};

/// One side: its posture over its link, and what has become of the other's record.
struct Side {
    posture: SidePosture,
    word: SleepWord,
    peek: Peek,
    peer: PeerSleep,
    rings: Arc<AtomicBool>,
}

impl Announce for Side {
    fn announce_sleep(&self) {
        self.word.arm();
    }

    // As `Watch` has it: a yield is announced once, and stands while this side polls.
    fn announce_yield(&self) {
        if !self.word.is_away() {
            self.word.step_out();
        }
    }

    fn announce_polling(&self) {
        if !self.word.is_away() {
            self.word.disarm();
        }
    }

    fn is_asleep(&self) -> bool {
        self.word.is_armed()
    }

    fn ring_before_sleep(&self) {
        if self.peer.must_be_rung_before_sleep() {
            self.rings.store(true, Ordering::SeqCst);
        }
    }

    fn has_work(&self) -> bool {
        self.peek.has_records()
    }
}

/// Two sides that sleep, each with its producer, and a flag for each that says that it was rung for.
fn two_sides() -> [(Side, Producer, Arc<AtomicBool>); 2] {
    let (here, there) = Endpoint::modelled_pair(RING_BYTES, 1);
    let rung = [
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    ];
    let side = |endpoint: Endpoint, own: usize| {
        let side = Side {
            posture: SidePosture::default(),
            word: endpoint.consumer.sleep_word(),
            peek: endpoint.consumer.peek(),
            peer: endpoint.producer.peer_sleep(),
            rings: Arc::clone(&rung[1 - own]),
        };
        (side, endpoint.producer, Arc::clone(&rung[own]))
    };
    let sides = [side(here, 0), side(there, 1)];
    for (side, ..) in &sides {
        assert!(!side.posture.rely_on_doorbell(side));
    }
    sides
}

/// Publishes a record, and rings where the doorbell's word asks for it.
fn publish(producer: &mut Producer, rings: &AtomicBool) {
    send(producer, 1, 8).unwrap();
    if producer.peer_must_be_woken() {
        rings.store(true, Ordering::SeqCst);
    }
}

/// A caller and the driver of one side poll and cease, while a record comes.
#[test]
fn pollers_that_cease_leave_no_record() {
    model(|| {
        let [(side, _, rung), (_, mut producer, _)] = two_sides();
        let side = Arc::new(side);
        let by_caller = Arc::clone(&side);
        let bell = Arc::clone(&rung);
        let sender = thread::spawn(move || publish(&mut producer, &bell));
        let caller = thread::spawn(move || {
            let side = &*by_caller;
            side.posture.begin_polling(side);
            side.has_work() | side.posture.finish_polling(side)
        });
        side.posture.begin_driver_polling(&*side);
        let seen = side.has_work() | side.posture.finish_driver_polling(&*side);
        let seen = seen | caller.join().unwrap();
        sender.join().unwrap();
        assert!(seen || rung.load(Ordering::SeqCst));
    });
}

/// A caller that has its answer leaves without announcing sleep, while another opens a call and parks.
#[test]
fn a_caller_that_leaves_answered_leaves_no_other_asleep() {
    for requests_poll in [false, true] {
        model(move || {
            let [(side, _, rung), (_, mut producer, _)] = two_sides();
            let side = Arc::new(side);
            // Stands for the state's lock, which guards the calls in flight.
            let in_flight = Arc::new(Mutex::new(0));
            side.posture.begin_polling(&*side);
            let (answered, calls) = (Arc::clone(&side), Arc::clone(&in_flight));
            let leaver = thread::spawn(move || {
                let side = &*answered;
                let calls = calls.lock().unwrap();
                let quiet = (*calls == 0).then(|| side.posture.opened());
                drop(calls);
                side.posture.finish_answered(side, quiet)
            });
            let bell = Arc::clone(&rung);
            let opener = Arc::clone(&side);
            let caller = thread::spawn(move || {
                let side = &*opener;
                let mut calls = in_flight.lock().unwrap();
                side.posture.note_opened();
                *calls += 1;
                drop(calls);
                if !requests_poll {
                    return side.posture.wait_for_doorbell(side);
                }
                side.posture.request_poll_and_yield(side);
                // The driver comes.
                assert!(side.posture.accept_request(side));
                side.has_work() | side.posture.finish_driver_polling(side)
            });
            publish(&mut producer, &bell);
            let seen = leaver.join().unwrap() | caller.join().unwrap();
            assert!(seen || rung.load(Ordering::SeqCst));
        });
    }
}

/// Both sides yield to their tasks, publish, and park: each has seen the other's record or is rung for it.
#[test]
fn two_sides_that_yield_and_park_leave_no_record() {
    model(|| {
        let [here, there] = two_sides();
        let rungs = [Arc::clone(&here.2), Arc::clone(&there.2)];
        let run = |(side, mut producer, _): (Side, Producer, Arc<AtomicBool>)| {
            side.posture.begin_driver_polling(&side);
            let seen = side.posture.yield_to_tasks(&side);
            publish(&mut producer, &side.rings);
            side.posture.resume(&side);
            seen | side.posture.finish_driver_polling(&side)
        };
        let other = thread::spawn(move || run(there));
        let seen = run(here);
        let seen = [seen, other.join().unwrap()];
        for (seen, rung) in seen.into_iter().zip(rungs) {
            assert!(seen || rung.load(Ordering::SeqCst));
        }
    });
}

/// A side that yields and does not come back for long is rung for before its peer parks.
#[test]
fn a_side_that_stays_yielded_is_rung_for() {
    model(|| {
        let [(side, _, rung), (peer, mut producer, _)] = two_sides();
        peer.posture.begin_driver_polling(&peer);
        let sender = thread::spawn(move || {
            publish(&mut producer, &peer.rings);
            let _ = peer.posture.finish_driver_polling(&peer);
        });
        side.posture.begin_driver_polling(&side);
        let seen = side.posture.yield_to_tasks(&side);
        sender.join().unwrap();
        assert!(seen || rung.load(Ordering::SeqCst));
    });
}
