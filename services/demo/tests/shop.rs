//! The whole shop in one process, through its HTTP edge.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use clap::Parser;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shop_link::Address;
use tower::ServiceExt;

/// A shop whose services run as tasks of the test's runtime.
struct Shop {
    gateway: Router,
}

/// Set where these tests run again over shared memory.
const OVER_SHM: &str = "SHOP_TEST_OVER_SHM";

/// An address that nobody has.
fn address() -> Address {
    let free = shop_demo::free_port().unwrap();
    match std::env::var_os(OVER_SHM) {
        Some(_) => Address::Shm(free.to_string()),
        None => Address::Tcp(free.to_string()),
    }
}

fn path() -> &'static str {
    std::env::var_os(OVER_SHM).map_or("grpc-tcp", |_| "shm")
}

/// Where services of this process are found by their names.
fn directory() -> PathBuf {
    std::env::var_os("RINGWAY_DIR").map_or_else(PathBuf::new, PathBuf::from)
}

async fn forever() {
    std::future::pending().await
}

impl Shop {
    /// Five units of each product.
    async fn open() -> Self {
        let [catalog, inventory, media, payments, orders] = std::array::from_fn(|_| address());
        let listen = |address: &Address| address.clone();

        let mut args = shop_catalog::Args::parse_from(["catalog"]);
        args.listen = listen(&catalog);
        tokio::spawn(shop_catalog::serve(args, forever()));
        let mut args = shop_inventory::Args::parse_from(["inventory", "--stock", "5"]);
        args.listen = listen(&inventory);
        tokio::spawn(shop_inventory::serve(args, forever()));
        let mut args = shop_media::Args::parse_from(["media"]);
        args.listen = listen(&media);
        tokio::spawn(shop_media::serve(args, forever()));
        let mut args = shop_payments::Args::parse_from(["payments"]);
        args.listen = listen(&payments);
        tokio::spawn(shop_payments::serve(args, forever()));
        let listen = orders.clone();
        let args = shop_orders::Args {
            listen,
            names: shop_link::Names::default(),
            catalog: catalog.clone(),
            inventory: inventory.clone(),
            media: media.clone(),
            payments,
        };
        tokio::spawn(shop_orders::serve(args, forever()));

        for service in [&catalog, &inventory, &media, &orders] {
            wait_for(service).await;
        }
        let listen = "127.0.0.1:0".parse().unwrap();
        let args = shop_gateway::Args {
            listen,
            orders,
            catalog,
            inventory,
            media,
        };
        Self {
            gateway: shop_gateway::router(&args).unwrap(),
        }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.gateway.clone().oneshot(request).await.unwrap()
    }

    async fn ask(&self, method: Method, uri: &str, body: &Value) -> (StatusCode, Value) {
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .body(body)
            .unwrap();
        let response = self.send(request).await;
        let status = response.status();
        (
            status,
            serde_json::from_slice(&read(response).await).unwrap(),
        )
    }

    async fn get(&self, uri: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, uri, &Value::Null).await
    }

    async fn place(&self, body: Value) -> (StatusCode, Value) {
        self.ask(Method::POST, "/orders", &body).await
    }

    async fn available(&self, product: u32) -> Value {
        self.get(&format!("/products/{product}")).await.1["available"].clone()
    }
}

async fn wait_for(service: &Address) {
    for _ in 0..500 {
        if shop_link::answers(&directory(), service).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{service} does not come up");
}

async fn read(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

fn one_line(product: u32, quantity: u32) -> Value {
    json!({ "lines": [{ "product": product, "quantity": quantity }], "card": "visa" })
}

#[tokio::test]
async fn an_order_is_priced_charged_and_taken_from_stock() {
    let shop = Shop::open().await;
    let (_, first) = shop.get("/products/1").await;
    let (_, second) = shop.get("/products/2").await;
    let lines = json!([{ "product": 1, "quantity": 2 }, { "product": 2, "quantity": 1 }]);
    let (status, order) = shop
        .place(json!({ "lines": lines, "card": "visa", "report_hops": true }))
        .await;

    assert_eq!(
        (status, &order["status"]),
        (StatusCode::OK, &json!("confirmed")),
        "{order}"
    );
    let price = |product: &Value| product["price_cents"].as_u64().unwrap();
    assert_eq!(order["total_cents"], 2 * price(&first) + price(&second));
    assert_eq!(order["lines"][0]["name"], first["name"]);
    let preview = order["lines"][1]["preview"].as_str().unwrap();
    assert!(
        preview.starts_with("data:image/png;base64,iVBOR"),
        "{preview}"
    );
    assert_eq!(
        (shop.available(1).await, shop.available(2).await),
        (json!(3), json!(4))
    );

    let hops = order["hops"].as_array().unwrap();
    let calls: Vec<_> = hops
        .iter()
        .map(|hop| (&hop["service"], &hop["method"]))
        .collect();
    assert_eq!(hops.len(), 7, "{calls:?}");
    assert!(
        hops.iter()
            .all(|hop| hop["path"] == path() && hop["nanoseconds"] != 0)
    );

    let (_, known) = shop
        .get(&format!("/orders/{}", order["order"].as_str().unwrap()))
        .await;
    assert_eq!(known["total_cents"], order["total_cents"]);
    assert_eq!(known["hops"], Value::Null);
}

#[tokio::test]
async fn an_order_placed_again_is_the_same_order() {
    let shop = Shop::open().await;
    let mut body = one_line(3, 2);
    body["order"] = json!("00000000000000aa");
    let (_, first) = shop.place(body.clone()).await;
    let (status, again) = shop.place(body.clone()).await;
    assert_eq!((status, &again), (StatusCode::OK, &first));
    assert_eq!(shop.available(3).await, 3);
    body["lines"][0]["quantity"] = json!(1);
    let (status, refused) = shop.place(body).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (StatusCode::CONFLICT, &json!("ALREADY_EXISTS"))
    );
}

#[tokio::test]
async fn whatever_fails_an_order_gives_everything_back() {
    let shop = Shop::open().await;
    let (status, answer) = shop.place(one_line(4, 6)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["error"]["message"],
        "only 5 of product 4 are left: order fewer"
    );

    let mut declined = one_line(4, 2);
    declined["card"] = json!("declined");
    declined["order"] = json!("00000000000000bb");
    let (status, answer) = shop.place(declined).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert_eq!(
        shop.get("/orders/00000000000000bb").await.1["status"],
        "rejected"
    );

    let unknown = json!({ "lines": [{ "product": 4, "quantity": 1 }, { "product": 4000, "quantity": 1 }], "card": "visa" });
    assert_eq!(shop.place(unknown).await.0, StatusCode::NOT_FOUND);
    assert_eq!(shop.available(4).await, 5);
}

#[tokio::test]
async fn a_cancelled_order_goes_back_and_its_follower_hears_of_it() {
    let shop = Shop::open().await;
    let mut body = one_line(5, 5);
    body["order"] = json!("00000000000000cc");
    assert_eq!(shop.place(body).await.0, StatusCode::OK);
    assert_eq!(shop.available(5).await, 0);

    let follow = Request::get("/orders/00000000000000cc/events")
        .body(Body::empty())
        .unwrap();
    let mut events = shop.send(follow).await.into_body();
    let first = events.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "event: status\ndata: confirmed\n\n");

    for _ in 0..2 {
        let (status, order) = shop
            .ask(Method::DELETE, "/orders/00000000000000cc", &Value::Null)
            .await;
        assert_eq!(
            (status, &order["status"]),
            (StatusCode::OK, &json!("cancelled"))
        );
    }
    assert_eq!(shop.available(5).await, 5);
    let rest = events.collect().await.unwrap().to_bytes();
    assert_eq!(rest, "event: status\ndata: cancelled\n\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_oversold_through_the_edge() {
    let shop = std::sync::Arc::new(Shop::open().await);
    let buyers: Vec<_> = (0..20)
        .map(|_| {
            let shop = std::sync::Arc::clone(&shop);
            tokio::spawn(async move { shop.place(one_line(6, 1)).await.0 })
        })
        .collect();
    let mut sold = 0;
    for buyer in buyers {
        match buyer.await.unwrap() {
            StatusCode::OK => sold += 1,
            other => assert_eq!(other, StatusCode::CONFLICT),
        }
    }
    assert_eq!((sold, shop.available(6).await), (5, json!(0)));
}

#[tokio::test]
async fn products_are_listed_searched_and_delivered() {
    let shop = Shop::open().await;
    let (_, page) = shop.get("/products?after=10&limit=3").await;
    let ids: Vec<_> = page
        .as_array()
        .unwrap()
        .iter()
        .map(|product| &product["id"])
        .collect();
    assert_eq!(ids, [11, 12, 13]);
    let (_, lamps) = shop.get("/products?search=lamp").await;
    assert!(lamps[0]["name"].as_str().unwrap().contains("Lamp"));

    let delivery = json!([{ "product": 7, "quantity": 10 }, { "product": 7, "quantity": 5 }]);
    let (_, reply) = shop.ask(Method::POST, "/deliveries", &delivery).await;
    assert_eq!(reply, json!({ "lines": 2, "units": 15 }));
    assert_eq!(shop.available(7).await, 20);
}

#[tokio::test]
async fn a_picture_is_streamed_fetched_and_replaced() {
    let shop = Shop::open().await;
    let get = |uri: &'static str| Request::get(uri).body(Body::empty()).unwrap();
    let streamed = shop.send(get("/products/8/picture")).await;
    assert_eq!(streamed.headers()[CONTENT_TYPE], "image/png");
    let length = streamed.headers()[CONTENT_LENGTH]
        .to_str()
        .unwrap()
        .to_owned();
    let streamed = read(streamed).await;
    assert_eq!(streamed.len().to_string(), length);
    assert_eq!(read(shop.send(get("/pictures/8")).await).await, streamed);

    let put = |length: usize| {
        Request::put("/products/8/picture")
            .header(CONTENT_TYPE, "image/webp")
            .header(CONTENT_LENGTH, length)
            .body(Body::from(vec![7; 300_000]))
            .unwrap()
    };
    assert_eq!(shop.send(put(400_000)).await.status(), StatusCode::CONFLICT);
    assert_eq!(read(shop.send(get("/pictures/8")).await).await, streamed);
    assert_eq!(shop.send(put(300_000)).await.status(), StatusCode::OK);
    let replaced = shop.send(get("/products/8/picture")).await;
    assert_eq!(replaced.headers()[CONTENT_TYPE], "image/webp");
    assert_eq!(read(replaced).await, vec![7; 300_000]);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told_what_to_do() {
    let shop = Shop::open().await;
    let code = async |method: Method, uri: &str, body: &str| {
        let request = Request::builder().method(method).uri(uri);
        let response = shop
            .send(request.body(Body::from(body.to_owned())).unwrap())
            .await;
        let status = response.status().as_u16();
        let answer: Value = serde_json::from_slice(&read(response).await).unwrap();
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
        status
    };
    assert_eq!(code(Method::POST, "/orders", "{").await, 400);
    assert_eq!(
        code(Method::POST, "/orders", r#"{"lines":[],"card":"visa"}"#).await,
        400
    );
    assert_eq!(
        code(Method::POST, "/orders", &" ".repeat(2 << 20)).await,
        413
    );
    assert_eq!(code(Method::GET, "/orders/12", "").await, 400);
    assert_eq!(code(Method::GET, "/orders/00000000000000ff", "").await, 404);
    assert_eq!(code(Method::PATCH, "/orders", "").await, 405);
    assert_eq!(code(Method::GET, "/products/none", "").await, 400);
    assert_eq!(code(Method::GET, "/products/1001", "").await, 404);
    assert_eq!(code(Method::GET, "/products?limit=many", "").await, 400);
    assert_eq!(code(Method::GET, "/pictures/1001", "").await, 404);
    assert_eq!(code(Method::PUT, "/products/1/picture", "x").await, 411);
    assert_eq!(code(Method::GET, "/nowhere", "").await, 404);
    assert_eq!(
        code(Method::POST, "/deliveries", r#"[{"product":1}]"#).await,
        400
    );
}

#[tokio::test]
async fn a_shop_without_services_says_that_they_are_missing() {
    let nobody = [(); 4].map(|()| address());
    let [orders, catalog, inventory, media] = nobody;
    let listen = "127.0.0.1:0".parse().unwrap();
    let args = shop_gateway::Args {
        listen,
        orders,
        catalog,
        inventory,
        media,
    };
    let shop = Shop {
        gateway: shop_gateway::router(&args).unwrap(),
    };
    let request = Request::post("/orders")
        .body(Body::from(one_line(1, 1).to_string()))
        .unwrap();
    let response = shop.send(request).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    let answer: Value = serde_json::from_slice(&read(response).await).unwrap();
    // Which service, and why, is for the log alone.
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!(message, "a service can't be reached: try again", "{answer}");
}

/// The same tests in a process of their own, whose environment names a directory of its own.
#[test]
fn shared_memory_changes_nothing() {
    if std::env::var_os(OVER_SHM).is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .env(OVER_SHM, "1")
        .env("RINGWAY_DIR", directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}
