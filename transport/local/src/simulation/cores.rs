//! The rule by which drivers share connections ([`load`](crate::driver::load)), window by window, on machines that
//! nothing was measured on: how near it comes to a driver for each CPU, how soon, and with how many moves.
//!
//! A driver does what its connections ask for, up to one CPU; what is more waits, and is asked for again.

use std::time::Duration;

use crate::driver::load::{LoadRecord, LoadRules, PerMille, Reading, Verdict, Weighed, share_out};

const RULES: LoadRules = LoadRules::SHIPPED;

struct Simulated {
    cpus: usize,
    /// What each connection asks for of a CPU.
    asked: Vec<PerMille>,
    /// The connections of each driver.
    of: Vec<Vec<usize>>,
    drivers: Vec<(LoadRecord, bool)>,
    /// What drivers did in the last window.
    busy: Vec<PerMille>,
    moves: usize,
}

impl Simulated {
    fn new(cpus: usize, asked: Vec<PerMille>) -> Self {
        let mut of = vec![Vec::new(); cpus];
        of[0] = (0..asked.len()).collect();
        Self {
            cpus,
            of,
            asked,
            drivers: vec![(LoadRecord::default(), false); cpus],
            busy: vec![0; cpus],
            moves: 0,
        }
    }

    fn wanted(&self, driver: usize) -> PerMille {
        self.of[driver].iter().map(|one| self.asked[*one]).sum()
    }

    /// What all drivers do, of one CPU.
    fn done(&self) -> PerMille {
        let done = |driver| self.wanted(driver).min(1000);
        (0..self.cpus).map(done).sum()
    }

    fn serves(&self, driver: usize) -> bool {
        driver == 0 || !self.of[driver].is_empty()
    }

    fn taker(&self, giver: usize) -> Option<usize> {
        let others = || (0..self.cpus).filter(move |other| *other != giver);
        let least = others()
            .filter(|other| self.serves(*other))
            .min_by_key(|other| self.busy[*other]);
        let roomy = least.filter(|other| self.busy[*other] <= RULES.has_room);
        roomy.or_else(|| others().find(|other| !self.serves(*other)))
    }

    fn window(&mut self) {
        for driver in 0..self.cpus {
            self.busy[driver] = self.wanted(driver).min(1000);
        }
        let idle = all_of(self.cpus).saturating_sub(self.done());
        for driver in 0..self.cpus {
            let mine = self.of[driver].clone();
            if mine.is_empty() {
                continue;
            }
            let (record, weighs) = self.drivers[driver];
            let taker = self.taker(driver);
            let reading = Reading {
                length: RULES.window,
                busy: self.busy[driver],
                is_first: driver == 0,
                first_busy: self.busy[0],
                weighed: weighs.then(|| Weighed {
                    connections: mine.len(),
                    idle_cpu: idle,
                    taker_busy: taker.map(|taker| self.busy[taker]),
                }),
            };
            let (verdict, record) = record.judge(&RULES, reading);
            self.drivers[driver] = (record, verdict == Verdict::Weigh);
            match (verdict, taker) {
                (Verdict::Share, Some(taker)) => {
                    // A driver that is full does a part of what each connection asks for.
                    let part = |one: &usize| {
                        let done = self.asked[*one] * 1000 / self.wanted(driver).max(1000);
                        Duration::from_micros(u64::from(done))
                    };
                    let weights: Vec<_> = mine.iter().map(part).collect();
                    let taken = Duration::from_micros(u64::from(self.busy[taker]));
                    for chosen in share_out(&weights, taken) {
                        self.move_to(mine[chosen], driver, taker);
                        self.busy[taker] += u32::try_from(weights[chosen].as_micros()).unwrap_or(0);
                    }
                }
                (Verdict::Return, _) => {
                    self.busy[0] += self.busy[driver];
                    for one in mine {
                        self.move_to(one, driver, 0);
                    }
                }
                _ => {}
            }
        }
    }

    fn move_to(&mut self, one: usize, from: usize, to: usize) {
        self.of[from].retain(|mine| *mine != one);
        self.of[to].push(one);
        self.moves += 1;
    }

    /// Runs so many windows; returns the one after which no connection was moved.
    fn run(&mut self, windows: usize) -> usize {
        let mut settled = 0;
        for window in 1..=windows {
            let moves = self.moves;
            self.window();
            if self.moves > moves {
                settled = window;
            }
        }
        settled
    }

    fn drivers_at_work(&self) -> usize {
        self.of.iter().filter(|mine| !mine.is_empty()).count()
    }
}

/// Four seconds.
const WINDOWS: usize = 80;

/// All that so many CPUs can do.
fn all_of(cpus: usize) -> PerMille {
    PerMille::try_from(1000 * cpus).unwrap()
}

/// Runs a load, and says what came of it: of the work that is asked for, within what the CPUs can do.
fn share_of_possible(name: &str, cpus: usize, asked: Vec<PerMille>) -> f64 {
    let whole: PerMille = asked.iter().sum();
    let most_of_one = asked.iter().copied().max().unwrap_or(0).max(1000);
    assert!(most_of_one == 1000, "one connection is one driver's");
    let possible = whole.min(all_of(cpus));
    let connections = asked.len();
    let mut simulated = Simulated::new(cpus, asked);
    let settled = simulated.run(WINDOWS);
    let share = f64::from(simulated.done()) / f64::from(possible);
    println!(
        "{name:30} {cpus:>3} CPUs {connections:>4} connections: {:>3} drivers, {share:.2} of what is possible, settled \
         after {:>4} ms, {} moves",
        simulated.drivers_at_work(),
        settled * 50,
        simulated.moves
    );
    assert!(settled < WINDOWS / 2, "{name}: it does not settle");
    share
}

fn uneven(connections: usize, seed: u64) -> Vec<PerMille> {
    let mut state = seed;
    let one = |_| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let drawn = u32::try_from((mixed ^ (mixed >> 31)) % 1000).unwrap_or(0);
        // Few heavy ones, many light ones.
        (drawn * drawn / 1000).max(1)
    };
    (0..connections).map(one).collect()
}

#[test]
fn busy_connections_spread_over_the_cpus() {
    for cpus in [2, 4, 8, 16, 32, 64] {
        let even = share_of_possible("four for each CPU, even", cpus, vec![250; 4 * cpus]);
        let half = share_of_possible("half of that", cpus, vec![250; 2 * cpus]);
        let some = share_of_possible("uneven ones", cpus, uneven(3 * cpus, 7));
        let least = [even, half, some].into_iter().fold(f64::MAX, f64::min);
        assert!(least > 0.75, "{cpus} CPUs: {even:.2}, {half:.2}, {some:.2}");
    }
}

#[test]
fn what_one_driver_can_do_stays_with_one() {
    for each in [10, 45] {
        let mut simulated = Simulated::new(64, vec![each; 16]);
        simulated.run(WINDOWS);
        assert_eq!((simulated.moves, simulated.drivers_at_work()), (0, 1));
    }
}

#[test]
fn drivers_are_given_up_when_the_load_is_gone() {
    let mut simulated = Simulated::new(8, vec![250; 16]);
    simulated.run(WINDOWS);
    assert!(simulated.drivers_at_work() >= 4);
    simulated.asked.fill(5);
    let settled = simulated.run(WINDOWS);
    assert_eq!(simulated.drivers_at_work(), 1);
    println!("given up after {} ms", settled * 50);
    assert!(settled <= 20);
}
