//! Progress on everything that lasts: a bar on a terminal, plain lines elsewhere.
