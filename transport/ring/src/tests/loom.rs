//! Every order in which two threads may meet on a region, tried out by loom over the shipped code.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p ringway-ring --release loom`

mod posture;
mod role;

use std::sync::Arc;

use loom::{
    model::Builder,
    sync::{Condvar, Mutex},
    thread,
};

use crate::{
    Consumer, Endpoint, Inbox, Producer, ReserveError,
    memory::{Own, Peer, RegionMemory},
    release::{ReleaseList, ReleaseReader},
};

/// Small enough that loom reaches the end, large enough for records that carry something.
const RING_BYTES: usize = 128;
const MAX_INLINE: usize = 32;

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    // More switches than this find no more in practice (loom's own advice), and take for ever.
    builder.preemption_bound = Some(3);
    builder.check(test);
}

fn send(producer: &mut Producer, byte: u8, len: usize) -> Result<(), ReserveError> {
    let mut reservation = producer.reserve(len)?;
    reservation.fill(byte);
    reservation.commit();
    Ok(())
}

fn receive(consumer: &mut Consumer, inbox: &mut Inbox) -> Vec<u8> {
    consumer.take(inbox).unwrap();
    let first = |record: crate::Record<'_>| {
        assert!(
            record.bytes.iter().all(|byte| *byte == record.bytes[0]),
            "torn"
        );
        record.bytes[0]
    };
    inbox
        .records()
        .map(|record| first(record.unwrap()))
        .collect()
}

/// What is published is whole when it is seen, and in order.
#[test]
fn records_are_handed_over() {
    model(|| {
        let (here, there) = Endpoint::modelled_pair(RING_BYTES, 1);
        let (mut producer, mut consumer) = (here.producer, there.consumer);
        let sender = thread::spawn(move || {
            send(&mut producer, 1, 16).unwrap();
            let mut batch = producer.batch();
            batch.reserve(8).unwrap().fill(9); // abandoned
            for byte in [2, 3] {
                let mut reservation = batch.reserve(8).unwrap();
                reservation.fill(byte);
                reservation.commit();
            }
        });
        let mut inbox = Inbox::default();
        let mut got = receive(&mut consumer, &mut inbox);
        got.extend(receive(&mut consumer, &mut inbox));
        assert!([&[][..], &[1], &[1, 2, 3]].contains(&&got[..]), "{got:?}");
        sender.join().unwrap();
        got.extend(receive(&mut consumer, &mut inbox));
        assert_eq!(got, [1, 2, 3]);
    });
}

/// Ring space is written again only after it was copied out: loom would report the two accesses.
#[test]
fn space_is_reused_only_after_it_was_read() {
    model(|| {
        let (here, there) = Endpoint::modelled_pair(RING_BYTES, 1);
        let (mut producer, mut consumer) = (here.producer, there.consumer);
        for byte in [1, 2, 3] {
            send(&mut producer, byte, MAX_INLINE).unwrap();
        }
        assert_eq!(send(&mut producer, 4, MAX_INLINE), Err(ReserveError::Full));
        let sender = thread::spawn(move || send(&mut producer, 4, MAX_INLINE));
        let mut inbox = Inbox::default();
        let mut got = receive(&mut consumer, &mut inbox);
        let sent = sender.join().unwrap();
        got.extend(receive(&mut consumer, &mut inbox));
        let all: &[u8] = if sent.is_ok() {
            &[1, 2, 3, 4]
        } else {
            &[1, 2, 3]
        };
        assert_eq!(got, all);
    });
}

/// An eventfd: rings are remembered until somebody waits.
#[derive(Default)]
struct Doorbell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Doorbell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// Whoever goes to sleep is woken for each record: loom reports a sleeper left alone as a deadlock.
#[test]
fn no_wakeup_is_lost() {
    model(|| {
        let (here, there) = Endpoint::modelled_pair(RING_BYTES, 1);
        let (mut producer, mut consumer) = (here.producer, there.consumer);
        let doorbell = Arc::new(Doorbell::default());
        let bell = Arc::clone(&doorbell);
        let sender = thread::spawn(move || {
            for byte in [1, 2] {
                send(&mut producer, byte, 8).unwrap();
                if producer.peer_must_be_woken() {
                    bell.ring();
                }
            }
        });
        let (mut inbox, mut got) = (Inbox::default(), Vec::new());
        while got.len() < 2 {
            consumer.arm();
            if !consumer.has_records() {
                doorbell.wait();
            }
            consumer.disarm();
            got.extend(receive(&mut consumer, &mut inbox));
        }
        sender.join().unwrap();
        assert_eq!(got, [1, 2]);
    });
}

/// A consumer that is away sees the record itself, or is rung for when the producer goes to sleep.
#[test]
fn no_record_waits_for_one_who_is_away() {
    model(|| {
        let (here, there) = Endpoint::modelled_pair(RING_BYTES, 1);
        let (mut producer, own) = (here.producer, here.consumer.sleep_word());
        let consumer = there.consumer;
        let peer = producer.peer_sleep();
        let sender = thread::spawn(move || {
            send(&mut producer, 1, 8).unwrap();
            let rung = producer.peer_must_be_woken();
            own.arm();
            rung || peer.must_be_rung_before_sleep()
        });
        consumer.sleep_word().step_out();
        let seen = consumer.has_records();
        assert!(sender.join().unwrap() || seen);
    });
}

/// The same for a producer that waits for room.
#[test]
fn no_wakeup_for_room_is_lost() {
    model(|| {
        let (here, there) = Endpoint::modelled_pair(RING_BYTES, 1);
        let (mut producer, mut consumer) = (here.producer, there.consumer);
        for byte in [1, 2, 3] {
            send(&mut producer, byte, MAX_INLINE).unwrap();
        }
        let doorbell = Arc::new(Doorbell::default());
        let bell = Arc::clone(&doorbell);
        let receiver = thread::spawn(move || {
            let got = receive(&mut consumer, &mut Inbox::default());
            if consumer.peer_waits_for_room() {
                bell.ring();
            }
            got
        });
        let room = producer.room_word();
        room.arm();
        if !producer.has_room(MAX_INLINE) {
            doorbell.wait();
        }
        room.disarm();
        send(&mut producer, 4, MAX_INLINE).unwrap();
        assert_eq!(receiver.join().unwrap(), [1, 2, 3]);
    });
}

/// One thread arms and peeks while another takes: the record is seen, taken, or rung for.
#[test]
fn a_peek_misses_nothing() {
    model(|| {
        let (here, there) = Endpoint::modelled_pair(RING_BYTES, 1);
        let (mut producer, mut consumer) = (here.producer, there.consumer);
        let (word, peek) = (consumer.sleep_word(), consumer.peek());
        let sender = thread::spawn(move || {
            send(&mut producer, 1, 8).unwrap();
            producer.peer_must_be_woken()
        });
        let taker = thread::spawn(move || receive(&mut consumer, &mut Inbox::default()).len());
        word.arm();
        let seen = peek.has_records();
        let rung = sender.join().unwrap();
        let taken = taker.join().unwrap();
        assert!(seen || rung || taken == 1);
    });
}

/// Releases of two threads all arrive, each whole, however the owner looks at them.
#[test]
fn releases_are_handed_back() {
    model(|| {
        let memory = Arc::new(RegionMemory::new(RING_BYTES, 2));
        let list = ReleaseList::new(Own(Arc::clone(&memory)));
        let mut reader = ReleaseReader::new(Peer(memory));
        let other = list.clone();
        let releaser = thread::spawn(move || other.push(7));
        list.push(5);
        let mut got = Vec::new();
        let mut accept = |entry| {
            got.push(entry);
            Ok(())
        };
        let early = reader.read(&mut accept).unwrap();
        releaser.join().unwrap();
        assert_eq!(early + reader.read(&mut accept).unwrap(), 2);
        got.sort_unstable();
        assert_eq!(got, [5, 7]);
    });
}
