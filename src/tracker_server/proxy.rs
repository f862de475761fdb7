//! Who asks when a proxy stands in front of the tracker.
//!
//! Only proxies that the tracker's owner named are believed. They say whom they speak for in `X-Forwarded-For`, or in
//! `Forwarded` (RFC 7239). A client can write there, too, and proxies append, so the lists are read from their end: the
//! first address that is no trusted proxy's is the client. A proxy passes on what it does not know, so two headers that
//! disagree, or one that cannot be read, are refused rather than believed.

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderValue};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TrustedProxies(Vec<IpNet>);

/// Why it is not known who asks; the fault of the proxy's settings, or an attempt to be taken for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ForwardError {
    /// An entry is no address, or hides it.
    #[error("the proxy in front of this tracker does not tell who asks")]
    Unreadable,
    /// The two headers name different clients.
    #[error("the proxy in front of this tracker names two clients")]
    Contradiction,
}

impl TrustedProxies {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `ip` is a trusted proxy's.
    pub(super) fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// Who asks over a connection from `source`. A trusted proxy that names nobody asks for itself.
    pub(super) fn client(&self, source: SocketAddr, headers: &HeaderMap) -> Result<SocketAddr, ForwardError> {
        if !self.trusts(source.ip()) {
            return Ok(source);
        }
        let plain = values(headers.get_all(X_FORWARDED_FOR).iter())?;
        let standard = values(headers.get_all(FORWARDED).iter())?;
        let plain = plain.map(|list| self.last_untrusted(list.rsplit(',').map(node)));
        let standard =
            standard.map(|list| self.last_untrusted(elements(&list).into_iter().rev().map(forwarded_for)));
        let client = match (plain.transpose()?, standard.transpose()?) {
            (None, None) => return Ok(source),
            (Some(one), Some(other)) if one != other => return Err(ForwardError::Contradiction),
            (Some(client), _) | (None, Some(client)) => client,
        };
        Ok(SocketAddr::new(client, source.port()))
    }

    /// The first of `nodes` that is no trusted proxy, or the last of them.
    fn last_untrusted(&self, nodes: impl Iterator<Item = Option<IpAddr>>) -> Result<IpAddr, ForwardError> {
        let mut last = Err(ForwardError::Unreadable);
        for node in nodes {
            let ip = node.ok_or(ForwardError::Unreadable)?;
            last = Ok(ip);
            if !self.trusts(ip) {
                break;
            }
        }
        last
    }
}

/// All values of one header as one list; `None` without any.
fn values<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Result<Option<String>, ForwardError> {
    let texts: Result<Vec<&str>, _> = values.map(HeaderValue::to_str).collect();
    let texts = texts.map_err(|_| ForwardError::Unreadable)?;
    Ok((!texts.is_empty()).then(|| texts.join(",")))
}

/// The elements of a `Forwarded` list; commas within quotes do not part them.
fn elements(list: &str) -> Vec<&str> {
    split_outside_quotes(list, ',')
}

/// The address behind `for=` in one element.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = split_outside_quotes(element, ';').into_iter().filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (_, value) = named.next()?;
    node(value.trim().trim_matches('"'))
}

fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|character: char| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return character == separator && !quoted,
        }
        false
    })
    .collect()
}

/// An address, which may have a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    ip.ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proxies() -> TrustedProxies {
        let networks = ["127.0.0.1/32", "10.0.0.0/8", "2001:db8:cafe::/48"];
        TrustedProxies::new(networks.iter().map(|network| network.parse().expect("a network")).collect())
    }

    /// Who asks over a connection from `source` with these headers.
    fn client(source: &str, headers: &[(&'static str, &str)]) -> Result<String, ForwardError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).expect("a header's value"));
        }
        let client = proxies().client(SocketAddr::new(source.parse().expect("an address"), 7), &map)?;
        Ok(client.ip().to_string())
    }

    const PLAIN: &str = "x-forwarded-for";
    const STANDARD: &str = "forwarded";

    #[test]
    fn only_trusted_proxies_are_believed() {
        let told = [(PLAIN, "198.51.100.1")];
        assert_eq!(client("127.0.0.1", &told).unwrap(), "198.51.100.1");
        assert_eq!(client("::ffff:127.0.0.1", &told).unwrap(), "198.51.100.1");
        assert_eq!(client("2001:db8:cafe:1::1", &told).unwrap(), "198.51.100.1");
        assert_eq!(client("127.0.0.2", &told).unwrap(), "127.0.0.2");
        assert_eq!(client("2001:db8:beef::1", &told).unwrap(), "2001:db8:beef::1");
        assert_eq!(client("192.0.2.1", &[(STANDARD, "for=198.51.100.1")]).unwrap(), "192.0.2.1");
        assert_eq!(client("127.0.0.1", &[]).unwrap(), "127.0.0.1");
    }

    #[test]
    fn lists_are_read_from_their_end_up_to_the_first_that_is_not_trusted() {
        for (value, expected) in [
            ("6.6.6.6, 198.51.100.1", "198.51.100.1"),
            ("6.6.6.6,198.51.100.1,10.1.2.3", "198.51.100.1"),
            ("6.6.6.6, 2001:db8::1 , 10.1.2.3, 2001:db8:cafe::9", "2001:db8::1"),
            ("garbage, 198.51.100.1", "198.51.100.1"),
            ("198.51.100.1:4711", "198.51.100.1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
            // All are ours: the one farthest away asks.
            ("10.9.9.9, 10.1.2.3", "10.9.9.9"),
        ] {
            assert_eq!(client("127.0.0.1", &[(PLAIN, value)]).unwrap(), expected, "{value}");
        }
        let split = [(PLAIN, "6.6.6.6"), (PLAIN, "198.51.100.1"), (PLAIN, "10.0.0.1")];
        assert_eq!(client("127.0.0.1", &split).unwrap(), "198.51.100.1");
    }

    #[test]
    fn the_standard_header_is_read_with_its_quotes() {
        for (value, expected) in [
            ("for=198.51.100.1", "198.51.100.1"),
            ("For=\"198.51.100.1:80\";proto=https;by=10.0.0.1", "198.51.100.1"),
            ("for=6.6.6.6, for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("proto=http;for=\"[2001:db8::1]\",for=10.0.0.7", "2001:db8::1"),
            ("for=198.51.100.1;host=\"a,b;for=6.6.6.6\"", "198.51.100.1"),
            ("for=6.6.6.6;host=\"\\\"\", for=198.51.100.1", "198.51.100.1"),
        ] {
            assert_eq!(client("127.0.0.1", &[(STANDARD, value)]).unwrap(), expected, "{value}");
        }
    }

    #[test]
    fn what_cannot_be_believed_is_refused() {
        for headers in [
            vec![(PLAIN, "")],
            vec![(PLAIN, "unknown")],
            vec![(PLAIN, "198.51.100.1, example.com")],
            vec![(PLAIN, "198.51.100.1,")],
            vec![(STANDARD, "for=unknown")],
            vec![(STANDARD, "for=_hidden")],
            vec![(STANDARD, "proto=https")],
            vec![(STANDARD, "for=198.51.100.1, proto=https")],
        ] {
            assert_eq!(client("127.0.0.1", &headers), Err(ForwardError::Unreadable), "{headers:?}");
        }
        // A proxy that writes one header passes the other on from whoever wrote it.
        let forged = [(PLAIN, "198.51.100.1"), (STANDARD, "for=6.6.6.6")];
        assert_eq!(client("127.0.0.1", &forged), Err(ForwardError::Contradiction));
        let same = [(PLAIN, "198.51.100.1"), (STANDARD, "for=198.51.100.1")];
        assert_eq!(client("127.0.0.1", &same).unwrap(), "198.51.100.1");
    }

    proptest! {
        #[test]
        fn no_header_panics_and_none_of_a_stranger_counts(value in "[ -~]{0,60}") {
            let _ = client("127.0.0.1", &[(PLAIN, &value)]);
            let _ = client("127.0.0.1", &[(STANDARD, &value)]);
            prop_assert_eq!(client("192.0.2.1", &[(PLAIN, &value), (STANDARD, &value)]).unwrap(), "192.0.2.1");
        }
    }
}
