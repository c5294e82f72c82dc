//! The blocking client: a module beside tonic's, whose methods wait for those of the asynchronous
//! client. Attributes, documentation and types are tonic's again.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{
    AssocType, FnArg, Ident, ImplItem, ImplItemFn, ItemImpl, ItemMod, Type, TypePath,
    WherePredicate, parse_quote, token,
};

use crate::{
    client::{find_struct, generic_block, stubs_of},
    error::Error,
    plan::{Kind, MethodPlan, ServicePlan},
    stubs::items,
};

/// Makes the module from the asynchronous client's, as that was rewritten.
pub(crate) fn module(client: &mut ItemMod, plan: &ServicePlan) -> Result<ItemMod, Error> {
    let service = client.ident.to_string();
    let service = service.trim_end_matches("_client");
    let name = format_ident!("{service}_blocking_client");
    let (mut module, asynchronous) = (client.clone(), client.ident.clone());
    let items = items(client, plan)?;
    let structure = find_struct(items, plan)?;
    let (inner, attrs) = (&structure.ident, &structure.attrs);
    let blocking = format_ident!("{}BlockingClient", plan.rust_name);
    let calls = plan.methods.iter().zip(stubs_of(items, plan)?);
    let calls = calls
        .map(|(method, stub)| call(method, stub, plan))
        .collect::<Result<Vec<_>, _>>()?;
    let block = generic_block(items, plan)?;
    let mut bounds = block.generics.clone();
    let bounds = bounds.make_where_clause();
    // A stream's requests are taken by one thread while another one waits for the answer.
    let own: [WherePredicate; 2] = [
        parse_quote!(T: Clone + std::marker::Send + 'static),
        parse_quote!(T::Future: std::marker::Send),
    ];
    bounds.predicates.extend(own);
    let with_interceptor = with_interceptor(block, &blocking, inner, plan)?;
    let file: syn::File = parse_quote! {
            use tonic::codegen::*;
            use super::#asynchronous::#inner;

            /// For threads without a runtime: each method waits for its answer.
            ///
            #(#attrs)*
            pub struct #blocking<T = ringway::Channel> {
                inner: #inner<T>,
            }

            impl<T> #blocking<T>
            #bounds
            {
                pub fn new(inner: T) -> Self {
                    Self { inner: #inner::new(inner) }
                }

                #with_interceptor

                #(#calls)*
            }

            /// With the settings of the asynchronous client.
            impl<T> From<#inner<T>> for #blocking<T> {
                fn from(inner: #inner<T>) -> Self {
                    Self { inner }
                }
            }
    };
    // The attributes stay, inner ones among them.
    module.ident = name;
    module.content = Some((token::Brace::default(), file.items));
    Ok(module)
}

/// tonic's signature, with the blocking client's name in what it returns.
fn with_interceptor(
    block: &ItemImpl,
    blocking: &Ident,
    inner: &Ident,
    plan: &ServicePlan,
) -> Result<ImplItemFn, Error> {
    let function = block.items.iter().find_map(|item| match item {
        ImplItem::Fn(function) if function.sig.ident == "with_interceptor" => Some(function),
        _ => None,
    });
    let function = function.ok_or_else(|| plan.unknown_shape("with_interceptor"))?;
    let mut function = function.clone();
    function.sig.output = parse_quote!(-> #blocking<InterceptedService<T, F>>);
    function.block = parse_quote! {{
        #blocking { inner: #inner::with_interceptor(inner, interceptor) }
    }};
    Ok(function)
}

fn call(method: &MethodPlan, stub: &ImplItemFn, plan: &ServicePlan) -> Result<ImplItemFn, Error> {
    let (attrs, name) = (&stub.attrs, &stub.sig.ident);
    let request = stub.sig.inputs.iter().find_map(|input| match input {
        FnArg::Typed(argument) => Some(&*argument.ty),
        FnArg::Receiver(_) => None,
    });
    let request = request.ok_or_else(|| plan.unknown_shape("argument of each stub"))?;
    let mut output = stub.sig.output.clone();
    ResponsesForStreaming.visit_return_type_mut(&mut output);
    let message = || -> Result<Type, Error> {
        let mut found = Message(None);
        found.visit_type(request);
        found
            .0
            .ok_or_else(|| plan.unknown_shape("message of a stream of requests"))
    };
    let function: TokenStream = match method.kind {
        Kind::Unary => quote! {
            pub fn #name(&mut self, request: #request) #output {
                ringway::codegen::block_on(self.inner.#name(request))
            }
        },
        Kind::ServerStreaming => quote! {
            pub fn #name(&mut self, request: #request) #output {
                ringway::codegen::responses(self.inner.#name(request))
            }
        },
        Kind::ClientStreaming => {
            let message = message()?;
            quote! {
                pub fn #name<K>(
                    &mut self,
                    requests: impl ringway::blocking::IntoRequests<#message, K>,
                ) #output {
                    let mut inner = self.inner.clone();
                    ringway::codegen::upload(requests, move |requests| async move {
                        inner.#name(requests).await
                    })
                }
            }
        }
        Kind::Streaming => {
            let message = message()?;
            quote! {
                pub fn #name<K>(
                    &mut self,
                    requests: impl ringway::blocking::IntoRequests<#message, K, Iter: Send + 'static>,
                ) #output {
                    ringway::codegen::exchange(requests, |requests| self.inner.#name(requests))
                }
            }
        }
    };
    Ok(parse_quote!(#(#attrs)* #function))
}

/// The `M` of `impl tonic::IntoStreamingRequest<Message = M>`.
struct Message(Option<Type>);

impl<'ast> Visit<'ast> for Message {
    fn visit_assoc_type(&mut self, found: &'ast AssocType) {
        if found.ident == "Message" {
            self.0 = Some(found.ty.clone());
        }
        visit::visit_assoc_type(self, found);
    }
}

/// `ringway::blocking::Responses` in place of `tonic::codec::Streaming`.
struct ResponsesForStreaming;

impl VisitMut for ResponsesForStreaming {
    fn visit_type_path_mut(&mut self, found: &mut TypePath) {
        visit_mut::visit_type_path_mut(self, found);
        if let Some(last) = found.path.segments.last()
            && last.ident == "Streaming"
        {
            let arguments = &last.arguments;
            *found = parse_quote!(ringway::blocking::Responses #arguments);
        }
    }
}
