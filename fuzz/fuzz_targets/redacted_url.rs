//! Addresses as they are shown: without control characters, and without a key, however short and wherever it stands.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::secret_url::{Keys, RedactedUrl, TrackerUrl, WebSeedUrl, redacted_words};

/// Like a word, so that nothing but its place tells that it is a key.
const KEY: &str = "sunflowerz";

fuzz_target!(|text: &str| {
    let shown = RedactedUrl(text).to_string();
    assert!(!shown.chars().any(char::is_control));

    let secrets = [
        format!("https://user:{KEY}@tracker.example/{text}"),
        format!("https://{KEY}@tracker.example/{text}"),
        format!("https://tracker.example:{KEY}/{text}"),
        format!("https://0123456789{KEY}.tracker.example/{text}"),
        format!("https://tracker.example/{KEY}/{text}"),
        format!("https://tracker.example/{text}{KEY}/announce"),
        format!("https://tracker.example/{text}/{KEY}/announce"),
        format!("https://tracker.example/{text}?passkey={KEY}"),
        format!("https://tracker.example/{text}?{KEY}"),
        format!("https://tracker.example/{text}#{KEY}"),
    ];
    for address in secrets.iter().filter(|_| !text.contains(KEY)) {
        assert!(!RedactedUrl(address).to_string().contains(KEY), "{address}");
        let tracker = TrackerUrl::from(address.as_str());
        assert!(tracker.holds_key() && !tracker.shown(Keys::Hidden).contains(KEY), "{address}");
        let words = redacted_words(&format!("go to {address}"), "");
        assert!(text.contains(char::is_whitespace) || !words.contains(KEY), "{address}");
    }
    let web_seed = WebSeedUrl::from(format!("https://mirror.example/{text}/{KEY}/file.iso"));
    assert!(text.contains(KEY) || !web_seed.shown(Keys::Hidden).contains(KEY), "{web_seed:?}");
});
