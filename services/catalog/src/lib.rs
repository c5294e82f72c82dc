//! The shop's products: looked up in batches, listed and searched.
#![forbid(unsafe_code)]

mod products;

use std::pin::Pin;

use ringway_proto::shop::v1::catalog_server::{Catalog as Contract, CatalogServer};
use ringway_proto::shop::v1::{GetProductsReply, GetProductsRequest, ListProductsRequest, Product};
use shop_link::{Address, Error};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

pub use products::Products;

/// Products in one `Get`.
const BATCH_MAX: usize = 100;
/// Products in one `List`.
const PAGE_MAX: usize = 1000;
/// Products in one `List` that does not say how many.
const PAGE_DEFAULT: usize = 50;

/// How the service is started.
#[derive(clap::Parser, Debug)]
#[command(about = "The shop's products: looked up in batches, listed and searched.")]
pub struct Args {
    /// Where to listen.
    #[arg(long, env = "SHOP_LISTEN", default_value = "127.0.0.1:50051")]
    pub listen: Address,
    /// By what else it is found.
    #[command(flatten)]
    pub names: shop_link::Names,
    /// How many products there are.
    #[arg(long, default_value_t = 1000)]
    pub products: u32,
}

/// Serves the catalog until `until` is ready.
///
/// # Errors
/// Those of [`shop_link::serve`].
pub async fn serve(args: Args, until: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let catalog = Catalog::new(Products::generate(args.products));
    shop_link::serve(
        &args.listen,
        &args.names,
        CatalogServer::new(catalog),
        until,
    )
    .await
}

/// The handler.
#[derive(Clone, Debug)]
pub struct Catalog {
    products: Products,
}

impl Catalog {
    /// A catalog of these products.
    #[must_use]
    pub fn new(products: Products) -> Self {
        Self { products }
    }

    fn batch(&self, request: &GetProductsRequest) -> Result<Vec<Product>, Status> {
        if request.ids.len() > BATCH_MAX {
            return Err(Status::invalid_argument(format!(
                "{} products asked for, at most {BATCH_MAX} at a time",
                request.ids.len()
            )));
        }
        let find = |&id: &u32| {
            let product = self.products.get(id).ok_or_else(|| {
                Status::not_found(format!("no product {id}: see the list of products"))
            })?;
            let mut found = product.without_description();
            if request.with_description {
                found.description = product.description().to_owned();
            }
            Ok(found)
        };
        request.ids.iter().map(find).collect()
    }
}

#[tonic::async_trait]
impl Contract for Catalog {
    type ListStream = Pin<Box<dyn Stream<Item = Result<Product, Status>> + Send>>;

    async fn get(
        &self,
        request: Request<GetProductsRequest>,
    ) -> Result<Response<GetProductsReply>, Status> {
        let products = self.batch(request.get_ref())?;
        Ok(Response::new(GetProductsReply { products }))
    }

    async fn list(
        &self,
        request: Request<ListProductsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let ListProductsRequest {
            after,
            limit,
            search,
        } = request.into_inner();
        let limit = match usize::try_from(limit).unwrap_or(usize::MAX) {
            0 => PAGE_DEFAULT,
            limit => limit.min(PAGE_MAX),
        };
        let page = self.products.page(after, limit, search);
        Ok(Response::new(Box::pin(tokio_stream::iter(page.map(Ok)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;
    use tonic::Code;

    fn catalog() -> Catalog {
        Catalog::new(Products::generate(1000))
    }

    async fn list(request: ListProductsRequest) -> Vec<u32> {
        let Ok(page) = catalog().list(Request::new(request)).await else {
            return Vec::new();
        };
        page.into_inner()
            .filter_map(|product| product.ok().map(|product| product.id))
            .collect()
            .await
    }

    #[test]
    fn a_batch_comes_in_the_order_asked() {
        let ask = |with_description| GetProductsRequest {
            ids: vec![9, 2, 9],
            with_description,
        };
        let brief = catalog().batch(&ask(false)).unwrap_or_default();
        assert_eq!(
            brief.iter().map(|product| product.id).collect::<Vec<_>>(),
            [9, 2, 9]
        );
        assert!(brief.iter().all(|product| product.description.is_empty()));
        let full = catalog().batch(&ask(true)).unwrap_or_default();
        assert!(full.iter().all(|product| !product.description.is_empty()));
    }

    #[test]
    fn what_cannot_be_found_says_so() {
        let code = |ids| {
            let request = GetProductsRequest {
                ids,
                with_description: false,
            };
            catalog().batch(&request).err().map(|status| status.code())
        };
        assert_eq!(code(vec![1, 1001]), Some(Code::NotFound));
        assert_eq!(code(vec![0]), Some(Code::NotFound));
        assert_eq!(code(vec![1; 101]), Some(Code::InvalidArgument));
    }

    #[tokio::test]
    async fn pages_follow_each_other() {
        let page = |after, limit| ListProductsRequest {
            after,
            limit,
            search: String::new(),
        };
        assert_eq!(list(page(0, 3)).await, [1, 2, 3]);
        assert_eq!(list(page(3, 2)).await, [4, 5]);
        assert_eq!(list(page(0, 0)).await.len(), PAGE_DEFAULT);
        assert_eq!(list(page(998, 50)).await, [999, 1000]);
        assert!(list(page(u32::MAX, 50)).await.is_empty());
    }

    #[tokio::test]
    async fn a_search_finds_words_in_any_case() {
        let search = |search: &str| ListProductsRequest {
            search: search.to_owned(),
            limit: 1000,
            after: 0,
        };
        let kettles = list(search("KETTLE")).await;
        assert!(!kettles.is_empty() && kettles.len() < 1000);
        assert!(list(search("no such thing")).await.is_empty());
    }
}
