//! Who orders: through the gateway as a browser does, or straight at `orders`.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use ringway_proto::shop::v1::orders_client::OrdersClient;
use ringway_proto::shop::v1::{Call, Line, OrderStatus, PlaceOrderRequest};
use serde::Deserialize;
use shop_link::{Channel, Peer, path_name, unary};
use tokio::net::TcpStream;

use crate::Error;

/// Products of the catalog that the demo orders.
const PRODUCTS: u64 = 1000;
/// Any token but `declined`.
const CARD: &str = "demo";

/// One call that an order made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HopSeen {
    pub(crate) path: &'static str,
    pub(crate) nanoseconds: u64,
}

/// One customer, who orders again when the last order is through.
#[derive(Debug)]
pub(crate) enum Shopper {
    /// Over one connection that is kept.
    Http {
        gateway: SendRequest<Full<Bytes>>,
        host: HeaderValue,
    },
    /// Over the path itself.
    Direct {
        peer: Peer,
        orders: OrdersClient<Channel>,
    },
}

impl Shopper {
    pub(crate) async fn http(gateway: &str) -> Result<Self, Error> {
        let sender = connect(gateway).await?;
        let host = HeaderValue::from_str(gateway);
        let host = host.unwrap_or(HeaderValue::from_static("localhost"));
        Ok(Self::Http {
            gateway: sender,
            host,
        })
    }

    pub(crate) fn direct(peer: &Peer) -> Self {
        Self::Direct {
            peer: peer.clone(),
            orders: OrdersClient::new(peer.channel()),
        }
    }

    /// Places order number `n`, which decides what is in it.
    pub(crate) async fn order(&mut self, n: u64, hops: &mut Vec<HopSeen>) -> Result<(), Error> {
        hops.clear();
        match self {
            Self::Http { gateway, host } => over_http(gateway, host, n, hops).await,
            Self::Direct { peer, orders } => over_path(peer, orders, n, hops).await,
        }
    }
}

/// A connection for one HTTP request after the other.
pub(crate) async fn connect(address: &str) -> Result<SendRequest<Full<Bytes>>, Error> {
    let unreachable = |source| Error::Unreachable {
        address: address.to_owned(),
        source,
    };
    let connection = TcpStream::connect(address).await.map_err(unreachable)?;
    connection.set_nodelay(true).map_err(unreachable)?;
    let (sender, driver) = handshake(TokioIo::new(connection)).await?;
    tokio::spawn(driver);
    Ok(sender)
}

/// Two different products, 1 to 3 of each.
fn cart(n: u64) -> [Line; 2] {
    let dice = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    let line = |product: u64, quantity: u64| Line {
        product: u32::try_from(1 + product % PRODUCTS).unwrap_or(1),
        quantity: u32::try_from(1 + quantity % 3).unwrap_or(1),
    };
    let first = dice % PRODUCTS;
    let second = first + 1 + (dice >> 20) % (PRODUCTS - 1);
    [line(first, dice >> 40), line(second, dice >> 42)]
}

#[derive(Deserialize)]
struct Placed<'a> {
    status: &'a str,
    hops: Vec<PlacedHop<'a>>,
}

#[derive(Deserialize)]
struct PlacedHop<'a> {
    path: &'a str,
    nanoseconds: u64,
}

async fn over_http(
    gateway: &mut SendRequest<Full<Bytes>>,
    host: &HeaderValue,
    n: u64,
    hops: &mut Vec<HopSeen>,
) -> Result<(), Error> {
    let [first, second] = cart(n);
    let body = format!(
        r#"{{"lines":[{{"product":{},"quantity":{}}},{{"product":{},"quantity":{}}}],"card":"{CARD}","report_hops":true}}"#,
        first.product, first.quantity, second.product, second.quantity
    );
    let mut request = Request::new(Full::from(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/orders");
    let headers = request.headers_mut();
    headers.insert(HOST, host.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    gateway.ready().await?;
    let response = gateway.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status != StatusCode::OK {
        let body = String::from_utf8_lossy(&body).into_owned();
        return Err(Error::Refused { status, body });
    }
    let placed: Placed<'_> = serde_json::from_slice(&body)?;
    if placed.status != "confirmed" {
        return Err(Error::NotConfirmed(placed.status.to_owned()));
    }
    hops.extend(placed.hops.iter().map(|hop| HopSeen {
        path: known_name(hop.path),
        nanoseconds: hop.nanoseconds,
    }));
    Ok(())
}

/// The same name, for ever.
fn known_name(name: &str) -> &'static str {
    use ringway_proto::shop::v1::Path;
    [
        Path::Shm,
        Path::Socket,
        Path::GrpcUnix,
        Path::GrpcTcp,
        Path::Inproc,
    ]
    .map(path_name)
    .into_iter()
    .find(|known| *known == name)
    .unwrap_or("unknown")
}

async fn over_path(
    peer: &Peer,
    orders: &mut OrdersClient<Channel>,
    n: u64,
    hops: &mut Vec<HopSeen>,
) -> Result<(), Error> {
    let request = PlaceOrderRequest {
        order: 0,
        lines: cart(n).to_vec(),
        card: CARD.to_owned(),
        report_hops: true,
    };
    let timed = peer
        .timed(orders.place(unary(request)))
        .await
        .map_err(Box::new)?;
    if timed.reply.status() != OrderStatus::Confirmed {
        return Err(Error::NotConfirmed(
            timed.reply.status().as_str_name().to_owned(),
        ));
    }
    debug_assert!(
        timed
            .reply
            .hops
            .iter()
            .all(|hop| hop.call() != Call::OrdersPlace)
    );
    hops.extend(timed.reply.hops.iter().map(|hop| HopSeen {
        path: path_name(hop.path()),
        nanoseconds: hop.nanoseconds,
    }));
    hops.push(HopSeen {
        path: path_name(timed.path),
        nanoseconds: timed.nanoseconds,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carts_hold_two_different_products_that_exist() {
        for n in 0..10_000 {
            let [first, second] = cart(n);
            assert_ne!(first.product, second.product, "{n}");
            for line in [first, second] {
                assert!((1..=1000).contains(&line.product) && (1..=3).contains(&line.quantity));
            }
        }
    }
}
