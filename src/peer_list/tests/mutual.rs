//! Two peers that dial each other at the same time: one connection stays, the same for both.

use super::*;

/// Two peers that dial each other: what each has, and what is on its way to it.
struct Side {
    list: PeerList,
    other: SocketAddr,
    other_id: PeerId,
    /// Connections by number that this side holds open: 0 was dialled by the first side, 1 by the second.
    open: [bool; 2],
}

impl Side {
    fn new(own_id: PeerId, other: &str, other_id: PeerId) -> Self {
        let mut list = PeerList::new(PeerListSettings::new(own_id));
        assert!(list.add(START, address(other), Source::User));
        assert_eq!(dials(&mut list, START), [address(other)]);
        Self { list, other: address(other), other_id, open: [false; 2] }
    }

    /// The handshake of connection `number` is complete on this side.
    fn complete(&mut self, number: usize, dialled: bool) {
        let conn_id = conn(u32::try_from(number).expect("small"));
        let verdict = if dialled {
            self.list.handle_connected(START, self.other, conn_id, self.other_id)
        } else {
            self.list.handle_incoming(START, self.other.ip(), Some(self.other), conn_id, self.other_id)
        };
        self.open[number] = verdict != Verdict::CloseNew;
        if let Verdict::CloseOld(old) = verdict {
            self.open[old.slot as usize] = false;
        }
    }

    /// The other side has closed connection `number`.
    fn hear_close(&mut self, number: usize) {
        if self.open[number] {
            self.open[number] = false;
            self.list.handle_closed(START, conn(u32::try_from(number).expect("small")), Closed::Normal);
        }
    }
}

#[test]
fn when_two_peers_dial_each_other_both_keep_the_same_connection_in_whatever_order_they_see_the_two() {
    for (first_id, second_id) in [(SMALL, GREAT), (GREAT, SMALL)] {
        // Each bit is the order in which one side completes the two handshakes.
        for order in 0..4 {
            let mut sides = [
                Side::new(first_id, "192.0.2.2:1", second_id),
                Side::new(second_id, "192.0.2.1:1", first_id),
            ];
            for (place, side) in sides.iter_mut().enumerate() {
                let begin = order >> place & 1;
                for number in [begin, 1 - begin] {
                    side.complete(number, number == place);
                }
            }
            // One side closes, and the other hears of it.
            let closed: Vec<_> =
                (0..2).map(|number| sides[0].open[number] && sides[1].open[number]).collect();
            for (number, open) in closed.into_iter().enumerate() {
                if !open {
                    sides.iter_mut().for_each(|side| side.hear_close(number));
                }
            }
            assert_eq!(sides[0].open, sides[1].open, "they agree");
            let kept = usize::from(first_id < second_id);
            assert!(sides[0].open[kept] && !sides[0].open[1 - kept], "the greater one's connection stays");
            for (place, side) in sides.iter().enumerate() {
                assert_eq!(side.list.connected(), 1);
                let other = side.other.to_string();
                let kept = Standing::Connected(conn(u32::try_from(kept).expect("small")));
                assert_eq!(standing(&side.list, &other), Some(kept), "side {place} does not dial again");
                side.list.candidates.check();
            }
        }
    }
}

#[test]
fn when_two_peers_dial_each_other_one_connection_survives_every_order_of_handshakes_and_closes() {
    // Events: completion of either connection on either side. A close travels at once, before what comes after.
    for (first_id, second_id) in [(SMALL, GREAT), (GREAT, SMALL)] {
        for code in 0..24 {
            let mut left: Vec<(usize, usize)> = vec![(0, 0), (0, 1), (1, 0), (1, 1)];
            let mut sides = [
                Side::new(first_id, "192.0.2.2:1", second_id),
                Side::new(second_id, "192.0.2.1:1", first_id),
            ];
            let (mut closed, mut code) = ([false; 2], code);
            while !left.is_empty() {
                let (place, number) = left.remove(code % left.len());
                code /= left.len() + 1;
                if closed[number] {
                    if number == place {
                        let other = sides[place].other;
                        sides[place].list.handle_dial_failed(START, other);
                    }
                    continue;
                }
                let before = sides[place].open;
                sides[place].complete(number, number == place);
                for each in 0..2 {
                    let ended = !sides[place].open[each] && (before[each] || each == number);
                    if ended {
                        closed[each] = true;
                        sides[1 - place].hear_close(each);
                    }
                }
            }
            assert_eq!(sides[0].open, sides[1].open);
            assert_eq!(sides[0].open.iter().filter(|open| **open).count(), 1);
        }
    }
}
