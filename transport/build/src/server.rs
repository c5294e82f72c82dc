//! The server: tonic's module, and beside what is in it the way in for calls without HTTP types.
//!
//! Of what is there, one thing changes: the service's future has a type of its own, by which a server
//! tells the service from whatever may be wrapped around it.

use proc_macro2::{Literal, TokenStream};
use quote::{format_ident, quote};
use syn::{
    FnArg, Ident, ImplItem, Item, ItemImpl, ItemMod, ItemTrait, TraitItem, TraitItemFn, Type,
    parse_quote,
};

use crate::{
    error::Error,
    plan::{MethodPlan, ServicePlan},
    stubs::items,
};

/// Adds `LocalService` to tonic's server module, and the way to find it.
pub(crate) fn extend(
    module: &mut ItemMod,
    plan: &ServicePlan,
    use_arc_self: bool,
) -> Result<(), Error> {
    let items = items(module, plan)?;
    let handler = find_trait(items, plan)?;
    let arms = arms(handler, plan, use_arc_self)?;
    let local_service = local_service(
        &handler.ident,
        &format_ident!("{}Server", plan.rust_name),
        &arms,
    );
    answer_probes(items, plan)?;
    let table: Item = syn::parse2(plan.table()).map_err(|source| syntax(plan, source))?;
    items.push(table);
    items.push(local_service);
    Ok(())
}

/// Gives the service a future of its own type, and has it answer a server that looks for
/// `LocalService`.
fn answer_probes(items: &mut [Item], plan: &ServicePlan) -> Result<(), Error> {
    let service = items.iter_mut().find_map(|item| match item {
        Item::Impl(block) if implements_service(block) => Some(block),
        _ => None,
    });
    let service = service.ok_or_else(|| plan.unknown_shape("tower service"))?;
    let (mut future, mut call) = (false, false);
    for item in &mut service.items {
        match item {
            ImplItem::Type(item) if item.ident == "Future" => {
                item.ty = parse_quote!(ringway::codegen::Answer<Self>);
                future = true;
            }
            ImplItem::Fn(function) if function.sig.ident == "call" => {
                let block = &function.block;
                function.block = parse_quote! {{
                    if ringway::codegen::is_probe(&req) {
                        return ringway::codegen::Answer::found(self.clone());
                    }
                    let answer: BoxFuture<Self::Response, Self::Error> = #block;
                    ringway::codegen::Answer::new(answer)
                }};
                call = true;
            }
            _ => {}
        }
    }
    if future && call {
        Ok(())
    } else {
        Err(plan.unknown_shape("future and call in the tower service"))
    }
}

fn implements_service(block: &ItemImpl) -> bool {
    let name = block
        .trait_
        .as_ref()
        .and_then(|(_, name, _)| name.segments.last());
    name.is_some_and(|name| name.ident == "Service")
}

fn find_trait<'a>(items: &'a [Item], plan: &ServicePlan) -> Result<&'a ItemTrait, Error> {
    items
        .iter()
        .find_map(|item| match item {
            Item::Trait(item) if item.ident == plan.rust_name => Some(item),
            _ => None,
        })
        .ok_or_else(|| plan.unknown_shape(&format!("trait {}", plan.rust_name)))
}

/// One arm a method: its index in the table, which both ends count alike.
fn arms(
    handler: &ItemTrait,
    plan: &ServicePlan,
    use_arc_self: bool,
) -> Result<Vec<TokenStream>, Error> {
    let functions: Vec<&TraitItemFn> = handler
        .items
        .iter()
        .filter_map(|item| match item {
            TraitItem::Fn(function) => Some(function),
            _ => None,
        })
        .collect();
    if functions.len() != plan.methods.len() {
        return Err(plan.unknown_shape("function for each method"));
    }
    let service = &handler.ident;
    let receiver = if use_arc_self {
        quote!(inner)
    } else {
        quote!(&inner)
    };
    let arm = |(index, (method, function)): (usize, (&MethodPlan, &&TraitItemFn))| {
        let request = request_type(function)
            .ok_or_else(|| plan.unknown_shape(&format!("request in {}", method.proto_name)))?;
        let index = Literal::usize_unsuffixed(index);
        let (kind, name) = (method.kind.ident(), &function.sig.ident);
        Ok(quote! {
            #index => call.#kind(limits, move |request: #request| async move {
                <T as #service>::#name(#receiver, request).await
            })
        })
    };
    plan.methods
        .iter()
        .zip(&functions)
        .enumerate()
        .map(arm)
        .collect()
}

/// The type of the argument after `self`, as tonic wrote it.
fn request_type(function: &TraitItemFn) -> Option<&Type> {
    match function.sig.inputs.iter().nth(1)? {
        FnArg::Typed(argument) => Some(&argument.ty),
        FnArg::Receiver(_) => None,
    }
}

fn local_service(handler: &Ident, server: &Ident, arms: &[TokenStream]) -> Item {
    let dispatch = if arms.is_empty() {
        quote!(call.unimplemented())
    } else {
        quote! {
            let limits = ringway::codegen::MessageLimits {
                decoding: self.max_decoding_message_size,
                encoding: self.max_encoding_message_size,
            };
            let inner = Arc::clone(&self.inner);
            match index {
                #(#arms,)*
                _ => call.unimplemented(),
            }
        }
    };
    parse_quote! {
        impl<T: #handler> ringway::codegen::LocalService for #server<T> {
            fn methods(&self) -> &'static [ringway::codegen::Method] {
                &METHODS
            }

            fn max_decoding_bytes(&self) -> usize {
                let limits = ringway::codegen::MessageLimits {
                    decoding: self.max_decoding_message_size,
                    encoding: None,
                };
                limits.max_decoding()
            }

            fn dispatch(
                &self,
                index: usize,
                call: ringway::codegen::ServerCall<'_>,
            ) -> ringway::codegen::HandlerFuture {
                #dispatch
            }
        }
    }
}

fn syntax(plan: &ServicePlan, source: syn::Error) -> Error {
    Error::Syntax {
        service: plan.full_name.clone(),
        source,
    }
}
