//! The client: tonic's module with our transport in it. Attributes, documentation and signatures
//! stay as tonic wrote them; fields, constructors and bodies are ours.

use proc_macro2::{Literal, TokenStream};
use quote::quote;
use syn::{Ident, ImplItem, ImplItemFn, Item, ItemImpl, ItemMod, ItemStruct, parse_quote};

use crate::{
    error::Error,
    plan::{MethodPlan, ServicePlan},
    stubs::items,
};

/// Replaces the content of tonic's client module.
pub(crate) fn rewrite(
    module: &mut ItemMod,
    plan: &ServicePlan,
    build_transport: bool,
) -> Result<(), Error> {
    let items = items(module, plan)?;
    let tonics = find_struct(items, plan)?;
    let client = tonics.ident.clone();
    let structure = structure(tonics);
    let calls = calls(items, plan)?;
    let table = plan.table();

    let mut ours: Vec<Item> = vec![
        parse_quote!(
            use tonic::codegen::*;
        ),
        parse_quote!(#table),
        structure,
    ];
    if build_transport {
        ours.push(connect(&client));
    }
    ours.push(implementation(&client, &calls));
    *items = ours;
    Ok(())
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

fn structure(tonics: &ItemStruct) -> Item {
    let ItemStruct { attrs, ident, .. } = tonics;
    parse_quote! {
        #(#attrs)*
        pub struct #ident<T = ringway::Channel> {
            inner: T,
            options: ringway::codegen::CallOptions,
        }
    }
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
                self.inner.#kind(&METHODS[#index], &self.options, #into_request).await
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
                D::Error: Into<ringway::Error>,
            {
                let endpoint: ringway::Endpoint = dst.try_into().map_err(Into::into)?;
                Ok(Self::new(endpoint.connect().await?))
            }
        }
    }
}

fn implementation(client: &Ident, calls: &[ImplItemFn]) -> Item {
    let settings = settings();
    parse_quote! {
        impl<T> #client<T>
        where
            T: ringway::codegen::Caller,
        {
            pub fn new(inner: T) -> Self {
                Self { inner, options: Default::default() }
            }

            pub fn with_interceptor<F>(
                inner: T,
                interceptor: F,
            ) -> #client<ringway::codegen::Intercepted<T, F>>
            where
                F: tonic::service::Interceptor,
                ringway::codegen::Intercepted<T, F>: ringway::codegen::Caller,
            {
                #client::new(ringway::codegen::Intercepted::new(inner, interceptor))
            }

            #settings

            #(#calls)*
        }
    }
}

fn settings() -> TokenStream {
    quote! {
        /// Compress requests with the given encoding where they cross a network.
        ///
        /// This requires the server to support it otherwise it might respond with an
        /// error.
        #[must_use]
        pub fn send_compressed(mut self, encoding: CompressionEncoding) -> Self {
            self.options.send_compression = Some(encoding);
            self
        }

        /// Enable decompressing responses.
        #[must_use]
        pub fn accept_compressed(mut self, encoding: CompressionEncoding) -> Self {
            self.options.accept_compression.push(encoding);
            self
        }

        /// Limits the maximum size of a decoded message.
        ///
        /// Default: `4MB`
        #[must_use]
        pub fn max_decoding_message_size(mut self, limit: usize) -> Self {
            self.options.limits.decoding = Some(limit);
            self
        }

        /// Limits the maximum size of an encoded message.
        ///
        /// Default: `usize::MAX`
        #[must_use]
        pub fn max_encoding_message_size(mut self, limit: usize) -> Self {
            self.options.limits.encoding = Some(limit);
            self
        }
    }
}
