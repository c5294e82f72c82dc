//! What is generated, read as Rust and held against what tonic-prost-build generates from the same
//! .proto file.
#![allow(clippy::unwrap_used)]

use std::{fs, io, path::Path};

use quote::ToTokens;
use syn::{Attribute, File, ImplItem, ImplItemFn, Item, ItemImpl, ItemMod};

const SHOP: &str = r#"
syntax = "proto3";
package shop.v1;
import "google/protobuf/empty.proto";
import "google/protobuf/timestamp.proto";

message Order { string id = 1; bytes note = 2; map<string, uint32> items = 3; }
message Receipt { Order order = 1; google.protobuf.Timestamp paid = 2; }

// Takes orders.
service Orders {
  // Places one.
  rpc Place(Order) returns (Receipt);
  rpc Watch(google.protobuf.Empty) returns (stream Receipt);
  rpc Import(stream Order) returns (google.protobuf.Empty);
  // A name that Rust has taken.
  rpc Match(stream Order) returns (stream Receipt) { option deprecated = true; }
}

service Nothing {}
"#;

/// What both builders write for the same .proto file and the same settings.
macro_rules! generated {
    ($builder:expr) => {{
        let dir = tempfile::tempdir().unwrap();
        let fds = descriptors(dir.path());
        $builder.out_dir(dir.path()).compile_fds(fds).unwrap();
        let source = fs::read_to_string(dir.path().join("shop.v1.rs")).unwrap();
        syn::parse_file(&source).unwrap()
    }};
}

fn descriptors(dir: &Path) -> prost_types::FileDescriptorSet {
    let proto = dir.join("shop.proto");
    fs::write(&proto, SHOP).unwrap();
    protox::compile([proto], [dir]).unwrap()
}

fn module<'a>(file: &'a File, name: &str) -> &'a ItemMod {
    file.items
        .iter()
        .find_map(|item| match item {
            Item::Mod(module) if module.ident == name => Some(module),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no module {name}"))
}

fn items(module: &ItemMod) -> &[Item] {
    &module.content.as_ref().unwrap().1
}

fn tokens(item: &impl ToTokens) -> String {
    item.to_token_stream().to_string()
}

fn impls(module: &ItemMod) -> impl Iterator<Item = &ItemImpl> {
    items(module).iter().filter_map(|item| match item {
        Item::Impl(block) => Some(block),
        _ => None,
    })
}

fn functions(module: &ItemMod) -> impl Iterator<Item = &ImplItemFn> {
    impls(module)
        .flat_map(|block| &block.items)
        .filter_map(|item| match item {
            ImplItem::Fn(function) => Some(function),
            _ => None,
        })
}

fn function<'a>(module: &'a ItemMod, name: &str) -> &'a ImplItemFn {
    functions(module)
        .find(|function| function.sig.ident == name)
        .unwrap_or_else(|| panic!("no function {name}"))
}

/// Everything of a server module but what is ours: our two items stand last, and the service answers
/// with a future of its own.
fn assert_server_is_tonics(ours: &File, tonics: &File, name: &str) {
    let (ours, tonics) = (items(module(ours, name)), items(module(tonics, name)));
    assert_eq!(ours.len(), tonics.len() + 2);
    for (our, tonic) in ours.iter().zip(tonics) {
        if tokens(tonic).contains(TONICS_FUTURE) {
            assert_service_is_tonics(&tokens(our), &tokens(tonic));
        } else {
            assert_eq!(tokens(our), tokens(tonic));
        }
    }
}

const TONICS_FUTURE: &str = "type Future = BoxFuture < Self :: Response , Self :: Error > ;";

/// tonic's code stands in ours, and nothing else but what makes the future.
fn assert_service_is_tonics(our: &str, tonic: &str) {
    let (head, rest) = tonic.split_once(TONICS_FUTURE).unwrap();
    let call = "fn call (& mut self , req : http :: Request < B >) -> Self :: Future {";
    let (ready, body) = rest.split_once(call).unwrap();
    let body = body.trim().strip_suffix("} }").unwrap();
    let expected = format!(
        "{head} type Future = ringway :: codegen :: Answer < Self > ; {ready} {call} \
         if ringway :: codegen :: is_probe (& req) {{ \
         return ringway :: codegen :: Answer :: found (self . clone ()) ; }} \
         let answer : BoxFuture < Self :: Response , Self :: Error > = {{ {body} }} ; \
         ringway :: codegen :: Answer :: new (answer) }} }}"
    );
    assert_eq!(flat(our), flat(&expected));
}

#[test]
fn the_trait_and_the_server_are_tonics_token_for_token() {
    let (ours, tonics) = (
        generated!(ringway_build::configure()),
        generated!(tonic_prost_build::configure()),
    );
    assert_server_is_tonics(&ours, &tonics, "orders_server");
    assert_server_is_tonics(&ours, &tonics, "nothing_server");
    let source = tokens(module(&ours, "orders_server"));
    assert!(source.contains("pub trait Orders : std :: marker :: Send"));
}

#[test]
fn they_are_tonics_with_every_setting_of_the_server() {
    let (ours, tonics) = (
        generated!(
            ringway_build::configure()
                .use_arc_self(true)
                .generate_default_stubs(true)
                .trait_attribute("Orders", "#[must_use]")
                .server_attribute("shop.v1.Orders", "#[derive(PartialEq)]")
                .server_mod_attribute("shop.v1", "#[cfg(feature = \"server\")]")
                .disable_comments(["shop.v1.Orders.Place"])
        ),
        generated!(
            tonic_prost_build::configure()
                .use_arc_self(true)
                .generate_default_stubs(true)
                .trait_attribute("Orders", "#[must_use]")
                .server_attribute("shop.v1.Orders", "#[derive(PartialEq)]")
                .server_mod_attribute("shop.v1", "#[cfg(feature = \"server\")]")
                .disable_comments(["shop.v1.Orders.Place"])
        ),
    );
    assert_server_is_tonics(&ours, &tonics, "orders_server");
    let source = tokens(module(&ours, "orders_server"));
    assert!(source.contains("place (inner , request)"), "{source}");
}

#[test]
fn messages_are_prosts_with_the_same_defaults() {
    let (ours, tonics) = (
        generated!(ringway_build::configure()),
        generated!(tonic_prost_build::configure()),
    );
    let messages = |file: &File| -> Vec<String> {
        let outside = file
            .items
            .iter()
            .filter(|item| !matches!(item, Item::Mod(_)));
        outside.map(tokens).collect()
    };
    assert_eq!(messages(&ours), messages(&tonics));
    assert!(messages(&ours)[0].contains("Vec < u8 >"));
}

#[test]
fn settings_of_messages_reach_prost() {
    let file = generated!(
        ringway_build::configure()
            .bytes(".")
            .btree_map(".")
            .message_attribute("shop.v1.Order", "#[derive(Eq)]")
            .field_attribute("shop.v1.Order.id", "#[allow(unused)]")
            .boxed(".shop.v1.Receipt.order")
            .extern_path(".google.protobuf.Timestamp", "::jiff::Timestamp")
    );
    let source = tokens(&file);
    for expected in [
        "bytes :: Bytes",
        "BTreeMap",
        "derive (Eq)",
        "allow (unused)",
        "Box < Order >",
        ":: jiff :: Timestamp",
    ] {
        assert!(source.contains(expected), "{expected}");
    }
}

#[test]
fn the_client_has_tonics_methods_with_tonics_signatures() {
    let (ours, tonics) = (
        generated!(ringway_build::configure()),
        generated!(tonic_prost_build::configure()),
    );
    let (ours, tonics) = (
        module(&ours, "orders_client"),
        module(&tonics, "orders_client"),
    );
    for tonic in functions(tonics) {
        let name = tonic.sig.ident.to_string();
        if name == "connect" {
            continue;
        }
        let our = function(ours, &name);
        if ["new", "with_origin", "with_interceptor"].contains(&name.as_str()) {
            let mut tonics = tonic.sig.clone();
            let bounds = tonics.generics.make_where_clause();
            bounds.predicates.push(syn::parse_quote!(T: 'static));
            assert_eq!(flat(&tokens(&our.sig)), flat(&tokens(&tonics)));
        } else {
            assert_eq!(tokens(&our.sig), tokens(&tonic.sig));
        }
        assert_eq!(tokens(&our.vis), tokens(&tonic.vis));
        let docs = |attributes: &[Attribute]| attributes.iter().map(tokens).collect::<Vec<_>>();
        assert_eq!(docs(&our.attrs), docs(&tonic.attrs), "{name}");
    }
    let names = |module| functions(module).map(|f| f.sig.ident.to_string());
    assert_eq!(
        names(ours).collect::<Vec<_>>(),
        names(tonics).collect::<Vec<_>>()
    );
    let bounds = |module| {
        let generic = impls(module).find(|block| !block.generics.params.is_empty());
        tokens(&generic.unwrap().generics.where_clause)
    };
    assert_eq!(bounds(ours), bounds(tonics));
    assert!(tokens(ours).contains("pub struct OrdersClient < T = ringway :: Channel >"));
    assert!(!tokens(ours).contains("tonic :: client :: Grpc <"));
}

#[test]
fn each_method_calls_its_own_entry_of_the_table() {
    let file = generated!(ringway_build::configure());
    let client = module(&file, "orders_client");
    let bodies = [
        (
            "place",
            "self . inner . unary (& METHODS [0] , request . into_request ())",
        ),
        (
            "watch",
            "self . inner . server_streaming (& METHODS [1] , request . into_request ())",
        ),
        (
            "import",
            "self . inner . client_streaming (& METHODS [2] , request . into_streaming_request ())",
        ),
        (
            "r#match",
            "self . inner . streaming (& METHODS [3] , request . into_streaming_request ())",
        ),
    ];
    for (name, body) in bodies {
        let block = tokens(&function(client, name).block);
        assert_eq!(flat(&block), flat(&format!("{body} . await")));
    }
    for module in [client, module(&file, "orders_server")] {
        let source = tokens(module);
        let entry = r#"Method :: new ("shop.v1.Orders" , "Match" , "/shop.v1.Orders/Match")"#;
        assert!(flat(&source).contains(&flat(entry)), "{source}");
        assert!(source.contains("static METHODS : [ringway :: codegen :: Method ; 4]"));
    }
}

#[test]
fn the_server_dispatches_by_the_index_in_the_table() {
    let file = generated!(ringway_build::configure());
    let server = module(&file, "orders_server");
    let local = impls(server).last().unwrap();
    assert_eq!(tokens(&local.generics), "< T : Orders >");
    assert_eq!(
        tokens(&local.trait_.as_ref().unwrap().1),
        "ringway :: codegen :: LocalService"
    );
    let source = tokens(local);
    for arm in [
        "0 => { call . unary (limits , move | request : tonic :: Request < super :: Order > |",
        "1 => { call . server_streaming (limits , move | request : tonic :: Request < () > |",
        "2 => { call . client_streaming (limits , move | request : tonic :: Request < tonic :: Streaming < super :: Order > > |",
        "3 => { call . streaming (limits , move | request : tonic :: Request < tonic :: Streaming < super :: Order > > |",
        "_ => call . unimplemented ()",
        "< T as Orders > :: r#match (& inner , request) . await",
    ] {
        assert!(
            flat(&source).contains(&flat(arm)),
            "{arm}\nnot in\n{source}"
        );
    }
}

/// Without what prettyplease adds to break lines.
fn flat(source: &str) -> String {
    source.replace(['{', '}', ' ', ','], "")
}

#[test]
fn clients_and_servers_can_be_left_out() {
    let modules = |file: File| -> Vec<String> {
        let names = file.items.iter().filter_map(|item| match item {
            Item::Mod(module) => Some(module.ident.to_string()),
            _ => None,
        });
        names.collect()
    };
    assert_eq!(
        modules(generated!(ringway_build::configure().build_server(false))),
        ["orders_client", "nothing_client"]
    );
    assert_eq!(
        modules(generated!(ringway_build::configure().build_client(false))),
        ["orders_server", "nothing_server"]
    );
    let file = generated!(
        ringway_build::configure()
            .build_client(false)
            .build_server(false)
    );
    assert!(modules(file).is_empty());
    let file = generated!(ringway_build::configure().build_transport(false));
    assert!(functions(module(&file, "orders_client")).all(|f| f.sig.ident != "connect"));
}

fn compile(proto: &str, builder: ringway_build::Builder) -> (tempfile::TempDir, io::Result<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.proto");
    fs::write(&path, proto).unwrap();
    let result = builder
        .out_dir(dir.path())
        .compile_protos(&[path.as_path()], &[dir.path()]);
    (dir, result)
}

#[test]
fn proto_files_are_compiled_without_protoc() {
    let descriptors = tempfile::NamedTempFile::new().unwrap();
    let builder = || {
        ringway_build::configure()
            .include_file("all.rs")
            .protoc_arg("--experimental_allow_proto3_optional")
            .file_descriptor_set_path(descriptors.path())
    };
    let (dir, result) = compile(SHOP, builder());
    result.unwrap();
    let first = fs::read_to_string(dir.path().join("shop.v1.rs")).unwrap();
    let all = fs::read_to_string(dir.path().join("all.rs")).unwrap();
    assert!(
        all.contains("pub mod shop") && all.contains("pub mod v1"),
        "{all}"
    );

    let (dir, result) = compile("not read", builder().skip_protoc_run());
    result.unwrap();
    assert_eq!(
        fs::read_to_string(dir.path().join("shop.v1.rs")).unwrap(),
        first
    );
}

#[test]
fn a_mistake_in_a_proto_file_is_told_with_its_place() {
    let (_dir, result) = compile(
        "syntax = \"proto3\";\nmessage A {\n  Missing m = 1;\n}",
        ringway_build::configure(),
    );
    let message = result.unwrap_err().to_string();
    assert!(
        message.contains("Missing") && message.contains("3:3"),
        "{message}"
    );
}

#[test]
fn another_codec_is_refused_with_what_to_do() {
    let (_dir, result) = compile(SHOP, ringway_build::configure().codec_path("my::JsonCodec"));
    let message = result.unwrap_err().to_string();
    assert!(
        message.contains("my::JsonCodec") && message.contains("add_service"),
        "{message}"
    );
}

#[test]
fn the_generator_alone_serves_a_configuration_of_prosts() {
    let dir = tempfile::tempdir().unwrap();
    let fds = descriptors(dir.path());
    ringway_build::Config::new()
        .service_generator(ringway_build::configure().service_generator())
        .out_dir(dir.path())
        .compile_fds(fds)
        .unwrap();
    let source = fs::read_to_string(dir.path().join("shop.v1.rs")).unwrap();
    assert!(source.contains("LocalService for OrdersServer<T>"));
}

#[test]
fn a_blocking_client_is_made_where_it_is_asked_for() {
    let without = generated!(ringway_build::configure());
    let named =
        |item: &Item| matches!(item, Item::Mod(module) if module.ident == "orders_blocking_client");
    assert!(!without.items.iter().any(named));
    let ours = generated!(
        ringway_build::configure()
            .build_blocking_client(true)
            .client_mod_attribute("shop.v1", "#[cfg(feature = \"client\")]")
    );
    let blocking = module(&ours, "orders_blocking_client");
    let [asynchronous, attributes] = [module(&ours, "orders_client"), blocking]
        .map(|module| module.attrs.iter().map(tokens).collect::<Vec<_>>());
    assert_eq!(asynchronous, attributes);
    let source = tokens(blocking);
    assert!(source.contains("pub struct OrdersBlockingClient < T = ringway :: Channel >"));
    for (name, parts) in [
        (
            "place",
            [
                "impl tonic :: IntoRequest < super :: Order >",
                "super :: Receipt",
            ],
        ),
        (
            "watch",
            [
                "impl tonic :: IntoRequest < () >",
                "ringway :: blocking :: Responses < super :: Receipt >",
            ],
        ),
        (
            "import",
            [
                "impl ringway :: blocking :: IntoRequests < super :: Order , K >",
                "tonic :: Response < () >",
            ],
        ),
        (
            "r#match",
            [
                "IntoRequests < super :: Order , K , Iter : Send + 'static",
                "ringway :: blocking :: Responses < super :: Receipt >",
            ],
        ),
    ] {
        let function = functions(blocking).find(|function| function.sig.ident == name);
        let function = function.unwrap_or_else(|| panic!("no function {name}"));
        assert!(function.sig.asyncness.is_none());
        let signature = tokens(&function.sig);
        for part in parts {
            assert!(signature.contains(part), "{part} in {signature}");
        }
        let theirs = functions(module(&ours, "orders_client"))
            .find(|their| their.sig.ident == function.sig.ident)
            .unwrap();
        let documented =
            |function: &ImplItemFn| function.attrs.iter().map(tokens).collect::<Vec<_>>();
        assert_eq!(documented(function), documented(theirs));
    }
    module(&ours, "nothing_blocking_client");
}
