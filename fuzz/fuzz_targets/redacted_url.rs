//! Tracker addresses as they are shown: without control characters, and without the key in their path.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::secret_url::RedactedUrl;

const KEY: &str = "0123456789abcdef0123";

fuzz_target!(|text: &str| {
    let shown = RedactedUrl(text).to_string();
    assert!(!shown.chars().any(char::is_control));

    let secrets = [
        format!("https://user:{KEY}@tracker.example/{}", text),
        format!("https://tracker.example/{KEY}/{text}"),
        format!("https://tracker.example/{text}?passkey={KEY}"),
    ];
    for address in secrets.iter().filter(|_| !text.contains(KEY)) {
        assert!(!RedactedUrl(address).to_string().contains(KEY), "{address}");
    }
});
