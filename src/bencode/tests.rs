//! Tests of `bencode`.

use super::*;
use crate::limits::{BENCODE_DEPTH_MAX, BENCODE_TOKENS_MAX};
use proptest::prelude::*;

/// A value as plain data: the oracle's side of the round trips.
#[derive(Clone, Debug, PartialEq)]
enum Plain {
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Plain>),
    Dict(Vec<(Vec<u8>, Plain)>),
}

fn plain(value: Value<'_, '_>) -> Plain {
    match value.kind() {
        Kind::Int => Plain::Int(value.as_int().unwrap()),
        Kind::Bytes => Plain::Bytes(value.as_bytes().unwrap().to_vec()),
        Kind::List => Plain::List(value.as_list().unwrap().map(plain).collect()),
        Kind::Dict => {
            Plain::Dict(value.as_dict().unwrap().map(|(key, item)| (key.to_vec(), plain(item))).collect())
        }
    }
}

fn naive_bytes(value: &Plain) -> Vec<u8> {
    match value {
        Plain::Int(number) => format!("i{number}e").into_bytes(),
        Plain::Bytes(bytes) => [format!("{}:", bytes.len()).as_bytes(), bytes].concat(),
        Plain::List(items) => [b"l", &*items.iter().flat_map(naive_bytes).collect::<Vec<_>>(), b"e"].concat(),
        Plain::Dict(entries) => {
            let parts = entries.iter().flat_map(|(key, item)| {
                [naive_bytes(&Plain::Bytes(key.clone())), naive_bytes(item)].concat()
            });
            [b"d", &*parts.collect::<Vec<_>>(), b"e"].concat()
        }
    }
}

fn write_plain(value: &Plain) -> Vec<u8> {
    match value {
        Plain::List(items) => list(|out| items.iter().for_each(|item| out.raw(&write_plain(item)))),
        Plain::Dict(entries) => {
            dict(|out| entries.iter().rev().for_each(|(key, item)| out.raw(key, &write_plain(item))))
        }
        Plain::Int(number) => {
            list(|out| out.int(*number)).strip_prefix(b"l").unwrap().strip_suffix(b"e").unwrap().to_vec()
        }
        Plain::Bytes(bytes) => {
            list(|out| out.bytes(bytes)).strip_prefix(b"l").unwrap().strip_suffix(b"e").unwrap().to_vec()
        }
    }
}

fn any_plain() -> impl Strategy<Value = Plain> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Plain::Int),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Plain::Bytes)
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Plain::List),
            prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..6), inner, 0..8)
                .prop_map(|map| Plain::Dict(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(value in any_plain(), rest in prop::collection::vec(any::<u8>(), 0..9)) {
        let bytes = write_plain(&value);
        prop_assert_eq!(&bytes, &naive_bytes(&value));
        let document = parse(&bytes).unwrap();
        prop_assert_eq!(plain(document.root()), value);
        prop_assert_eq!(document.root().raw(), &bytes);
        let longer = [&bytes[..], &rest].concat();
        prop_assert_eq!(parse_prefix(&longer).unwrap().1, &rest);
        prop_assert_eq!(parse(&longer).is_ok(), rest.is_empty());
        for end in 0..bytes.len() {
            prop_assert!(parse(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_accepted_ones_are_kept(bytes in prop::collection::vec(
        prop_oneof![Just(b'd'), Just(b'l'), Just(b'i'), Just(b'e'), Just(b':'), Just(b'-'), b'0'..=b'3', any::<u8>()],
        0..60))
    {
        if let Ok(document) = parse(&bytes) {
            prop_assert_eq!(naive_bytes(&plain(document.root())), bytes);
        }
    }
}

// HOSTILE 1
#[test]
fn deep_nesting_is_an_error_without_stack_growth() {
    for opening in ["l", "d1:a"] {
        let bytes = opening.repeat(100_000);
        assert!(matches!(parse(bytes.as_bytes()), Err(BencodeError::TooDeep { .. })));
    }
    let deepest = [b"l".repeat(BENCODE_DEPTH_MAX), b"e".repeat(BENCODE_DEPTH_MAX)].concat();
    assert!(parse(&deepest).is_ok());
    assert!(matches!(parse(&[b"l", &deepest[..], b"e"].concat()), Err(BencodeError::TooDeep { .. })));
}

// HOSTILE 2
#[test]
fn string_lengths_beyond_the_input_negative_or_with_leading_zeros_are_errors() {
    for text in ["99999999999:", "5:abcd", "99999999999999999999999999999:x", "18446744073709551615:x"] {
        assert!(matches!(parse(text.as_bytes()), Err(BencodeError::LenTooLarge { .. })), "{text}");
    }
    assert!(matches!(parse(b"-1:"), Err(BencodeError::UnexpectedByte { .. })));
    for text in ["03:abc", "00:", "1x:a", "1-:a"] {
        assert!(matches!(parse(text.as_bytes()), Err(BencodeError::LenMalformed { .. })), "{text}");
    }
    for text in ["", "5", "l", "d", "d1:a", "d1:ai1e"] {
        assert!(matches!(parse(text.as_bytes()), Err(BencodeError::Truncated { .. })), "{text}");
    }
    assert_eq!(parse(b"0:").unwrap().root().as_bytes(), Some(&b""[..]));
}

// HOSTILE 3
#[test]
fn malformed_and_overflowing_integers_are_errors() {
    for text in ["i-0e", "i03e", "ie", "i-e", "i-03e", "i1.5e", "i+1e", "i--1e", "i 1e", "i00e"] {
        assert!(matches!(parse(text.as_bytes()), Err(BencodeError::IntMalformed { .. })), "{text}");
    }
    for text in ["i9223372036854775808e", "i-9223372036854775809e", "i99999999999999999999999e"] {
        assert!(matches!(parse(text.as_bytes()), Err(BencodeError::IntTooLarge { .. })), "{text}");
    }
    for text in ["i", "i5", "i-", "i-5"] {
        assert!(matches!(parse(text.as_bytes()), Err(BencodeError::Truncated { .. })), "{text}");
    }
    for number in [0, -1, i64::MAX, i64::MIN] {
        assert_eq!(parse(format!("i{number}e").as_bytes()).unwrap().root().as_int(), Some(number));
    }
}

// HOSTILE 4
#[test]
fn keys_out_of_order_are_read_and_repeated_keys_are_errors() {
    let document = parse(b"d1:bi1e1:ai2ee").unwrap();
    assert_eq!(document.root().lookup(b"a").unwrap().as_int(), Some(2));
    assert_eq!(document.root().lookup(b"b").unwrap().raw(), b"i1e");
    for text in ["d1:ai1e1:ai2ee", "d1:ai1e1:bi1e1:ai1ee", "d1:bl1:a1:ae1:adee1:b0:e"] {
        let result = parse(text.as_bytes());
        assert!(result.is_err(), "{text}");
    }
    assert_eq!(
        parse(b"d1:bd1:xi1ee1:ai1e1:b0:e").unwrap_err(),
        BencodeError::KeyRepeated { at: 0, key: b"b".to_vec() }
    );
}

// HOSTILE 5
#[test]
fn trailing_bytes_are_an_error_unless_a_prefix_was_asked_for() {
    assert_eq!(parse(b"dei1e").unwrap_err(), BencodeError::TrailingBytes { at: 2 });
    assert_eq!(parse_prefix(b"dei1e").unwrap().1, b"i1e");
    assert_eq!(parse(b"e").unwrap_err(), BencodeError::UnexpectedByte { at: 0, byte: b'e' });
}

// HOSTILE 13
#[test]
fn too_many_values_are_an_error_in_bounded_time() {
    let bytes = [b"l".to_vec(), b"le".repeat(BENCODE_TOKENS_MAX), b"e".to_vec()].concat();
    assert_eq!(parse(&bytes).unwrap_err(), BencodeError::TooManyValues);
}

#[test]
fn dictionaries_have_strings_as_keys_and_a_value_for_each() {
    assert!(matches!(parse(b"di1ei2ee"), Err(BencodeError::KeyNotString { at: 1 })));
    assert!(matches!(parse(b"d1:ae"), Err(BencodeError::ValueMissing { at: 4 })));
}

#[test]
fn the_writer_orders_keys_and_keeps_the_first_of_two() {
    let bytes = dict(|out| {
        out.int("b", 1);
        out.dict("a", |inner| inner.bytes("z", "1"));
        out.int("b", 2);
    });
    assert_eq!(bytes, b"d1:ad1:z1:1e1:bi1ee");
    assert_eq!(dict(|_| {}), b"de");
    assert_eq!(list(|out| out.list(|inner| inner.dict(|_| {}))), b"lldeee");
}

#[test]
fn getters_answer_none_for_other_kinds() {
    let document = parse(b"li-1e1:ae").unwrap();
    let items: Vec<_> = document.root().as_list().unwrap().collect();
    assert_eq!((items[0].as_uint(), items[0].as_bytes(), items[1].as_int()), (None, None, None));
    assert!(document.root().as_dict().is_none() && document.root().lookup(b"a").is_none());
    assert_eq!(items[1].as_str(), Some("a"));
}
