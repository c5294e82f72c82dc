//! The services that an order needs, one method a call.

use bytes::Bytes;
use ringway_proto::shop::v1::catalog_client::CatalogClient;
use ringway_proto::shop::v1::inventory_client::InventoryClient;
use ringway_proto::shop::v1::media_client::MediaClient;
use ringway_proto::shop::v1::payments_client::PaymentsClient;
use ringway_proto::shop::v1::{
    AuthorizeRequest, Call, CancelPaymentRequest, CaptureRequest, CommitRequest,
    GetProductsRequest, Hop, Line, PreviewsRequest, Product, ReleaseRequest, ReserveRequest,
};
use shop_link::{Channel, Error, Peer, Timed, unary};
use tonic::Status;

use crate::Args;

/// A reply's content and the call that brought it.
type Answer<T> = Result<(T, Hop), Status>;

/// A client and the peer it calls; a clone of the client makes each call.
#[derive(Clone, Debug)]
struct Remote<C> {
    peer: Peer,
    client: C,
}

/// The other services of the shop.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    catalog: Remote<CatalogClient<Channel>>,
    inventory: Remote<InventoryClient<Channel>>,
    payments: Remote<PaymentsClient<Channel>>,
    media: Remote<MediaClient<Channel>>,
}

fn remote<C>(peer: Peer, client: impl FnOnce(Channel) -> C) -> Remote<C> {
    let client = client(peer.channel());
    Remote { peer, client }
}

fn hop<T>(call: Call, timed: &Timed<T>) -> Hop {
    Hop {
        call: call.into(),
        path: timed.path.into(),
        nanoseconds: timed.nanoseconds,
    }
}

impl Services {
    /// Nothing is called yet; services may still be starting.
    pub(crate) fn connect_lazy(args: &Args) -> Result<Self, Error> {
        let catalog = Peer::connect_lazy("catalog", &args.catalog)?;
        let inventory = Peer::connect_lazy("inventory", &args.inventory)?;
        let payments = Peer::connect_lazy("payments", &args.payments)?;
        let media = Peer::connect_lazy("media", &args.media)?;
        Ok(Self {
            catalog: remote(catalog, CatalogClient::new),
            inventory: remote(inventory, InventoryClient::new),
            payments: remote(payments, PaymentsClient::new),
            media: remote(media, MediaClient::new),
        })
    }

    /// Products in the order of `ids`, without descriptions.
    pub(crate) async fn products(&self, ids: Vec<u32>) -> Answer<Vec<Product>> {
        let Remote { peer, mut client } = self.catalog.clone();
        let request = GetProductsRequest {
            ids,
            with_description: false,
        };
        let timed = peer.timed(client.get(unary(request))).await?;
        let hop = hop(Call::CatalogGet, &timed);
        Ok((timed.reply.products, hop))
    }

    pub(crate) async fn reserve(&self, order: u64, lines: Vec<Line>) -> Answer<()> {
        let Remote { peer, mut client } = self.inventory.clone();
        let timed = peer
            .timed(client.reserve(unary(ReserveRequest { order, lines })))
            .await?;
        Ok(((), hop(Call::InventoryReserve, &timed)))
    }

    pub(crate) async fn commit(&self, order: u64) -> Answer<()> {
        let Remote { peer, mut client } = self.inventory.clone();
        let timed = peer
            .timed(client.commit(unary(CommitRequest { order })))
            .await?;
        Ok(((), hop(Call::InventoryCommit, &timed)))
    }

    pub(crate) async fn authorize(
        &self,
        order: u64,
        amount_cents: u64,
        card: String,
    ) -> Answer<()> {
        let Remote { peer, mut client } = self.payments.clone();
        let request = AuthorizeRequest {
            order,
            amount_cents,
            card,
        };
        let timed = peer.timed(client.authorize(unary(request))).await?;
        Ok(((), hop(Call::PaymentsAuthorize, &timed)))
    }

    pub(crate) async fn capture(&self, order: u64) -> Answer<()> {
        let Remote { peer, mut client } = self.payments.clone();
        let timed = peer
            .timed(client.capture(unary(CaptureRequest { order })))
            .await?;
        Ok(((), hop(Call::PaymentsCapture, &timed)))
    }

    pub(crate) async fn previews(&self, pictures: Vec<u32>) -> Answer<Vec<Bytes>> {
        let Remote { peer, mut client } = self.media.clone();
        let timed = peer
            .timed(client.previews(unary(PreviewsRequest { pictures })))
            .await?;
        let hop = hop(Call::MediaPreviews, &timed);
        Ok((timed.reply.previews, hop))
    }

    /// Gives stock and money back, whatever there is of either; can be repeated.
    pub(crate) async fn give_back(&self, order: u64) -> Result<(), Status> {
        let Remote {
            peer: inventory,
            client: mut stock,
        } = self.inventory.clone();
        let Remote {
            peer: payments,
            client: mut till,
        } = self.payments.clone();
        let (released, cancelled) = tokio::join!(
            inventory.timed(stock.release(unary(ReleaseRequest { order }))),
            payments.timed(till.cancel(unary(CancelPaymentRequest { order }))),
        );
        released?;
        cancelled?;
        Ok(())
    }
}
