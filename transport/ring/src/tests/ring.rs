//! Two honest endpoints: what arrives, when, and who has to be rung for.

use crate::mock::{RING_BYTES, config};
use crate::{Endpoint, Inbox, ReserveError};

fn send(endpoint: &mut Endpoint, bytes: &[u8]) -> crate::Position {
    let mut reservation = endpoint.producer.reserve(bytes.len()).unwrap();
    reservation.copy_from_slice(bytes);
    reservation.commit()
}

fn receive(endpoint: &mut Endpoint) -> Vec<Vec<u8>> {
    let mut inbox = Inbox::default();
    endpoint.consumer.take(&mut inbox).unwrap();
    inbox
        .records()
        .map(|record| record.unwrap().bytes.to_vec())
        .collect()
}

#[test]
fn records_arrive_in_order_round_and_round() {
    // Both ends start just before the index wraps.
    let (mut here, mut there) = Endpoint::pair_at(&config(), u64::MAX - 1023).unwrap();
    for round in 0..200_usize {
        let sent: Vec<Vec<u8>> = (0..3)
            .map(|n| vec![u8::try_from(round).unwrap(); round * n * 2])
            .collect();
        sent.iter().for_each(|bytes| _ = send(&mut here, bytes));
        assert_eq!(receive(&mut there), sent);
    }
}

#[test]
fn nothing_is_seen_before_it_is_committed() {
    let (mut here, mut there) = Endpoint::pair(&config()).unwrap();
    let mut abandoned = here.producer.reserve(8).unwrap();
    abandoned.fill(1);
    drop(abandoned);
    assert!(!there.consumer.has_records());
    send(&mut here, b"after");
    assert_eq!(receive(&mut there), [b"after"]);
}

#[test]
fn a_batch_is_seen_as_one() {
    let (mut here, there) = Endpoint::pair(&config()).unwrap();
    let peek = there.consumer.peek();
    let mut batch = here.producer.batch();
    batch.reserve(1).unwrap().commit();
    batch.reserve(2).unwrap().commit();
    drop(batch.reserve(3).unwrap());
    assert!(!peek.has_records());
    drop(batch);
    assert!(peek.has_records());
    let mut there = there;
    assert_eq!(receive(&mut there), [vec![0; 1], vec![0; 2]]);
    assert!(!peek.has_records());
}

#[test]
fn a_reservation_can_shrink() {
    let (mut here, mut there) = Endpoint::pair(&config()).unwrap();
    let mut reservation = here.producer.reserve(100).unwrap();
    reservation[..3].copy_from_slice(b"abc");
    reservation.truncate(3);
    assert_eq!(&reservation[..], b"abc");
    reservation.commit();
    send(&mut here, b"next");
    assert_eq!(receive(&mut there), [&b"abc"[..], b"next"]);
}

#[test]
fn the_largest_record_fits_wherever_the_ring_stands() {
    let (mut here, mut there) = Endpoint::pair(&config()).unwrap();
    let max = here.producer.max_inline();
    assert_eq!(
        here.producer.reserve(max + 1).err(),
        Some(ReserveError::TooLarge { len: max + 1, max })
    );
    assert!(matches!(
        here.producer.reserve(usize::MAX),
        Err(ReserveError::TooLarge { .. })
    ));
    for _ in 0..RING_BYTES / 8 {
        send(&mut here, &vec![5; max]);
        assert_eq!(receive(&mut there), [vec![5; max]]);
        send(&mut here, b"");
        receive(&mut there);
    }
}

#[test]
fn a_position_is_reached_when_its_record_was_taken() {
    let (mut here, mut there) = Endpoint::pair_at(&config(), u64::MAX - 7).unwrap();
    let first = send(&mut here, b"");
    let second = send(&mut here, b"second");
    assert!(!first.reached_by(here.producer.peer_cursor().unwrap()));
    receive(&mut there);
    let third = send(&mut here, b"third");
    let cursor = here.producer.peer_cursor().unwrap();
    assert_eq!(
        [first, second, third].map(|position| position.reached_by(cursor)),
        [true, true, false]
    );
}

#[test]
fn a_sleeper_is_rung_for_once() {
    let (mut here, there) = Endpoint::pair(&config()).unwrap();
    send(&mut here, b"1");
    assert!(!here.producer.peer_must_be_woken(), "nobody sleeps");
    there.consumer.arm();
    let mut batch = here.producer.batch();
    batch.reserve(0).unwrap().commit();
    assert!(batch.publish());
    assert!(!here.producer.peer_must_be_woken(), "rung for already");
    there.consumer.disarm();
    assert!(!here.producer.peer_must_be_woken());
    there.consumer.arm();
    there.consumer.arm();
    assert!(here.producer.peer_must_be_woken(), "a new sleep");
}

#[test]
fn a_peer_that_is_away_is_rung_for_before_sleep_if_it_left_records() {
    let (mut here, mut there) = Endpoint::pair(&config()).unwrap();
    let sleep = here.producer.peer_sleep();
    there.consumer.sleep_word().step_out();
    assert!(
        !sleep.must_be_rung_before_sleep(),
        "it has taken everything"
    );
    send(&mut here, b"1");
    assert!(!here.producer.peer_must_be_woken(), "it does not sleep");
    assert!(sleep.must_be_rung_before_sleep());
    assert!(!sleep.must_be_rung_before_sleep(), "rung for already");
    there.consumer.sleep_word().renew_absence();
    assert!(sleep.must_be_rung_before_sleep(), "a new absence");
    there.consumer.disarm();
    there.consumer.sleep_word().renew_absence();
    assert!(!sleep.must_be_rung_before_sleep(), "it is not away");
    receive(&mut there);
    there.consumer.sleep_word().step_out();
    assert!(!sleep.must_be_rung_before_sleep());
}

#[test]
fn a_rung_sleeper_of_this_cpu_is_known_until_it_comes_up() {
    // One CPU for the length of the test: it would be moved between the two looks otherwise.
    let everywhere = rustix::thread::sched_getaffinity(None).unwrap();
    let mut here_only = rustix::thread::CpuSet::new();
    here_only.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &here_only).unwrap();
    let (mut here, there) = Endpoint::pair(&config()).unwrap();
    let sleep = here.producer.peer_sleep();
    there.consumer.arm();
    assert!(!sleep.waits_for_this_cpu(), "asleep, but not rung for");
    send(&mut here, b"1");
    assert!(here.producer.peer_must_be_woken());
    assert!(sleep.waits_for_this_cpu());
    there.consumer.disarm();
    assert!(!sleep.waits_for_this_cpu(), "it came up");
    rustix::thread::sched_setaffinity(None, &everywhere).unwrap();
}

#[test]
fn room_is_seen_without_the_producer() {
    let (mut here, mut there) = Endpoint::pair(&config()).unwrap();
    let room = here.producer.room_peek();
    while here.producer.has_room(500) {
        send(&mut here, &[0; 500]);
    }
    assert!(!room.has_changed());
    receive(&mut there);
    assert!(room.has_changed());
    assert!(here.producer.has_room(500));
    assert!(!room.has_changed(), "known to the producer");
}

#[test]
fn a_producer_waiting_for_room_is_rung_for_once() {
    let (mut here, mut there) = Endpoint::pair(&config()).unwrap();
    while here.producer.has_room(500) {
        send(&mut here, &[0; 500]);
    }
    assert!(!there.consumer.peer_waits_for_room());
    here.producer.room_word().arm();
    assert!(!here.producer.has_room(500));
    receive(&mut there);
    assert!(there.consumer.peer_waits_for_room());
    assert!(!there.consumer.peer_waits_for_room());
    assert!(here.producer.has_room(500));
}

#[test]
fn parts_move_to_other_threads() {
    let (mut here, mut there) = Endpoint::pair(&config()).unwrap();
    let sender = std::thread::spawn(move || {
        for n in 0..50_000_u32 {
            while !here.producer.has_room(4) {
                std::thread::yield_now();
            }
            send(&mut here, &n.to_le_bytes());
        }
    });
    let (mut inbox, mut next) = (Inbox::default(), 0_u32);
    while next < 50_000 {
        if there.consumer.take(&mut inbox).unwrap() == 0 {
            std::thread::yield_now();
        }
        for record in inbox.records() {
            assert_eq!(record.unwrap().bytes, next.to_le_bytes());
            next += 1;
        }
    }
    sender.join().unwrap();
}
