//! What a command does, in the user's terms: torrents made, torrents read, torrents downloaded and served.

pub mod collection;
pub mod content;
pub mod downloading;
pub mod folder_watch;
pub mod magnet_fetch;
pub mod make_torrent;
pub mod process_figures;
pub mod metrics;
pub mod metrics_server;
pub mod seeding;
mod on_demand;
mod storage_sink;
pub mod torrent_file;
mod watch;
