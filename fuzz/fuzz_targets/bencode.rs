//! Bencode: the tree is the bytes. Written again in its own order every value has as many bytes as it came with, the
//! very same ones when its keys stood in order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::bencode::{self, Kind, Value};

fuzz_target!(|data: &[u8]| {
    let prefix = bencode::parse_prefix(data);
    assert_eq!(bencode::parse(data).is_ok(), prefix.as_ref().is_ok_and(|(_, rest)| rest.is_empty()));
    let Ok((document, rest)) = prefix else { return };
    let raw = document.root().raw();
    assert_eq!([raw, rest].concat(), data);

    let canonical = canonical(document.root());
    assert_eq!(canonical.len(), raw.len());
    if in_order(document.root()) {
        assert_eq!(canonical, raw);
    }
    assert!(bencode::parse(&canonical).is_ok_and(|document| in_order(document.root())));
});

fn canonical(value: Value<'_, '_>) -> Vec<u8> {
    match value.kind() {
        Kind::Int => {
            let number = value.as_int().expect("a number that was parsed fits 64 bits");
            format!("i{number}e").into_bytes()
        }
        Kind::Bytes => {
            let bytes = value.as_bytes().expect("the value is a string");
            [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
        }
        Kind::List => {
            let items = value.as_list().expect("the value is a list");
            bencode::list(|list| items.for_each(|item| list.raw(&canonical(item))))
        }
        Kind::Dict => {
            let entries = value.as_dict().expect("the value is a dictionary");
            bencode::dict(|dict| entries.for_each(|(key, value)| dict.raw(key, &canonical(value))))
        }
    }
}

fn in_order(value: Value<'_, '_>) -> bool {
    let entries: Vec<_> = value.as_dict().into_iter().flatten().collect();
    entries.is_sorted_by(|one, other| one.0 < other.0)
        && entries.iter().all(|&(key, child)| {
            assert_eq!(value.lookup(key).map(Value::raw), Some(child.raw()));
            in_order(child)
        })
        && value.as_list().into_iter().flatten().all(in_order)
}
