//! The services behind the edge, and the calls that a request makes to them.

use ringway_proto::shop::v1::catalog_client::CatalogClient;
use ringway_proto::shop::v1::inventory_client::InventoryClient;
use ringway_proto::shop::v1::media_client::MediaClient;
use ringway_proto::shop::v1::orders_client::OrdersClient;
use ringway_proto::shop::v1::{GetProductsRequest, Product};
use shop_link::{Channel, Peer, unary};

use crate::Args;
use crate::error::Problem;

/// What every request handler has; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    pub(crate) orders_peer: Peer,
    orders: OrdersClient<Channel>,
    catalog: CatalogClient<Channel>,
    inventory: InventoryClient<Channel>,
    media: MediaClient<Channel>,
}

impl Shop {
    /// Nothing is called yet; services may still be starting.
    pub(crate) fn connect_lazy(args: &Args) -> Result<Self, shop_link::Error> {
        let orders_peer = Peer::connect_lazy("orders", &args.orders)?;
        let catalog = Peer::connect_lazy("catalog", &args.catalog)?;
        let inventory = Peer::connect_lazy("inventory", &args.inventory)?;
        let media = Peer::connect_lazy("media", &args.media)?;
        Ok(Self {
            orders: OrdersClient::new(orders_peer.channel()),
            catalog: CatalogClient::new(catalog.channel()),
            inventory: InventoryClient::new(inventory.channel()),
            media: MediaClient::new(media.channel()),
            orders_peer,
        })
    }

    pub(crate) fn orders(&self) -> OrdersClient<Channel> {
        self.orders.clone()
    }

    pub(crate) fn catalog(&self) -> CatalogClient<Channel> {
        self.catalog.clone()
    }

    pub(crate) fn inventory(&self) -> InventoryClient<Channel> {
        self.inventory.clone()
    }

    pub(crate) fn media(&self) -> MediaClient<Channel> {
        self.media.clone()
    }

    /// One product with its description.
    pub(crate) async fn product(&self, id: u32) -> Result<Product, Problem> {
        let request = GetProductsRequest {
            ids: vec![id],
            with_description: true,
        };
        let reply = self.catalog().get(unary(request)).await?.into_inner();
        reply
            .products
            .into_iter()
            .next()
            .ok_or(Problem::internal("catalog answered nothing"))
    }
}
