//! What each rule is worth: the matrix of workloads with one rule switched off at a time.

use super::sides::{Figures, FirstPoll, Rules};
use super::workloads::{
    TWO_CPUS, Workload, computing, join, paced, run, run_from, sharing_a_cpu, shop, slow_and_quick,
    unary,
};
use crate::spin::{SpinRules, WaitPolicy};

const SHIPPED: Rules = Rules::shipped(WaitPolicy::Adaptive);

/// The shipped rules but for one, by the name of what is switched off.
fn switched_off() -> Vec<(&'static str, Rules)> {
    let spin = |spin: SpinRules| Rules { spin, ..SHIPPED };
    let shipped = SpinRules::SHIPPED;
    let far = shipped.far;
    vec![
        (
            "peer's posture",
            Rules {
                posture_known: false,
                ..SHIPPED
            },
        ),
        (
            "near budget: 60 us everywhere",
            spin(SpinRules {
                near: far,
                ..shipped
            }),
        ),
        (
            "far budget where all paid",
            spin(SpinRules {
                far_if_all_paid: false,
                ..shipped
            }),
        ),
        (
            "far budget after a miss",
            spin(SpinRules {
                far_after_miss: false,
                ..shipped
            }),
        ),
        (
            "far budget: 20 us everywhere",
            spin(SpinRules {
                far: shipped.near,
                ..shipped
            }),
        ),
        (
            "probes: cold for ever",
            spin(SpinRules {
                first_distance: 0,
                ..shipped
            }),
        ),
        (
            "growing distance: probe each 16",
            spin(SpinRules {
                max_distance: 16,
                ..shipped
            }),
        ),
        (
            "trial: one miss makes cold",
            spin(SpinRules {
                on_trial: 0xff00,
                ..shipped
            }),
        ),
        (
            "trial: nine misses make cold",
            spin(SpinRules {
                on_trial: 0xffff,
                ..shipped
            }),
        ),
        (
            "waits for this CPU",
            Rules {
                waits_for_this_cpu: false,
                ..SHIPPED
            },
        ),
        (
            "sitting out a shared CPU",
            Rules {
                sits_out: false,
                ..SHIPPED
            },
        ),
        (
            "woken tasks first",
            Rules {
                others_first: false,
                ..SHIPPED
            },
        ),
        (
            "yielded: asleep meanwhile",
            Rules {
                yields: false,
                ..SHIPPED
            },
        ),
        (
            "first poll: never looks",
            Rules {
                first_poll: FirstPoll::Never,
                ..SHIPPED
            },
        ),
        (
            "first poll: always looks",
            Rules {
                first_poll: FirstPoll::Always,
                ..SHIPPED
            },
        ),
    ]
}

fn workloads() -> Vec<Workload> {
    let mut all: Vec<_> = [1, 4, 16].map(shop).into();
    all.extend([unary(1, 0), unary(64, 0), unary(1, 2), join(), paced()]);
    all.extend([
        computing(12),
        computing(30),
        slow_and_quick(),
        sharing_a_cpu(),
    ]);
    all
}

/// The worst loss of a rule's absence over the workloads.
#[derive(Debug)]
struct Loss {
    what: &'static str,
    /// Throughput, and in which workload, as a share of the shipped rules'.
    rate: (f64, String),
    cpu: (f64, String),
}

fn losses() -> Vec<Loss> {
    let workloads: Vec<_> = workloads()
        .into_iter()
        .map(|workload| {
            let shipped = run(&workload, TWO_CPUS, SHIPPED);
            (workload, shipped)
        })
        .collect();
    let loss_of = |what, first_seed, rules| {
        let mut loss = Loss {
            what,
            rate: (1.0, String::new()),
            cpu: (1.0, String::new()),
        };
        for (workload, shipped) in &workloads {
            let without = run_from(first_seed, workload, TWO_CPUS, rules);
            note(&mut loss.rate, rate(&without) / rate(shipped), workload);
            note(&mut loss.cpu, shipped.cpu_us() / without.cpu_us(), workload);
        }
        loss
    };
    let noise = [7, 13].map(|seed| loss_of("nothing: other seeds", seed, SHIPPED));
    let rules = switched_off();
    noise
        .into_iter()
        .chain(
            rules
                .into_iter()
                .map(|(what, rules)| loss_of(what, 1, rules)),
        )
        .collect()
}

/// Work a second; of a workload whose rate is given, or that hardly gets on, by its latency.
fn rate(figures: &Figures) -> f64 {
    if figures.per_second() < 1_100.0 {
        return 1e6 / figures.percentile_us(50).max(1.0);
    }
    figures.per_second()
}

fn note(worst: &mut (f64, String), share: f64, workload: &Workload) {
    if share < worst.0 {
        *worst = (share, workload.name.clone());
    }
}

/// Shares of throughput and of CPU below this are a loss, and none that another seed would bring.
const NOISE: f64 = 0.9;

#[test]
fn the_table_of_rules_that_are_switched_off() {
    let losses = losses();
    println!("switched off: least throughput and most CPU, as shares of the shipped rules'");
    for loss in &losses {
        println!(
            "{:34} {:>5.2} {:30} {:>5.2} {}",
            loss.what, loss.rate.0, loss.rate.1, loss.cpu.0, loss.cpu.1
        );
    }
    let worst = |what: &str| {
        let of = losses.iter().filter(|loss| loss.what.starts_with(what));
        of.map(|loss| loss.rate.0.min(loss.cpu.0))
            .fold(1.0, f64::min)
    };
    assert!(worst("nothing") > NOISE);
    for what in [
        "peer's posture",
        "far budget after a miss",
        "far budget: 20 us",
        "probes",
        "waits for this CPU",
        "sitting out",
        "woken tasks first",
        "yielded",
        "first poll: never",
        "first poll: always",
    ] {
        assert!(worst(what) < NOISE, "{what}: {losses:?}");
    }
}
