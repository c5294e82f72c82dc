//! The client: tonic's module with our caller in it. Attributes, documentation, signatures and bounds
//! stay as tonic wrote them; what the client holds and what its methods do is ours.

use proc_macro2::Literal;
use syn::visit_mut::{self, VisitMut};
use syn::{
    GenericParam, Ident, ImplItem, ImplItemFn, Item, ItemImpl, ItemMod, ItemStruct, Path,
    TypeParam, parse_quote,
};

use crate::{
    error::Error,
    plan::{MethodPlan, ServicePlan},
    stubs::items,
};

/// Constructors, which find out whether a channel of ours is called: by its type, and so by a type
/// that borrows nothing.
const CONSTRUCTORS: [&str; 3] = ["new", "with_origin", "with_interceptor"];

/// Replaces the content of tonic's client module.
pub(crate) fn rewrite(
    module: &mut ItemMod,
    plan: &ServicePlan,
    build_transport: bool,
) -> Result<(), Error> {
    let items = items(module, plan)?;
    let client = find_struct(items, plan)?.ident.clone();
    let calls = calls(items, plan)?;
    items.retain(|item| !is_connect(item));
    for item in items.iter_mut() {
        match item {
            Item::Struct(structure) => over_our_channel(structure),
            Item::Impl(block) => over_anything(block, &client, &calls),
            _ => {}
        }
        OursForGrpc.visit_item_mut(item);
    }
    let structure = items
        .iter()
        .position(|item| matches!(item, Item::Struct(_)));
    let structure = structure.unwrap_or_default();
    if build_transport {
        items.insert(structure + 1, connect(&client));
    }
    let table = plan.table();
    items.insert(structure, parse_quote!(#table));
    Ok(())
}

/// Whether it is `connect`'s block, the only one that is not generic.
fn is_connect(item: &Item) -> bool {
    matches!(item, Item::Impl(block) if block.generics.params.is_empty())
}

fn over_our_channel(structure: &mut ItemStruct) {
    for parameter in &mut structure.generics.params {
        if let GenericParam::Type(TypeParam { default, .. }) = parameter {
            *default = Some(parse_quote!(ringway::Channel));
        }
    }
}

/// The block of all that a client can do.
fn over_anything(block: &mut ItemImpl, client: &Ident, calls: &[ImplItemFn]) {
    let mut calls = calls.iter();
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else {
            continue;
        };
        if function.sig.asyncness.is_some() {
            if let Some(call) = calls.next() {
                *function = call.clone();
            }
            continue;
        }
        let name = function.sig.ident.to_string();
        if CONSTRUCTORS.contains(&name.as_str()) {
            let bounds = function.sig.generics.make_where_clause();
            bounds.predicates.push(parse_quote!(T: 'static));
        }
        if name == "with_interceptor" {
            function.block = parse_quote! {{
                let inner = ringway::codegen::Client::with_interceptor(inner, interceptor);
                #client { inner }
            }};
        }
    }
}

/// `ringway::codegen::Client` in place of `tonic::client::Grpc`.
struct OursForGrpc;

impl VisitMut for OursForGrpc {
    fn visit_path_mut(&mut self, found: &mut Path) {
        visit_mut::visit_path_mut(self, found);
        let names: Vec<String> = found
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if let ["tonic", "client", "Grpc", rest @ ..] = names.as_slice() {
            let rest = found.segments.iter().skip(names.len() - rest.len());
            let rest: Vec<_> = rest.cloned().collect();
            let arguments = &found.segments[2].arguments;
            *found = parse_quote!(ringway::codegen::Client #arguments #(:: #rest)*);
        }
    }
}

pub(crate) fn find_struct<'a>(
    items: &'a [Item],
    plan: &ServicePlan,
) -> Result<&'a ItemStruct, Error> {
    let name = format!("{}Client", plan.rust_name);
    items
        .iter()
        .find_map(|item| match item {
            Item::Struct(item) if item.ident == name => Some(item),
            _ => None,
        })
        .ok_or_else(|| plan.unknown_shape(&format!("struct {name}")))
}

/// The block of all that a client can do: the one that is generic.
pub(crate) fn generic_block<'a>(
    items: &'a [Item],
    plan: &ServicePlan,
) -> Result<&'a ItemImpl, Error> {
    let block = items.iter().find_map(|item| match item {
        Item::Impl(block) if !block.generics.params.is_empty() => Some(block),
        _ => None,
    });
    block.ok_or_else(|| plan.unknown_shape("generic client"))
}

/// tonic's methods, in the order of the table.
pub(crate) fn stubs_of<'a>(
    items: &'a [Item],
    plan: &ServicePlan,
) -> Result<Vec<&'a ImplItemFn>, Error> {
    let stubs: Vec<&ImplItemFn> = items
        .iter()
        .filter_map(|item| match item {
            // The one other impl block is `connect`'s, which is not generic.
            Item::Impl(block) if !block.generics.params.is_empty() => Some(block),
            _ => None,
        })
        .flat_map(async_functions)
        .collect();
    if stubs.len() != plan.methods.len() {
        return Err(plan.unknown_shape("stub for each method"));
    }
    Ok(stubs)
}

/// The same with our bodies.
fn calls(items: &[Item], plan: &ServicePlan) -> Result<Vec<ImplItemFn>, Error> {
    let stubs = stubs_of(items, plan)?;
    let call = |(index, (method, stub)): (usize, (&MethodPlan, &&ImplItemFn))| {
        let index = Literal::usize_unsuffixed(index);
        let (kind, into_request) = (method.kind.ident(), method.kind.into_request());
        ImplItemFn {
            block: parse_quote! {{
                self.inner.#kind(&METHODS[#index], #into_request).await
            }},
            ..(*stub).clone()
        }
    };
    Ok(plan
        .methods
        .iter()
        .zip(&stubs)
        .enumerate()
        .map(call)
        .collect())
}

fn async_functions(block: &ItemImpl) -> impl Iterator<Item = &ImplItemFn> {
    block.items.iter().filter_map(|item| match item {
        ImplItem::Fn(function) if function.sig.asyncness.is_some() => Some(function),
        _ => None,
    })
}

fn connect(client: &Ident) -> Item {
    parse_quote! {
        impl #client<ringway::Channel> {
            /// Attempt to create a new client by connecting to a given endpoint.
            pub async fn connect<D>(dst: D) -> std::result::Result<Self, ringway::Error>
            where
                D: TryInto<ringway::Endpoint>,
                D::Error: Into<StdError>,
            {
                Ok(Self::new(ringway::Endpoint::new(dst)?.connect().await?))
            }
        }
    }
}
