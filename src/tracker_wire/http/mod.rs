//! The HTTP tracker protocol: [`query`] is what follows the `?` of a request, [`response`] the bencoded body.
//!
//! Both directions of both stand here. HTTP itself, with its sockets, redirects and time limits, does not.

pub mod query;
pub mod response;
