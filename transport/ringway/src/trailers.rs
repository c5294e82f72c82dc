//! Trailing metadata beside a response that succeeded, which tonic's types leave out.

use tonic::metadata::MetadataMap;

/// Trailing metadata of a successful response, as an extension of it.
///
/// ```
/// use ringway::Trailers;
/// use tonic::metadata::MetadataMap;
///
/// let mut trailing = MetadataMap::new();
/// trailing.insert("x-cost", "3".parse().unwrap());
/// let mut response = tonic::Response::new(());
/// response.extensions_mut().insert(Trailers(trailing));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Trailers(pub MetadataMap);
