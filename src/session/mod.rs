//! What a command does, in the user's terms: torrents made, torrents read.

pub mod make_torrent;
pub mod torrent_file;
