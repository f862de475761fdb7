//! Who may name whom.

use super::*;

fn list() -> PeerList {
    PeerList::new(PeerListSettings::new(PeerId([1; 20])))
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("a literal address")
}

#[test]
fn a_tracker_names_nobody_nearer_than_it_is_itself_in_whatever_form() {
    let near = [
        ("127.0.0.1:22", Scope::Loopback),
        ("[::ffff:127.0.0.1]:8080", Scope::Loopback),
        ("[::1]:8081", Scope::Loopback),
        ("[64:ff9b::127.0.0.1]:80", Scope::Loopback),
        ("169.254.169.254:80", Scope::Lan),
        ("192.168.1.1:22", Scope::Lan),
        ("172.16.0.1:22", Scope::Lan),
        ("10.0.0.1:25", Scope::Lan),
        ("100.64.0.1:22", Scope::Lan),
        ("[fd00::1]:22", Scope::Lan),
        ("[2002:a00:1::1]:22", Scope::Lan),
        ("192.0.2.1:22", Scope::Global),
    ];
    for (text, scope) in near {
        for tracker in [Scope::Global, Scope::Lan, Scope::Loopback] {
            let mut list = list();
            let is_taken = list.add(Instant::ZERO, address(text), Source::Tracker(tracker));
            assert_eq!(is_taken, scope <= tracker, "{text} by a tracker at {tracker:?}");
        }
        let lan_allowed = PeerListSettings { lan_allowed: true, ..PeerListSettings::new(PeerId([1; 20])) };
        assert!(
            PeerList::new(lan_allowed).add(Instant::ZERO, address(text), Source::Tracker(Scope::Global)),
            "{text}"
        );
    }
    for text in ["0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80", "[ff02::1]:80", "192.0.2.1:0"] {
        assert!(!list().add(Instant::ZERO, address(text), Source::Tracker(Scope::Loopback)), "{text}");
    }
}

#[test]
fn what_is_nobodys_our_own_or_not_the_tellers_business_is_not_taken() {
    let own = vec![address("192.0.2.1:6881")];
    let mut list =
        PeerList::new(PeerListSettings { own, own_port: Some(7), ..PeerListSettings::new(PeerId([1; 20])) });
    for text in [
        "1.2.3.4:0",
        "0.0.0.0:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "[::]:1",
        "[ff02::1]:1",
        "192.0.2.1:6881",
    ] {
        assert!(!list.add(Instant::ZERO, address(text), Source::User), "{text}");
    }
    for text in
        ["127.0.0.1:1", "10.0.0.1:1", "169.254.0.1:1", "[::1]:1", "[fd00::1]:1", "[::ffff:10.0.0.1]:1"]
    {
        assert!(!list.add(Instant::ZERO, address(text), Source::Pex), "{text}");
        assert!(!list.add(Instant::ZERO, address(text), Source::Dht), "{text}");
        assert!(!list.add(Instant::ZERO, address(text), Source::Tracker(Scope::Global)), "{text}");
    }
    assert!(list.add(Instant::ZERO, address("10.0.0.1:1"), Source::Tracker(Scope::Lan)));
    assert!(list.add(Instant::ZERO, address("[::ffff:1.2.3.4]:1"), Source::Pex));
    assert!(!list.add(Instant::ZERO, address("1.2.3.4:1"), Source::Tracker(Scope::Global)));
    for voter in 1..=3 {
        list.handle_your_address(IpAddr::from([9, 9, voter, 9]), IpAddr::from([8, 8, 8, 8]));
    }
    assert!(!list.add(Instant::ZERO, address("8.8.8.8:7"), Source::Tracker(Scope::Global)));
    assert!(list.add(Instant::ZERO, address("8.8.8.8:8"), Source::Tracker(Scope::Global)));
}
