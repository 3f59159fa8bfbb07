//! Connections to other servers: whom they trust, the one HTTP client, and what goes wrong in plain words.
//!
//! A server shows a certificate for the name by which it is reached. It is accepted when an authority that is trusted vouches for it: one
//! of the system's, or, where a file of authorities is named, one of these and nobody else.

mod http;
mod said;
mod trust;

pub use http::{HttpOptions, http_client};
pub use said::said;
pub use trust::{TrustError, provide, trust};

#[cfg(test)]
pub(crate) mod kit;
#[cfg(test)]
mod tests;
