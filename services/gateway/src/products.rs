//! `/products` and `/deliveries`: what there is to buy, and what comes in.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use ringway_proto::shop::v1::{LevelsRequest, Line, ListProductsRequest, Product};
use serde::{Deserialize, Serialize};
use shop_link::unary;

use crate::error::Problem;
use crate::json::{Json, LineJson, ProductJson, Raw, read};
use crate::shop::Shop;

/// Which products; all three are optional.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub(crate) struct Page {
    after: u32,
    limit: u32,
    search: String,
}

pub(crate) async fn list(
    State(shop): State<Shop>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Page {
        after,
        limit,
        search,
    }) = page.map_err(|rejection| Problem::bad(rejection.body_text()))?;
    let request = ListProductsRequest {
        after,
        limit,
        search,
    };
    let mut products = shop.catalog().list(request).await?.into_inner();
    let mut page: Vec<Product> = Vec::new();
    while let Some(product) = products.message().await? {
        page.push(product);
    }
    let page: Vec<_> = page
        .iter()
        .map(|product| ProductJson::new(product, None))
        .collect();
    Ok(Json(page).into_response())
}

pub(crate) async fn get(
    State(shop): State<Shop>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = read_id(&id)?;
    let mut inventory = shop.inventory();
    let levels = inventory.levels(unary(LevelsRequest { products: vec![id] }));
    let (product, levels) = tokio::join!(shop.product(id), levels);
    let product = product?;
    let available = levels?
        .into_inner()
        .available
        .first()
        .map(|line| line.quantity);
    Ok(Json(ProductJson::new(&product, available)).into_response())
}

#[derive(Serialize)]
struct Delivered {
    lines: u32,
    units: u64,
}

/// Takes a delivery in: an array of lines.
pub(crate) async fn deliver(State(shop): State<Shop>, Raw(body): Raw) -> Result<Response, Problem> {
    let delivery = read::<Vec<LineJson>>(&body)?;
    let lines = tokio_stream::iter(delivery.into_iter().map(Line::from));
    let reply = shop.inventory().restock(lines).await?.into_inner();
    Ok(Json(Delivered {
        lines: reply.lines,
        units: reply.units,
    })
    .into_response())
}

/// A product's or picture's id out of a path.
pub(crate) fn read_id(text: &str) -> Result<u32, Problem> {
    text.parse()
        .map_err(|_| Problem::bad(format!("`{text}` is no id: ids are numbers from 1")))
}
