//! The tracker client against scripted trackers on loopback, kind and hostile ones.

mod both_protocols;
mod hostile_http;
mod http;
mod life;
mod scripted;
mod udp;
