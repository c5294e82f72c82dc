//! What the generated code has to know of a service.

use proc_macro2::{Literal, TokenStream};
use quote::quote;

use crate::error::Error;

/// A service as the .proto file has it.
#[derive(Debug)]
pub(crate) struct ServicePlan {
    /// The trait's name.
    pub(crate) rust_name: String,
    /// The full name, package included.
    pub(crate) full_name: String,
    pub(crate) methods: Vec<MethodPlan>,
}

/// A method as the .proto file has it.
#[derive(Debug)]
pub(crate) struct MethodPlan {
    pub(crate) proto_name: String,
    pub(crate) kind: Kind,
}

/// Who sends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unary,
    ServerStreaming,
    ClientStreaming,
    Streaming,
}

impl ServicePlan {
    pub(crate) fn new(service: &prost_build::Service) -> Self {
        let full_name = match service.package.as_str() {
            "" => service.proto_name.clone(),
            package => format!("{package}.{}", service.proto_name),
        };
        Self {
            rust_name: service.name.clone(),
            full_name,
            methods: service.methods.iter().map(MethodPlan::new).collect(),
        }
    }

    /// The table of methods that a call is addressed by.
    pub(crate) fn table(&self) -> TokenStream {
        let count = Literal::usize_unsuffixed(self.methods.len());
        let entries = self.methods.iter().map(|method| {
            let (service, name) = (&self.full_name, &method.proto_name);
            let path = format!("/{service}/{name}");
            quote!(ringway::codegen::Method::new(#service, #name, #path))
        });
        quote! {
            static METHODS: [ringway::codegen::Method; #count] = [#(#entries),*];
        }
    }

    pub(crate) fn unknown_shape(&self, missing: &str) -> Error {
        Error::UnknownShape {
            service: self.full_name.clone(),
            missing: missing.to_owned(),
        }
    }
}

impl MethodPlan {
    fn new(method: &prost_build::Method) -> Self {
        let kind = match (method.client_streaming, method.server_streaming) {
            (false, false) => Kind::Unary,
            (false, true) => Kind::ServerStreaming,
            (true, false) => Kind::ClientStreaming,
            (true, true) => Kind::Streaming,
        };
        Self {
            proto_name: method.proto_name.clone(),
            kind,
        }
    }
}

impl Kind {
    /// The method of `ringway::codegen::Client` and of `ServerCall` for it.
    pub(crate) fn ident(self) -> syn::Ident {
        let name = match self {
            Kind::Unary => "unary",
            Kind::ServerStreaming => "server_streaming",
            Kind::ClientStreaming => "client_streaming",
            Kind::Streaming => "streaming",
        };
        syn::Ident::new(name, proc_macro2::Span::call_site())
    }

    /// How a stub turns its argument into a request.
    pub(crate) fn into_request(self) -> TokenStream {
        match self {
            Kind::Unary | Kind::ServerStreaming => quote!(request.into_request()),
            Kind::ClientStreaming | Kind::Streaming => quote!(request.into_streaming_request()),
        }
    }
}
