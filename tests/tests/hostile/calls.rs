//! Calls that no library would send, with nothing wrong about their frames: each of them is answered, and
//! the connection lives. Over HTTP/2 they end with the same codes, or can't be said at all.

use ringway_wire::{Kind, MetadataBuf, Method, RequestHead};
use tonic::Code;

use crate::frames::{FIRST_CALL, request};
use crate::{Joined, besiege, hello, join, join_with, older_hello};

/// Handlers over stubs of ours, and over HTTP types.
const PATHS: [&str; 2] = [
    "/ringway.bench.v1.Bench/Unary",
    "/grpc.health.v1.Health/Check",
];

/// Makes one unary call after another.
struct Caller {
    attacker: Joined,
    calls: u64,
}

impl Caller {
    /// How a call without a message's content ends.
    fn call(&mut self, path: &str, metadata: &MetadataBuf) -> Code {
        let head = RequestHead {
            metadata: metadata.as_metadata(),
            ..RequestHead::new(Method::Inline(path))
        };
        let mut bytes = vec![0; head.encoded_len().unwrap()];
        head.encode(&mut bytes);
        self.calls += 1;
        self.attacker
            .frame(request(self.calls << 32, &bytes), &bytes);
        Code::from_i32(self.attacker.ending().code.into())
    }

    fn is_served(&mut self) {
        for path in PATHS {
            let code = self.call(path, &MetadataBuf::new());
            assert_eq!(code, Code::Ok, "{path} after {} calls", self.calls);
        }
    }
}

fn one(name: &[u8], value: &[u8]) -> MetadataBuf {
    let mut metadata = MetadataBuf::new();
    metadata.push(name, value).unwrap();
    metadata
}

#[test]
fn paths_that_are_none() {
    besiege(|root| {
        let (attacker, calls) = (join(root), 0);
        let mut caller = Caller { attacker, calls };
        caller.is_served();
        let long = "/".to_owned() + &"x".repeat(8_000);
        let wrong = ["", "/", "*", "Unary", "//", "http://[", " ", "\0", &long];
        let spoilt = PATHS.iter().flat_map(|path| {
            let (service, method) = path.rsplit_once('/').unwrap();
            [
                path[1..].to_owned(),
                service.to_owned(),
                format!("{service}/"),
                format!("{path}\0"),
                format!("{path} "),
                format!("{path}/"),
                format!("{service}/\0{method}"),
                format!("{service}/\u{1f608}"),
            ]
        });
        for path in wrong.into_iter().map(str::to_owned).chain(spoilt) {
            let code = caller.call(&path, &MetadataBuf::new());
            assert_eq!(code, Code::Unimplemented, "{path:?}");
        }
        caller.is_served();
    });
}

#[test]
fn metadata_that_is_none() {
    besiege(|root| {
        let (attacker, calls) = (join(root), 0);
        let mut caller = Caller { attacker, calls };
        for path in PATHS {
            for name in ["X-Upper", "x y", "x\0", "x:y", ":path", "", "x-\u{e9}"] {
                let code = caller.call(path, &one(name.as_bytes(), b"1"));
                assert_eq!(code, Code::Internal, "{path} {name:?}");
            }
            for value in [&b"a\nb"[..], b"a\0b", b"\x7f"] {
                let code = caller.call(path, &one(b"x-value", value));
                assert_eq!(code, Code::Internal, "{path} {value:?}");
            }
            let opaque = one(b"x-value", b"\xff\xfe");
            assert_eq!(caller.call(path, &opaque), Code::Ok, "{path}");
        }
        caller.is_served();
    });
}

/// A service behind HTTP types can't say whether a stream was expected.
#[test]
fn whole_answers_are_for_who_knows_them() {
    besiege(|root| {
        for (hello, first) in [(older_hello(), Kind::Headers), (hello(), Kind::Response)] {
            let mut client = join_with(root, &hello);
            let head = RequestHead::new(Method::Inline(PATHS[1]));
            let mut bytes = vec![0; head.encoded_len().unwrap()];
            head.encode(&mut bytes);
            client.frame(request(FIRST_CALL, &bytes), &bytes);
            assert_eq!(client.wait_for(|_| true).kind, first);
        }
    });
}
