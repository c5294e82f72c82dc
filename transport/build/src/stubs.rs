//! The service generator: asks tonic's own for its code and makes ours of it.
//!
//! So the trait, the server and the clients' signatures are tonic's by construction. Where tonic's
//! code has not the shape that this relies on, generating fails and says so.

use std::{cell::RefCell, fmt, rc::Rc};

use syn::{Item, ItemMod};

use crate::{blocking, client, error::Error, plan::ServicePlan, server};

/// Where the first error waits until the run is over: prost's generator trait cannot return one.
pub(crate) type Failure = Rc<RefCell<Option<Error>>>;

pub(crate) struct StubGenerator {
    pub(crate) tonic: Box<dyn prost_build::ServiceGenerator>,
    pub(crate) build_transport: bool,
    pub(crate) build_blocking_client: bool,
    pub(crate) use_arc_self: bool,
    /// `None` panics instead, for a generator that its user runs.
    pub(crate) failure: Option<Failure>,
}

impl StubGenerator {
    fn source(&mut self, service: prost_build::Service) -> Result<String, Error> {
        let plan = ServicePlan::new(&service);
        let mut tonics = String::new();
        self.tonic.generate(service, &mut tonics);
        let mut file = syn::parse_file(&tonics).map_err(|source| Error::Syntax {
            service: plan.full_name.clone(),
            source,
        })?;
        let mut blocking = None;
        for module in modules(&mut file) {
            if module.ident.to_string().ends_with("_client") {
                client::rewrite(module, &plan, self.build_transport)?;
                if self.build_blocking_client {
                    blocking = Some(Item::Mod(blocking::module(module, &plan)?));
                }
            } else {
                server::extend(module, &plan, self.use_arc_self)?;
            }
        }
        file.items.extend(blocking);
        Ok(prettyplease::unparse(&file))
    }

    fn fail(&self, error: Error) {
        match &self.failure {
            Some(failure) => drop(failure.borrow_mut().get_or_insert(error)),
            None => panic!("{error}"),
        }
    }
}

impl prost_build::ServiceGenerator for StubGenerator {
    fn generate(&mut self, service: prost_build::Service, buf: &mut String) {
        match self.source(service) {
            Ok(source) => buf.push_str(&source),
            Err(error) => self.fail(error),
        }
    }
}

impl fmt::Debug for StubGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StubGenerator").finish_non_exhaustive()
    }
}

fn modules(file: &mut syn::File) -> impl Iterator<Item = &mut ItemMod> {
    file.items.iter_mut().filter_map(|item| match item {
        Item::Mod(module) => Some(module),
        _ => None,
    })
}

/// The items of an inline module.
pub(crate) fn items<'a>(
    module: &'a mut ItemMod,
    plan: &ServicePlan,
) -> Result<&'a mut Vec<Item>, Error> {
    match &mut module.content {
        Some((_, items)) => Ok(items),
        None => Err(plan.unknown_shape("module with its content")),
    }
}
