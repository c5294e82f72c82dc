//! Who calls: the client's interceptor puts a token in, the server's looks at it.

use tonic::metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The metadata that the token goes by.
const AUTHORIZATION: &str = "authorization";
/// What stands before a token.
const SCHEME: &str = "Bearer ";

/// The one that tickets are made out to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder(pub(crate) String);

impl Holder {
    /// Returns the holder that the doorman has noted; an office without a doorman sells to anybody.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let noted = request.extensions().get::<Self>();
        noted.cloned().unwrap_or_else(|| Self("anybody".to_owned()))
    }
}

/// Lets in calls that bear a token, and notes the name in it.
#[derive(Debug, Clone, Copy)]
pub struct Doorman;

impl Interceptor for Doorman {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = request.metadata().get(AUTHORIZATION);
        let name = token
            .and_then(|token| token.to_str().ok())
            .and_then(|token| token.strip_prefix(SCHEME))
            .ok_or_else(|| Status::unauthenticated("a call has to bear a token"))?;
        let holder = Holder(name.to_owned());
        request.extensions_mut().insert(holder);
        Ok(request)
    }
}

/// Puts a token into each call.
#[derive(Debug, Clone)]
pub struct Bearer {
    token: MetadataValue<Ascii>,
}

impl Bearer {
    /// Bears the token of `name`.
    ///
    /// # Errors
    /// The name can't be written into metadata.
    pub fn new(name: &str) -> Result<Self, InvalidMetadataValue> {
        let token = format!("{SCHEME}{name}").parse()?;
        Ok(Self { token })
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = self.token.clone();
        request.metadata_mut().insert(AUTHORIZATION, token);
        Ok(request)
    }
}
