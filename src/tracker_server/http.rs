//! The HTTP side: four paths, on connections that `http_server` bounds.
//!
//! `/announce` and `/scrape` answer clients, `/` and `/stats` people and scripts, with sums only.

use super::{Shared, TrackerStatistics, lock};
use crate::clock;
use crate::http_server::{self, Answer, Connections, answer, plain, refuse_all_but_get};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Serves one listener for ever.
pub(super) async fn serve(listener: TcpListener, shared: Shared, connections: Connections) {
    let respond =
        move |request: Request<Incoming>, source| std::future::ready(respond(&shared, &request, source));
    http_server::serve(listener, connections, respond).await;
}

fn respond(shared: &Shared, request: &Request<Incoming>, source: SocketAddr) -> Answer {
    if let Some(refusal) = refuse_all_but_get(request) {
        return refusal;
    }
    let query = request.uri().query().unwrap_or_default();
    match request.uri().path() {
        "/announce" => bencoded(lock(shared).answer_http_announce(clock::now(), query, source)),
        "/scrape" => bencoded(lock(shared).answer_http_scrape(query)),
        "/" => plain(StatusCode::OK, summary(&lock(shared).statistics())),
        "/stats" => json(&lock(shared).statistics()),
        _ => plain(StatusCode::NOT_FOUND, "a tracker answers at /announce and /scrape\n"),
    }
}

fn bencoded(body: Vec<u8>) -> Answer {
    // BEP 3 has no media type of its own; trackers say text/plain.
    answer(StatusCode::OK, "text/plain", body.into())
}

fn json(statistics: &TrackerStatistics) -> Answer {
    answer(StatusCode::OK, "application/json", format!("{}\n", statistics.to_json()).into())
}

fn summary(statistics: &TrackerStatistics) -> String {
    format!("seedring {} tracker: {statistics}\n", env!("CARGO_PKG_VERSION"))
}
