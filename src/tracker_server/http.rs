//! The HTTP side: four paths, on connections that `http_server` bounds.
//!
//! `/announce` and `/scrape` answer clients, `/` and `/stats` people and scripts, with sums only.

use super::metrics;
use super::proxy::TrustedProxies;
use super::{Shared, TrackerStatistics, lock};
use crate::clock;
use crate::exposition::Format;
use crate::http_server::{self, Answer, Connections, Tls, answer, plain, refuse_all_but_get};
use crate::tracker_wire::http::response::encode_failure;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::TcpListener;

/// What all listeners serve from.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) shared: Shared,
    pub(super) connections: Connections,
    pub(super) proxies: Rc<TrustedProxies>,
    pub(super) tls: Option<Tls>,
}

/// Serves one listener for ever.
pub(super) async fn serve(listener: TcpListener, service: Service) {
    let Service { shared, connections, proxies, tls } = service;
    let respond = move |request: Request<Incoming>, source| {
        std::future::ready(respond(&shared, &proxies, &request, source))
    };
    http_server::serve_maybe_tls(listener, connections, tls, respond).await;
}

/// Serves the tracker's figures on a listener of their own, for ever.
pub(super) async fn serve_metrics(listener: TcpListener, shared: Shared, connections: Connections) {
    let respond = move |request: Request<Incoming>, _| {
        let refusal = refuse_all_but_get(&request);
        let other = || plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
        std::future::ready(refusal.unwrap_or_else(|| match request.uri().path() {
            "/metrics" => {
                let format = Format::wanted(request.headers());
                let text = metrics::render(&lock(&shared).statistics(), format);
                answer(StatusCode::OK, format.content_type(), text.into())
            }
            _ => other(),
        }))
    };
    http_server::serve(listener, connections, respond).await;
}

fn respond(
    shared: &Shared,
    proxies: &TrustedProxies,
    request: &Request<Incoming>,
    source: SocketAddr,
) -> Answer {
    if let Some(refusal) = refuse_all_but_get(request) {
        return refusal;
    }
    let query = request.uri().query().unwrap_or_default();
    match request.uri().path() {
        "/announce" => match proxies.client(source, request.headers()) {
            Ok(client) => bencoded(lock(shared).answer_http_announce(clock::now(), query, client)),
            Err(error) => {
                lock(shared).count_refused();
                let mut body = Vec::new();
                encode_failure(&mut body, &error.to_string());
                bencoded(body)
            }
        },
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
