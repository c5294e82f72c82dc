//! The instruments of calls: how long they took, which failed, what they carried.
//!
//! Each attribute set is looked up once: a call finds its method in a map of its thread, and from there
//! its instruments by number. What it adds to are atomic sums, and a histogram whose lock is held for
//! some additions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundCounter, BoundHistogram, Counter, Histogram, Meter};
use ringway::meter::{Direction, MethodMeter, Role, Way};
use tonic::Code;

use super::{DIRECTION, PATH, ROLE, role_name};

/// Bounds of the durations' buckets, in milliseconds: from a microsecond, since a call over shared
/// memory takes that long, to ten seconds.
const BOUNDS_MS: [f64; 22] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
    200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0,
];

/// Methods that are told apart, each end of them. A proxy's clients may name more.
const MAX_METHODS: usize = 1024;
/// What stands for all others (OpenTelemetry, "Semantic conventions for RPC").
const OTHER: &str = "_OTHER";
/// gRPC's status codes.
const CODES: usize = 17;

/// A method's name, and which end.
type Key = (Role, Box<str>);

/// What it is known by to threads that have met it.
type Known = [HashMap<Box<str>, &'static Method>; 2];

thread_local! {
    /// The methods that this thread has met: they never change, so nobody is asked again.
    static MET: RefCell<Known> = RefCell::default();
}

/// Measures all calls of the process.
#[derive(Debug)]
pub(super) struct Calls {
    instruments: Arc<Instruments>,
    methods: Arc<Methods>,
    other: &'static Method,
}

#[derive(Debug)]
struct Instruments {
    made: Histogram<f64>,
    handled: Histogram<f64>,
    errors: Counter<u64>,
}

/// All methods, kept for as long as the process lives: each has been called, and is bound to be again.
#[derive(Debug, Default)]
struct Methods(Mutex<HashMap<Key, &'static Method>>);

impl Methods {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, &'static Method>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    pub(super) fn new(meter: &Meter) -> Self {
        let instruments = Arc::new(Instruments::new(meter));
        let other = Method::new(Role::Server, OTHER, &instruments);
        let methods = Arc::new(Methods::default());
        methods.lock().insert((Role::Server, OTHER.into()), other);
        observe(meter, &methods);
        Self {
            instruments,
            methods,
            other,
        }
    }
}

impl ringway::meter::Meter for Calls {
    fn known(&self, role: Role, method: &str) -> Option<&'static dyn MethodMeter> {
        let met = MET.try_with(|met| met.borrow()[index(role)].get(method).copied());
        // A thread that ends has forgotten all.
        if let Some(method) = met.ok().flatten() {
            return Some(method);
        }
        let known = *self.methods.lock().get(&(role, method.into()))?;
        let _ended = MET.try_with(|met| {
            let mut met = met.borrow_mut();
            met[index(role)].insert(method.into(), known);
        });
        Some(known)
    }

    fn learn(&self, role: Role, method: &str) -> &'static dyn MethodMeter {
        let mut methods = self.methods.lock();
        let known = methods.len();
        let key = (role, method.into());
        let (key, method) = match methods.contains_key(&key) || known < MAX_METHODS {
            true => (key, method),
            false => ((role, OTHER.into()), OTHER),
        };
        let learned = methods.entry(key);
        *learned.or_insert_with(|| Method::new(role, method, &self.instruments))
    }

    fn other(&self) -> &'static dyn MethodMeter {
        self.other
    }
}

fn index(role: Role) -> usize {
    match role {
        Role::Client => 0,
        Role::Server => 1,
    }
}

impl Instruments {
    fn new(meter: &Meter) -> Self {
        let durations = |name, description| {
            meter
                .f64_histogram(name)
                .with_unit("ms")
                .with_description(description)
                .with_boundaries(BOUNDS_MS.into())
                .build()
        };
        Self {
            made: durations("rpc.client.duration", "Durations of calls made here"),
            handled: durations("rpc.server.duration", "Durations of calls handled here"),
            errors: meter
                .u64_counter("ringway.call.errors")
                .with_unit("{call}")
                .with_description("Calls that ended with another code than OK")
                .build(),
        }
    }
}

/// The sums of messages and bytes: read when somebody collects, and at no other time.
fn observe(meter: &Meter, methods: &Arc<Methods>) {
    type Sum = fn(&Carried) -> &AtomicU64;
    let sums: [(&'static str, &'static str, &'static str, Sum); 2] = [
        (
            "ringway.call.messages",
            "{message}",
            "Messages of calls",
            |carried| &carried.messages,
        ),
        (
            "ringway.call.io",
            "By",
            "Bytes of the messages of calls, without framing",
            |carried| &carried.bytes,
        ),
    ];
    for (name, unit, description, sum) in sums {
        let methods = Arc::clone(methods);
        meter
            .u64_observable_counter(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |to| {
                let methods: Vec<_> = methods.lock().values().copied().collect();
                for method in methods {
                    method.each_carried(|carried, attributes| {
                        to.observe(sum(carried).load(Ordering::Relaxed), attributes);
                    });
                }
            })
            .build();
    }
}

/// One end of a method: its instruments, found by number.
#[derive(Debug)]
struct Method {
    instruments: Arc<Instruments>,
    role: Role,
    /// `package.Service`; `None` for methods that are not told apart.
    service: Option<Box<str>>,
    name: Box<str>,
    ways: [OfWay; Way::COUNT],
}

#[derive(Debug, Default)]
struct OfWay {
    /// Sent and received.
    carried: [Carried; 2],
    endings: [OnceLock<Box<Ending>>; CODES],
}

#[derive(Debug, Default)]
struct Carried {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// What a call adds to when it ends in a certain way.
#[derive(Debug)]
struct Ending {
    durations: BoundHistogram<f64>,
    errors: Option<BoundCounter<u64>>,
}

impl Method {
    fn new(role: Role, path: &str, instruments: &Arc<Instruments>) -> &'static Self {
        let named = path.strip_prefix('/').unwrap_or(path);
        let (service, name) = match named.rsplit_once('/') {
            Some((service, name)) => (Some(service.into()), name),
            None => (None, OTHER),
        };
        Box::leak(Box::new(Self {
            instruments: Arc::clone(instruments),
            role,
            service,
            name: name.into(),
            ways: Default::default(),
        }))
    }

    fn attributes(&self, way: Way) -> Vec<KeyValue> {
        let name = |name: &str| name.to_owned();
        let mut attributes = vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.method", name(&self.name)),
        ];
        attributes.extend(
            self.service
                .as_deref()
                .map(|service| KeyValue::new("rpc.service", name(service))),
        );
        attributes.extend(way.path().map(|path| KeyValue::new(PATH, path.name())));
        attributes.extend(
            way.transport()
                .map(|transport| KeyValue::new("network.transport", transport)),
        );
        attributes
    }

    fn ending(&self, way: Way, code: Code) -> Ending {
        let mut attributes = self.attributes(way);
        let status = i64::from(i32::from(code));
        attributes.push(KeyValue::new("rpc.grpc.status_code", status));
        let durations = match self.role {
            Role::Client => &self.instruments.made,
            Role::Server => &self.instruments.handled,
        };
        let durations = durations.bind(&attributes);
        attributes.push(KeyValue::new(ROLE, role_name(self.role)));
        let errors = (code != Code::Ok).then(|| self.instruments.errors.bind(&attributes));
        Ending { durations, errors }
    }

    /// Shows what each way has carried, in each direction.
    fn each_carried(&self, mut show: impl FnMut(&Carried, &[KeyValue])) {
        for (way, of_way) in Way::all().zip(&self.ways) {
            for (direction, carried) in ["transmit", "receive"].into_iter().zip(&of_way.carried) {
                if carried.messages.load(Ordering::Relaxed) > 0 {
                    let mut attributes = self.attributes(way);
                    attributes.push(KeyValue::new(ROLE, role_name(self.role)));
                    attributes.push(KeyValue::new(DIRECTION, direction));
                    show(carried, &attributes);
                }
            }
        }
    }
}

impl MethodMeter for Method {
    fn carried(&self, way: Way, direction: Direction, messages: u64, bytes: u64) {
        let [sent, received] = &self.ways[way.index()].carried;
        let carried = match direction {
            Direction::Sent => sent,
            Direction::Received => received,
        };
        carried.bytes.fetch_add(bytes, Ordering::Relaxed);
        carried.messages.fetch_add(messages, Ordering::Relaxed);
    }

    fn ended(&self, way: Way, code: Code, took: Duration) {
        let endings = &self.ways[way.index()].endings;
        let place = usize::try_from(i32::from(code)).unwrap_or_default();
        if let Some(ending) = endings.get(place) {
            let ending = ending.get_or_init(|| Box::new(self.ending(way, code)));
            ending.durations.record(took.as_secs_f64() * 1e3);
            ending.errors.iter().for_each(|errors| errors.add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use ringway::meter::Meter as _;

    use super::*;

    fn is_same(one: &'static dyn MethodMeter, other: &'static dyn MethodMeter) -> bool {
        std::ptr::addr_eq(one, other)
    }

    #[test]
    fn a_method_is_learned_once_and_no_more_than_there_is_room_for() {
        let provider = SdkMeterProvider::builder().build();
        let calls = Calls::new(&provider.meter("tested"));
        assert!(calls.known(Role::Server, "/a.B/C").is_none());
        let learned = calls.learn(Role::Server, "/a.B/C");
        assert!(is_same(learned, calls.learn(Role::Server, "/a.B/C")));
        assert!(is_same(
            learned,
            calls.known(Role::Server, "/a.B/C").unwrap()
        ));
        assert!(calls.known(Role::Client, "/a.B/C").is_none());
        let there = |calls: &Calls| calls.methods.lock().len();
        for number in 0..2 * MAX_METHODS {
            calls.learn(Role::Client, &format!("/a.B/{number}"));
            assert!(there(&calls) <= MAX_METHODS + 1);
        }
        let one_more = calls.learn(Role::Client, "/a.B/one more");
        assert!(is_same(one_more, calls.learn(Role::Client, "/a.B/another")));
        assert!(calls.known(Role::Client, "/a.B/another").is_none());
        assert!(is_same(learned, calls.learn(Role::Server, "/a.B/C")));
    }

    #[test]
    fn a_path_is_a_service_and_a_method() {
        let provider = SdkMeterProvider::builder().build();
        let calls = Calls::new(&provider.meter("tested"));
        let parts = |path: &str| {
            let method = Method::new(Role::Client, path, &calls.instruments);
            (method.service.as_deref(), &*method.name)
        };
        assert_eq!(parts("/a.B/C"), (Some("a.B"), "C"));
        assert_eq!(parts(""), (None, OTHER));
    }
}
