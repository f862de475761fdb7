//! Tests of `metainfo`.

use super::*;
use crate::bencode::{DictWriter, ListWriter};
use crate::limits::{
    BENCODE_TOKENS_MAX, PATH_DEPTH_MAX, PATH_LEN_MAX, PIECE_LEN_MAX, PIECES_MAX, TORRENT_FILE_LEN_MAX,
};
use crate::units::PieceIndex;
use proptest::prelude::*;

const PIECE: i64 = 16 * 1024;

/// A torrent of one file with 20 bytes, changed by `change` (of a key given twice the first counts).
fn single(change: impl FnOnce(&mut DictWriter<'_>)) -> Vec<u8> {
    bencode::dict(|torrent| {
        torrent.dict("info", |info| {
            change(info);
            info.int("length", 20);
            info.bytes("name", "file.bin");
            info.int("piece length", PIECE);
            info.bytes("pieces", [7; 20]);
        });
    })
}

/// A torrent of a folder `top` whose files, as `write` gives them, fill one piece or less.
fn folder(write: impl FnOnce(&mut ListWriter<'_>)) -> Vec<u8> {
    bencode::dict(|torrent| {
        torrent.dict("info", |info| {
            info.list("files", write);
            info.bytes("name", "top");
            info.int("piece length", PIECE);
            info.bytes("pieces", [7; 20]);
        });
    })
}

fn file(list: &mut ListWriter<'_>, path: &[&[u8]], len: i64, more: impl FnOnce(&mut DictWriter<'_>)) {
    list.dict(|entry| {
        more(entry);
        entry.int("length", len);
        entry.list("path", |parts| path.iter().for_each(|part| parts.bytes(part)));
    });
}

fn link(list: &mut ListWriter<'_>, path: &[&[u8]], target: &[&[u8]]) {
    file(list, path, 0, |entry| {
        entry.bytes("attr", "l");
        entry.list("symlink path", |parts| target.iter().for_each(|part| parts.bytes(part)));
    });
}

fn folder_of(paths: &[&[&[u8]]]) -> Result<Metainfo, MetainfoError> {
    Metainfo::parse(&folder(|list| paths.iter().for_each(|path| file(list, path, 1, |_| {}))))
}

fn paths(metainfo: &Metainfo) -> Vec<&str> {
    metainfo.info().files().iter().map(|file| file.path().as_str()).collect()
}

#[test]
fn reads_a_torrent_of_one_file() {
    let bytes = single(|_| {});
    let metainfo = Metainfo::parse(&bytes).unwrap();
    let info = metainfo.info();
    assert_eq!(
        (info.name(), info.single_file(), info.total_len(), info.piece_count()),
        ("file.bin", true, 20, 1)
    );
    assert_eq!((info.private(), info.hybrid(), paths(&metainfo)), (false, false, vec!["file.bin"]));
    assert_eq!((info.piece_len(PieceIndex(0)), info.piece_len(PieceIndex(1))), (20, 0));
    assert_eq!(
        (info.piece_hash(PieceIndex(0)), info.piece_hash(PieceIndex(u32::MAX))),
        (Some([7; 20]), None)
    );
    assert_eq!(metainfo.info_hash(), InfoHash::of(&bytes[b"d4:info".len()..bytes.len() - 1]));
    assert_eq!(Info::parse(metainfo.info_bytes()).as_ref(), Ok(info));
}

#[test]
fn reads_a_torrent_of_a_folder_with_offsets_and_attributes() {
    let bytes = folder(|list| {
        file(list, &[b"a"], 5, |entry| entry.bytes("attr", "xh"));
        file(list, &[b".pad", b"11"], 11, |entry| entry.bytes("attr", "p"));
        file(list, &[b"b", b"c"], 0, |_| {});
        file(list, &[b".pad", b"11"], 11, |entry| entry.bytes("attr", "p"));
        file(list, &[b"b", b"d"], 1, |_| {});
    });
    let metainfo = Metainfo::parse(&bytes).unwrap();
    let files = metainfo.info().files();
    assert_eq!(paths(&metainfo), ["top/a", "top/.pad/11", "top/b/c", "top/.pad/11", "top/b/d"]);
    assert_eq!(files.iter().map(FileEntry::offset).collect::<Vec<_>>(), [0, 5, 16, 16, 27]);
    assert!(
        files[0].attributes().executable && files[0].attributes().hidden && files[1].attributes().padding
    );
    assert_eq!(metainfo.info().total_len(), 28);
}

#[test]
fn prefers_names_marked_as_utf_8() {
    let bytes = bencode::dict(|torrent| {
        torrent.dict("info", |info| {
            info.list("files", |list| {
                list.dict(|entry| {
                    entry.int("length", 1);
                    entry.list("path", |path| path.bytes(b"\xe9"));
                    entry.list("path.utf-8", |path| path.bytes("é"));
                });
            });
            info.bytes("name", b"\xe8");
            info.bytes("name.utf-8", "è");
            info.int("piece length", PIECE);
            info.bytes("pieces", [7; 20]);
        });
    });
    assert_eq!(paths(&Metainfo::parse(&bytes).unwrap()), ["è/é"]);
}

#[test]
fn announce_list_stands_before_announce_and_addresses_are_bounded_and_clean() {
    let info = single(|_| {});
    let info = &info[b"d4:info".len()..info.len() - 1];
    let parse = |write: &dyn Fn(&mut DictWriter<'_>)| {
        Metainfo::parse(&bencode::dict(|torrent| {
            write(torrent);
            torrent.raw("info", info);
        }))
        .unwrap()
    };
    let both = parse(&|torrent| {
        torrent.bytes("announce", "http://one/");
        torrent.list("announce-list", |tiers| {
            tiers.list(|tier| ["http://two/ ", "udp://three:1"].iter().for_each(|url| tier.bytes(url)));
            tiers.list(|tier| {
                ["http://two/", "", "http://x/\r\nHost: y", "\u{ff}"].iter().for_each(|url| tier.bytes(url))
            });
            tiers.bytes("http://flat/");
            tiers.int(3);
        });
        torrent.bytes("url-list", "http://w/");
        torrent.bytes("comment", b"\xffc");
        torrent.int("creation date", -1);
    });
    assert_eq!(both.tiers(), [vec!["http://two/", "udp://three:1"], vec!["\u{ff}"], vec!["http://flat/"]]);
    assert_eq!((both.url_list(), both.comment()), (&["http://w/".into()][..], Some("\u{fffd}c")));
    assert_eq!(both.creation_date(), None);
    let one = parse(&|torrent| {
        torrent.bytes("announce", "http://one/");
        torrent.list("announce-list", |_| {});
        torrent.list("url-list", |list| {
            ["http://w/", "http://v/", "http://w/"].iter().for_each(|u| list.bytes(u))
        });
    });
    assert_eq!(one.tiers(), [vec!["http://one/"]]);
    assert_eq!(one.url_list(), ["http://w/", "http://v/"]);
    let many = parse(&|torrent| {
        torrent.list("announce-list", |tiers| {
            tiers.list(|tier| (0..1000).for_each(|n| tier.bytes(format!("http://{n}/"))));
        });
    });
    assert_eq!(many.tiers().concat().len(), TRACKERS_PER_TORRENT_MAX);
    assert_eq!(both.magnet().trackers.len(), 4);
}

#[test]
fn v2_alone_is_refused_and_hybrids_work_as_v1() {
    let hybrid = single(|info| {
        info.int("meta version", 2);
        info.dict("file tree", |_| {});
    });
    assert!(Metainfo::parse(&hybrid).unwrap().info().hybrid());
    let v2 = bencode::dict(|torrent| {
        torrent.dict("info", |info| {
            info.dict("file tree", |_| {});
            info.int("meta version", 2);
            info.bytes("name", "x");
            info.int("piece length", PIECE);
        });
    });
    let error = Metainfo::parse(&v2).unwrap_err();
    assert_eq!(error, MetainfoError::V2Only);
    assert!(error.to_string().starts_with("v2 torrent not supported"));
}

#[test]
fn missing_parts_are_named() {
    let error = |bytes: &[u8]| Metainfo::parse(bytes).unwrap_err();
    assert!(matches!(error(b""), MetainfoError::Bencode(_)));
    assert_eq!(error(b"le"), MetainfoError::NotADictionary);
    assert_eq!(error(b"de"), MetainfoError::InfoMissing);
    assert_eq!(error(b"d4:infolee"), MetainfoError::InfoMissing);
    assert_eq!(error(b"d4:infodee"), MetainfoError::PieceHashesMissing);
    assert_eq!(error(b"d4:infod6:pieces0:ee"), MetainfoError::PieceLengthMissing);
    assert_eq!(error(b"d4:infod12:piece lengthi16384e6:pieces0:ee"), MetainfoError::NameMissing);
    assert_eq!(error(b"d4:infod4:name1:x12:piece lengthi16384e6:pieces0:ee"), MetainfoError::FilesMissing);
    assert_eq!(error(&single(|info| info.list("files", |_| {}))), MetainfoError::FilesMissing);
    assert_eq!(error(&folder(|_| {})), MetainfoError::NoFiles);
    assert_eq!(error(&folder(|list| list.int(1))), MetainfoError::FileMalformed(0));
    assert_eq!(error(&folder(|list| file(list, &[b"a"], 0, |_| {}))), MetainfoError::NoContent);
}

// HOSTILE 4
#[test]
fn the_info_hash_is_over_the_raw_bytes_even_when_keys_are_out_of_order() {
    let pieces = "x".repeat(20);
    let info = format!("d6:pieces20:{pieces}4:name1:n6:lengthi20e12:piece lengthi16384ee");
    let metainfo = Metainfo::parse(format!("d4:info{info}8:announce9:http://a/e").as_bytes()).unwrap();
    assert_eq!(metainfo.info_bytes(), info.as_bytes());
    assert_eq!(metainfo.info_hash(), InfoHash::of(info.as_bytes()));
    assert_eq!(metainfo.tiers(), [vec!["http://a/"]]);
    let twice =
        format!("d4:infod6:pieces20:{pieces}6:lengthi20e6:lengthi21e4:name1:n12:piece lengthi16384eee");
    assert!(matches!(Metainfo::parse(twice.as_bytes()), Err(MetainfoError::Bencode(_))));
}

// HOSTILE 5
#[test]
fn bytes_behind_the_torrent_are_counted_and_change_nothing() {
    let torrent = single(|_| {});
    let plain = Metainfo::parse(&torrent).unwrap();
    assert_eq!(plain.trailing_len(), 0);
    for tail in [&b"\n"[..], b"\r\n", b" \t\n", b"\0\0\0", b"e", b"d4:infode", b"<html>not found</html>"] {
        let tailed = Metainfo::parse(&[&torrent[..], tail].concat()).unwrap();
        assert_eq!(tailed.trailing_len(), tail.len());
        assert_eq!((tailed.info(), tailed.info_hash()), (plain.info(), plain.info_hash()));
        assert_eq!(tailed.info_bytes(), plain.info_bytes());
    }
    assert!(matches!(Metainfo::parse(&[b"\n", &torrent[..]].concat()), Err(MetainfoError::Bencode(_))));
    // An info dictionary from peers is all that its hash is of, so nothing may follow it.
    assert!(matches!(Info::parse(&[plain.info_bytes(), b"\n"].concat()), Err(MetainfoError::Bencode(_))));
}

// HOSTILE 6
#[test]
fn piece_lengths_out_of_range_are_refused() {
    let of = |len: i64| Metainfo::parse(&single(|info| info.int("piece length", len)));
    for len in [0, -1, i64::from(PIECE_LEN_MAX) + 1, 1 << 31, 1 << 32, i64::MAX, i64::MIN] {
        assert_eq!(of(len).unwrap_err(), MetainfoError::PieceLength(len));
    }
    assert!(of(PIECE_LEN_MAX.into()).is_ok());
    // The torrent has 20 bytes and one hash: short pieces would be many.
    for len in [1, 19] {
        assert!(matches!(of(len).unwrap_err(), MetainfoError::PieceCount { hashes: 1, .. }));
    }
    assert!(of(20).is_ok(), "one piece is as long as its content");
}

#[test]
fn pieces_need_not_be_a_whole_number_of_blocks() {
    let of = |piece_length: i64, len: i64| {
        Metainfo::parse(&single(|info| {
            info.int("length", len);
            info.int("piece length", piece_length);
            info.bytes("pieces", vec![7; 20 * (len as u64).div_ceil(piece_length as u64) as usize]);
        }))
    };
    for (piece_length, last) in [(270_544, 188_368), (827_392, 172_608), (1_024, 576), (PIECE + 1, 515)] {
        let info = of(piece_length, 1_000_000).unwrap().info().clone();
        assert_eq!(i64::from(info.piece_len(PieceIndex(0))), piece_length);
        assert_eq!(info.piece_len(PieceIndex(info.piece_count() - 1)), last);
    }
    for piece_length in [1, 2, 1_023] {
        assert_eq!(of(piece_length, 100_000).unwrap_err(), MetainfoError::PieceLength(piece_length));
    }
}

/// A torrent of one file with as many pieces, and one of so many files.
fn large(pieces: u32, files: u32) -> [Vec<u8>; 2] {
    let length = i64::from(pieces) * PIECE;
    let one = single(|info| {
        info.int("length", length);
        info.bytes("pieces", vec![7; 20 * pieces as usize]);
    });
    let many = bencode::dict(|torrent| {
        torrent.dict("info", |info| {
            info.list("files", |list| {
                for number in 0..files {
                    let name = format!("part {number:06} of a collection whose files have long names.pdf");
                    file(list, &[format!("d{:04}", number / 100).as_bytes(), name.as_bytes()], 1, |_| {});
                }
            });
            info.bytes("name", "collection");
            info.int("piece length", PIECE);
            info.bytes("pieces", vec![7; 20 * (i64::from(files) as u64).div_ceil(PIECE as u64) as usize]);
        });
    });
    [one, many]
}

#[test]
fn as_many_pieces_as_there_may_be_fit_a_torrent_file() {
    let [pieces, files] = large(PIECES_MAX, 170_000);
    assert!(pieces.len() as u64 <= TORRENT_FILE_LEN_MAX && files.len() > 10 << 20);
    assert_eq!(Metainfo::parse(&pieces).unwrap().info().piece_count(), PIECES_MAX);
    assert_eq!(Metainfo::parse(&files).unwrap().info().files().len(), 170_000);
    let [more, _] = large(PIECES_MAX + 1, 1);
    let many = u64::from(PIECES_MAX) + 1;
    assert_eq!(Metainfo::parse(&more).unwrap_err(), MetainfoError::TooManyPieces(many));
}

// HOSTILE 7
#[test]
fn piece_hashes_that_contradict_the_content_are_refused() {
    let error = |len: usize| Metainfo::parse(&single(|info| info.bytes("pieces", vec![1; len]))).unwrap_err();
    assert_eq!(error(19), MetainfoError::PieceHashesRagged(19));
    assert_eq!(error(0), MetainfoError::PieceCount { hashes: 0, pieces: 1 });
    assert_eq!(error(40), MetainfoError::PieceCount { hashes: 2, pieces: 1 });
}

// HOSTILE 8
#[test]
fn negative_and_overflowing_lengths_are_refused() {
    let negative = Metainfo::parse(&single(|info| info.int("length", -1)));
    assert_eq!(negative.unwrap_err(), MetainfoError::FileLength(0));
    let overflow = folder(|list| {
        file(list, &[b"a"], i64::MAX, |_| {});
        file(list, &[b"b"], 1, |_| {});
    });
    assert_eq!(Metainfo::parse(&overflow).unwrap_err(), MetainfoError::LengthOverflow);
    let endless = Metainfo::parse(&single(|info| info.int("length", i64::MAX)));
    assert!(matches!(endless.unwrap_err(), MetainfoError::PieceCount { hashes: 1, .. }));
}

// HOSTILE 9
#[test]
fn hostile_paths_are_refused_or_made_harmless() {
    for (path, cleaned) in [
        (&[&b".."[..], b"x"][..], "top/x"),
        (&[b"a", b"..", b"..", b"x"], "top/a/x"),
        (&[b".."], "top/_"),
        (&[], "top/_"),
        (&[b""], "top/_"),
        (&[b".", b""], "top/_"),
    ] {
        assert_eq!(paths(&folder_of(&[path]).unwrap()), [cleaned]);
    }
    let malformed = folder(|list| list.dict(|entry| entry.int("length", 1)));
    let error = MetainfoError::FilePath { number: 0, source: PathError::Malformed };
    assert_eq!(Metainfo::parse(&malformed).unwrap_err(), error);
    let metainfo = folder_of(&[
        &[b"/etc/passwd"],
        &[b"", b"etc", b"shadow"],
        &[b"a\0b\x1b[2J"],
        &["\u{202e}txt.exe".as_bytes()],
        &[b"\xff\xfe"],
        &[b"..\\..\\evil"],
    ]);
    assert_eq!(
        paths(&metainfo.unwrap()),
        ["top/_etc_passwd", "top/etc/shadow", "top/a_b_[2J", "top/_txt.exe", "top/__", "top/..\\..\\evil"]
    );
    for name in [&b".."[..], b"", b"."] {
        let metainfo = Metainfo::parse(&single(|info| info.bytes("name", name))).unwrap();
        assert_eq!(metainfo.info().name(), metainfo.info_hash().to_string());
        assert_eq!(paths(&metainfo), [metainfo.info().name()]);
    }
    let absolute = Metainfo::parse(&single(|info| info.bytes("name", "/etc/cron.d/x"))).unwrap();
    assert_eq!((absolute.info().name(), paths(&absolute)), ("_etc_cron.d_x", vec!["_etc_cron.d_x"]));
    let long = Metainfo::parse(&single(|info| info.bytes("name", "x".repeat(400)))).unwrap();
    assert_eq!(long.info().name().len(), 255);
}

#[test]
fn ordinary_names_of_a_long_path_are_kept_byte_for_byte() {
    let parts =
        ["Ünïcode – 東京", "日本語".repeat(20).as_str(), &"b".repeat(120), "Track 01 (feat. X)?.flac"]
            .map(str::to_owned);
    let raw: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
    let metainfo = folder_of(&[&raw]).unwrap();
    assert_eq!(paths(&metainfo), [format!("top/{}", parts.join("/"))]);
}

// HOSTILE 10
#[test]
fn two_files_at_one_place_are_told_apart() {
    let told = |files: &[&[&[u8]]]| -> Vec<String> {
        paths(&folder_of(files).unwrap()).into_iter().map(str::to_owned).collect()
    };
    assert_eq!(told(&[&[b"a"], &[b"b"], &[b"a"], &[b"a"]]), ["top/a", "top/b", "top/a.1", "top/a.2"]);
    assert_eq!(told(&[&[b"a\x01.txt"], &[b"a\x02.txt"]]), ["top/a_.txt", "top/a_.1.txt"]);
    assert_eq!(told(&[&[b"a"], &[b"a"], &[b"a.1"]]), ["top/a", "top/a.2", "top/a.1"]);
    assert_eq!(told(&[&[b"a"], &[b"a.b"], &[b"a", b"b"]]), ["top/a.1", "top/a.b", "top/a/b"]);
    assert_eq!(told(&[&[b"a", b"b", b"c"], &[b"a!"], &[b"a", b"b"]]), ["top/a/b/c", "top/a!", "top/a/b.1"]);
    assert_eq!(told(&[&[b"a"], &[b"a.1", b"x"], &[b"a"]]), ["top/a", "top/a.1/x", "top/a.2"]);
    assert_eq!(told(&[&[b"a"], &[b"A"]]), ["top/a", "top/A"], "Linux tells them apart");
}

#[test]
fn padding_needs_no_path() {
    let bytes = folder(|list| {
        file(list, &[b"a"], 5, |_| {});
        list.dict(|entry| {
            entry.bytes("attr", "p");
            entry.int("length", 11);
        });
        file(list, &[], 11, |entry| entry.bytes("attr", "p"));
        file(list, &[b"b"], 1, |_| {});
    });
    let metainfo = Metainfo::parse(&bytes).unwrap();
    assert_eq!((paths(&metainfo)[0], paths(&metainfo)[3]), ("top/a", "top/b"));
    assert!(metainfo.info().files()[1].attributes().padding && metainfo.info().total_len() == 28);
}

#[test]
fn a_hundred_thousand_files_of_one_path_are_told_apart_in_bounded_work() {
    let bytes = folder(|list| (0..100_000).for_each(|_| file(list, &[b"same.bin"], 0, |_| {})));
    let bytes = String::from_utf8_lossy(&bytes).replacen("lengthi0e", "lengthi1e", 1).into_bytes();
    let metainfo = Metainfo::parse(&bytes).unwrap();
    assert_eq!(paths(&metainfo)[99_999], "top/same.99999.bin");
}

#[test]
fn long_names_that_numbers_would_make_equal_are_told_apart_in_bounded_work() {
    let names: Vec<String> = (0..10_000).map(|number| format!("{}{number:06}", "x".repeat(249))).collect();
    let bytes = folder(|list| {
        names.iter().chain(&names).for_each(|name| file(list, &[name.as_bytes()], 0, |_| {}));
        file(list, &[b"content"], 1, |_| {});
    });
    let metainfo = Metainfo::parse(&bytes).unwrap();
    let mut told = paths(&metainfo);
    assert!(told[19_999].ends_with("xx.10000"));
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 20_001);
}

#[test]
fn files_that_other_clients_spell_otherwise_say_how() {
    let metainfo = folder_of(&[&[b"plain"], &[b"Beyonc\xe9"], &[b"back\\slash"]]).unwrap();
    let info = metainfo.info();
    let spelled: Vec<_> = info.files().iter().map(|file| info.spellings(file)).collect();
    assert!(spelled[0].is_empty());
    assert!(spelled[1].contains(&"top/Beyoncé".into()) && spelled[2].contains(&"top/backslash".into()));
}

// HOSTILE 11
#[test]
fn links_that_lead_outside_nowhere_or_in_circles_are_dropped() {
    let metainfo = Metainfo::parse(&folder(|list| {
        file(list, &[b"d", b"real"], 1, |_| {});
        link(list, &[b"good"], &[b"d", b"real"]);
        link(list, &[b"chain"], &[b"good"]);
        link(list, &[b"to-folder"], &[b"d"]);
        link(list, &[b"outside"], &[b"..", b"..", b"etc", b"passwd"]);
        link(list, &[b"nowhere"], &[b"missing"]);
        link(list, &[b"empty"], &[]);
        link(list, &[b"self"], &[b"self"]);
        link(list, &[b"ping"], &[b"pong"]);
        link(list, &[b"pong"], &[b"ping"]);
        link(list, &[b"d", b"parent"], &[b"d"]);
        link(list, &[b"through"], &[b"to-folder", b"real"]);
        file(list, &[b"no-target"], 0, |entry| entry.bytes("attr", "l"));
        file(list, &[b"last"], 2, |_| {});
    }))
    .unwrap();
    assert_eq!(paths(&metainfo), ["top/d/real", "top/good", "top/chain", "top/to-folder", "top/last"]);
    let files = metainfo.info().files();
    assert_eq!(files[1].attributes().symlink.as_ref().map(RelativePath::as_str), Some("top/d/real"));
    assert_eq!((files[1].len(), files[4].offset(), metainfo.info().total_len()), (0, 1, 3));
}

// HOSTILE 13
#[test]
fn endless_lists_of_files_end_in_an_error_in_bounded_time() {
    let empty_lists = b"le".repeat(BENCODE_TOKENS_MAX + 1);
    let bytes = single(|info| info.raw("files", &[b"l", &empty_lists[..], b"e"].concat()));
    assert!(matches!(Metainfo::parse(&bytes).unwrap_err(), MetainfoError::Bencode(_)));
    let files = b"d6:lengthi0e4:pathl1:aee".repeat(3_000_000);
    let bytes = folder(|list| list.raw(&files));
    assert_eq!(Metainfo::parse(&bytes).unwrap_err(), MetainfoError::TooLong);
    assert_eq!(Info::parse(&bytes).unwrap_err(), MetainfoError::TooLong);
}

// HOSTILE 15 and 17
#[test]
fn an_info_dictionary_from_peers_passes_the_same_judgement() {
    let deep = vec![&b"d"[..]; PATH_DEPTH_MAX + 1];
    let evil = folder(|list| file(list, &deep, 1, |_| {}));
    let info = &evil[b"d4:info".len()..evil.len() - 1];
    let from_file = Metainfo::parse(&evil).unwrap_err();
    assert_eq!(Info::parse(info).unwrap_err(), from_file);
    assert_eq!(Metainfo::from_magnet(&Magnet::new(InfoHash::of(info)), info).unwrap_err(), from_file);

    let good = Metainfo::parse(&single(|_| {})).unwrap();
    let again = Metainfo::from_magnet(&good.magnet(), good.info_bytes()).unwrap();
    assert_eq!((again.info(), again.info_hash()), (good.info(), good.info_hash()));
    let other = Magnet::new(InfoHash([1; 20]));
    assert!(matches!(
        Metainfo::from_magnet(&other, good.info_bytes()).unwrap_err(),
        MetainfoError::WrongInfoHash { .. }
    ));
}

proptest! {
    #[test]
    fn every_file_has_a_path_of_its_own_below_the_folder_whatever_the_names_are(
        files in prop::collection::vec(prop::collection::vec(prop_oneof![
            "[ab]{0,2}(\\.1)?(\\.1)?".prop_map(String::into_bytes),
            Just(b"..".to_vec()), Just(b"a\x01".to_vec()), Just(b"a\xff".to_vec()), Just(b"a/b".to_vec()),
            "a{253,257}".prop_map(String::into_bytes),
        ], 0..4), 1..12))
    {
        let files: Vec<Vec<&[u8]>> =
            files.iter().map(|parts| parts.iter().map(Vec::as_slice).collect()).collect();
        let files: Vec<&[&[u8]]> = files.iter().map(Vec::as_slice).collect();
        let metainfo = folder_of(&files).unwrap();
        let again = folder_of(&files).unwrap();
        prop_assert_eq!(metainfo.info(), again.info());
        let mut paths: Vec<&RelativePath> = metainfo.info().files().iter().map(FileEntry::path).collect();
        for path in &paths {
            prop_assert!(path.as_str().starts_with("top/") && path.as_str().len() <= PATH_LEN_MAX);
            prop_assert!(path.as_path().components().all(|part| matches!(part, std::path::Component::Normal(_))));
            let cleaned = RelativePath::from_components(path.components().map(str::as_bytes));
            prop_assert_eq!(&cleaned.unwrap(), *path);
        }
        paths.sort_unstable();
        prop_assert!(paths.windows(2).all(|pair| pair[0] != pair[1] && !pair[0].is_folder_of(pair[1])));
    }

    #[test]
    fn changed_torrents_never_panic_and_keep_the_promises(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4))
    {
        let mut bytes = folder(|list| {
            file(list, &[b"a", b"b"], 5, |entry| entry.bytes("attr", "x"));
            link(list, &[b"l"], &[b"a"]);
            file(list, &[b"c"], 7, |_| {});
        });
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(metainfo) = Metainfo::parse(&bytes) {
            let info = metainfo.info();
            let mut offset = 0;
            for file in info.files() {
                prop_assert_eq!(file.offset(), offset);
                prop_assert!(file.path().as_path().components()
                    .all(|part| matches!(part, std::path::Component::Normal(_))));
                offset += file.len();
            }
            prop_assert_eq!(offset, info.total_len());
            let last = PieceIndex(info.piece_count() - 1);
            let before = u64::from(last.0) * u64::from(info.piece_length());
            prop_assert_eq!(before + u64::from(info.piece_len(last)), offset);
        }
    }
}
