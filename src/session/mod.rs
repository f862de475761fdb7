//! What a command does, in the user's terms: torrents made, torrents read, torrents served.

pub mod content;
pub mod magnet_fetch;
pub mod make_torrent;
pub mod metrics;
pub mod metrics_server;
pub mod seeding;
pub mod torrent_file;
mod watch;
