//! What a command does, in the user's terms: torrents made, torrents read, torrents downloaded and served.

pub mod checks;
pub mod collection;
pub mod content;
pub mod downloading;
pub mod folder_watch;
pub mod load_round;
pub mod magnet_fetch;
pub mod make_torrent;
pub mod process_figures;
pub mod metrics;
pub mod metrics_server;
pub mod seeding;
pub mod mounts;
mod on_demand;
pub mod patterns;
mod storage_sink;
pub mod torrent_file;
mod watch;
