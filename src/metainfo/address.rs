//! Addresses of trackers and web seeds as torrents and magnet links give them: text that a client may look
//! at, no more. Whether it is a URL, and of a kind we speak, is for the client to say.

use crate::limits::URL_LEN_MAX;

/// The address without the blanks around it; `None` when it is empty, too long, no UTF-8, or has blanks or
/// control characters inside, which would end up in a request's lines.
pub(super) fn usable(bytes: &[u8]) -> Option<&str> {
    let address = std::str::from_utf8(bytes).ok()?.trim();
    let fit = !address.is_empty()
        && address.len() <= URL_LEN_MAX
        && !address.chars().any(|c| c.is_control() || c.is_whitespace());
    fit.then_some(address)
}
