//! `seedring show`: what a torrent file or a magnet link says, without touching any content.

use super::CommandError;
use super::create::left_out;
use super::escape::{self, Plain};
use crate::metainfo::{FileEntry, Magnet, Metainfo};
use crate::secret_url::{Keys, TrackerUrl};
use crate::session::torrent_file::read_torrent;
use crate::units::{ByteSize, Counted};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::Path;

/// Show what a torrent file or magnet link says.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// A .torrent file or a magnet link (quote it: it has `&` in it)
    #[arg(value_name = "FILE|MAGNET")]
    source: OsString,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// List the files too
    #[arg(long)]
    files: bool,
    /// Show addresses with their keys (passkeys, passwords) instead of …, and the magnet link with all of them
    #[arg(long)]
    show_keys: bool,
}

/// Runs the command.
pub fn run(args: ShowArgs) -> Result<(), CommandError> {
    let keys = Keys::shown_if(args.show_keys);
    let description = match args.source.to_str().filter(|text| is_magnet(text)) {
        Some(link) => Description::of_magnet(&Magnet::parse(link)?, keys),
        None => Description::of_torrent(&read_torrent(Path::new(&args.source))?, args.files, keys),
    };
    let text = if args.json { escape::json(&description)? + "\n" } else { description.to_string() };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

fn is_magnet(text: &str) -> bool {
    text.trim_start().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:"))
}

/// What is known of a torrent: all of it from a file, little from a link. The fields are the JSON contract.
#[derive(Serialize)]
struct Description {
    name: Option<String>,
    info_hash: String,
    /// Bytes of all files.
    length: Option<u64>,
    hybrid: bool,
    #[serde(flatten)]
    content: Option<Content>,
    trackers: Vec<Vec<String>>,
    web_seeds: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<String>,
    /// The files a magnet link wants (BEP 53), by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    selected_files: Option<String>,
    /// Bytes behind the torrent's end in its file.
    #[serde(skip_serializing_if = "is_zero")]
    ignored_bytes: usize,
    magnet: String,
    /// What is said behind the link.
    #[serde(skip)]
    left_out: &'static str,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What only the torrent itself says.
#[derive(Serialize)]
struct Content {
    piece_length: u32,
    piece_count: u32,
    file_count: usize,
    /// Files that file managers and `ls` do not show: a name on their way begins with a dot.
    hidden_count: usize,
    #[serde(skip)]
    first_hidden: Option<String>,
    single_file: bool,
    private: bool,
    comment: Option<String>,
    source: Option<String>,
    created_by: Option<String>,
    /// Seconds since 1970.
    creation_date: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<File>>,
}

#[derive(Serialize)]
struct File {
    path: String,
    length: u64,
    padding: bool,
    executable: bool,
    hidden: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    symlink: Option<String>,
}

impl Description {
    fn of_torrent(metainfo: &Metainfo, with_files: bool, keys: Keys) -> Self {
        let info = metainfo.info();
        let content = Content {
            piece_length: info.piece_length(),
            piece_count: info.piece_count(),
            file_count: info.files().iter().filter(|file| !file.attributes().padding).count(),
            hidden_count: hidden(metainfo).count(),
            first_hidden: hidden(metainfo).next().map(str::to_owned),
            single_file: info.single_file(),
            private: info.private(),
            comment: metainfo.comment().map(str::to_owned),
            source: info.source().map(str::to_owned),
            created_by: metainfo.created_by().map(str::to_owned),
            creation_date: metainfo.creation_date(),
            files: with_files.then(|| info.files().iter().map(File::of).collect()),
        };
        Self {
            name: Some(info.name().to_owned()),
            info_hash: metainfo.info_hash().to_string(),
            length: Some(info.total_len()),
            hybrid: info.hybrid(),
            content: Some(content),
            trackers: metainfo.tiers().iter().map(|tier| shown(tier, keys)).collect(),
            web_seeds: metainfo.url_list().iter().map(|url| url.shown(keys)).collect(),
            peers: Vec::new(),
            selected_files: None,
            ignored_bytes: metainfo.trailing_len(),
            magnet: metainfo.magnet().link(keys),
            left_out: left_out(&metainfo.magnet(), keys),
        }
    }

    fn of_magnet(magnet: &Magnet, keys: Keys) -> Self {
        Self {
            name: magnet.name.clone(),
            info_hash: magnet.info_hash.to_string(),
            length: magnet.total_len,
            hybrid: magnet.hybrid,
            content: None,
            trackers: magnet.trackers.iter().map(|tracker| vec![tracker.shown(keys)]).collect(),
            web_seeds: magnet.web_seeds.iter().map(|url| url.shown(keys)).collect(),
            peers: magnet.peers.clone(),
            selected_files: magnet.selected.as_ref().map(ToString::to_string),
            ignored_bytes: 0,
            magnet: magnet.link(keys),
            left_out: left_out(magnet, keys),
        }
    }
}

/// The files of a torrent that are hidden where they are saved.
pub(super) fn hidden(metainfo: &Metainfo) -> impl Iterator<Item = &str> {
    let files = metainfo.info().files().iter().filter(|file| !file.attributes().padding);
    files.map(|file| file.path().as_str()).filter(|path| is_hidden(path))
}

fn is_hidden(path: &str) -> bool {
    path.split('/').any(|name| name.starts_with('.'))
}

/// What people are told of them: the first, and how many.
pub(super) fn told_hidden(first: &str, count: usize) -> String {
    match count {
        0 | 1 => format!("{first}: a name that begins with a dot is not shown by most programs"),
        _ => format!(
            "{first} and {} more: names that begin with a dot are not shown by most programs",
            count - 1
        ),
    }
}

impl File {
    fn of(file: &FileEntry) -> Self {
        let attributes = file.attributes();
        Self {
            path: file.path().to_string(),
            length: file.len(),
            padding: attributes.padding,
            executable: attributes.executable,
            hidden: !attributes.padding && is_hidden(file.path().as_str()),
            symlink: attributes.symlink.as_ref().map(ToString::to_string),
        }
    }
}

/// A table for people. Every text of the torrent's maker goes through [`Plain`].
impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "name", self.name.as_deref())?;
        row(f, "info-hash", Some(&self.info_hash))?;
        let files = self.content.as_ref().map(|content| content.file_count);
        row(f, "size", self.length.map(|length| size(length, files)).as_deref())?;
        if let Some(content) = &self.content {
            let hidden = content.first_hidden.as_deref();
            row(f, "hidden", hidden.map(|first| told_hidden(first, content.hidden_count)).as_deref())?;
            let pieces = format!("{} of {}", content.piece_count, ByteSize(content.piece_length.into()));
            row(f, "pieces", Some(&pieces))?;
            row(f, "private", content.private.then_some("yes: peers from its trackers only"))?;
            row(f, "comment", content.comment.as_deref())?;
            row(f, "source", content.source.as_deref())?;
            row(f, "created", content.creation_date.map(date).as_deref())?;
            row(f, "created by", content.created_by.as_deref())?;
        }
        row(
            f,
            "version",
            self.hybrid.then_some("hybrid of v1 and v2; v2 is not supported, its v1 part is used"),
        )?;
        for (number, tier) in self.trackers.iter().enumerate() {
            let label =
                if self.trackers.len() > 1 { format!("tracker {}", number + 1) } else { "tracker".into() };
            tier.iter().try_for_each(|tracker| row(f, &label, Some(tracker)))?;
        }
        self.web_seeds.iter().try_for_each(|url| row(f, "web seed", Some(url)))?;
        self.peers.iter().try_for_each(|peer| row(f, "peer", Some(peer)))?;
        row(
            f,
            "files",
            self.selected_files.as_deref().map(|chosen| format!("only {chosen}, counted from 0")).as_deref(),
        )?;
        let are = if self.ignored_bytes == 1 { "is" } else { "are" };
        let bytes = Counted(self.ignored_bytes, "byte");
        let ignored = format!("{bytes} behind the torrent's end {are} ignored");
        row(f, "note", Some(ignored.as_str()).filter(|_| self.ignored_bytes > 0))?;
        row(f, "magnet", Some(&format!("{}{}", self.magnet, self.left_out)))?;
        let files = self.content.as_ref().and_then(|content| content.files.as_deref()).unwrap_or_default();
        if !files.is_empty() {
            f.write_char('\n')?;
        }
        files.iter().try_for_each(|file| writeln!(f, "{file}"))
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10}  {}", ByteSize(self.length).to_string(), Plain(&self.path))?;
        if let Some(target) = &self.symlink {
            write!(f, " -> {}", Plain(target))?;
        }
        let marks =
            [(self.padding, " (padding)"), (self.executable, " (executable)"), (self.hidden, " (hidden)")];
        marks.iter().filter(|(set, _)| *set).try_for_each(|(_, mark)| f.write_str(mark))
    }
}

fn shown(tier: &[TrackerUrl], keys: Keys) -> Vec<String> {
    tier.iter().map(|tracker| tracker.shown(keys)).collect()
}

fn row(f: &mut fmt::Formatter<'_>, label: &str, value: Option<&str>) -> fmt::Result {
    value.map_or(Ok(()), |value| writeln!(f, "{label:<11} {}", Plain(value)))
}

fn size(length: u64, files: Option<usize>) -> String {
    let exact = if length < 1024 { String::new() } else { format!(" ({})", Counted(length, "byte")) };
    let files = match files {
        None => String::new(),
        Some(count) => format!(" in {}", Counted(count, "file")),
    };
    format!("{}{exact}{files}", ByteSize(length))
}

/// Universal time, to the second; beyond the year 9999 the bare number.
fn date(unix_seconds: u64) -> String {
    let (mut days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let mut year: u64 = 1970;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
        if year > 9999 {
            return format!("{} after 1970", Counted(unix_seconds, "second"));
        }
    }
    let mut month = 1;
    for len in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
        assert_eq!(date(u64::MAX), "18446744073709551615 seconds after 1970");
    }

    #[test]
    fn a_hostile_torrent_cannot_speak_to_the_terminal() {
        let torrent =
            b"d7:comment10:a\x1b[2J\nb\xc2\x9bc4:infod5:filesld6:lengthi1e4:pathl4:\xe2\x80\x8fxeee\
            4:name3:n\nm12:piece lengthi16384e6:pieces20:hhhhhhhhhhhhhhhhhhhh6:source2:\r!ee";
        let description = Description::of_torrent(&Metainfo::parse(torrent).unwrap(), true, Keys::Hidden);
        let text = description.to_string();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.contains("comment     a\\u{1b}[2J\\u{a}b\\u{9b}c\n"), "{text}");
        assert!(text.contains("       1 B  n_m/\\u{200f}x\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&escape::json(&description).unwrap()).unwrap();
        assert_eq!(json["comment"], "a\u{1b}[2J\nb\u{9b}c");
        assert_eq!((&json["piece_count"], &json["files"][0]["length"]), (&1.into(), &1.into()));
    }

    #[test]
    fn a_magnet_link_shows_what_little_it_says() {
        let link = format!("magnet:?xt=urn:btih:{}&tr=http://t/&dn=x", "1".repeat(40));
        assert!(is_magnet(&link) && is_magnet(" MAGNET:?") && !is_magnet("magnetic.torrent"));
        let text = Description::of_magnet(&Magnet::parse(&link).unwrap(), Keys::Hidden).to_string();
        assert!(
            text.starts_with("name        x\ninfo-hash   1111") && text.contains("tracker     http://t/\n")
        );
        assert!(!text.contains("pieces"));
    }
}
