//! Whatever a peer says, in whatever order: requests have one answer, and nothing panics.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Say(Message<'static>),
    Choke(bool),
    Send,
    Wait(u64),
}

fn any_span() -> impl Strategy<Value = BlockSpan> {
    let begin = prop_oneof![(0..6u32).prop_map(|number| number * BLOCK_LEN), any::<u32>()];
    let len = prop_oneof![4 => Just(BLOCK_LEN), 1 => any::<u32>()];
    let piece = prop_oneof![9 => 0..PIECES + 2, 1 => any::<u32>()];
    (piece, begin, len).prop_map(|(piece, begin, len)| BlockSpan { piece: PieceIndex(piece), begin, len })
}

fn any_step() -> impl Strategy<Value = Step> {
    let piece = (0..PIECES).prop_map(PieceIndex);
    let message = prop_oneof![
        8 => (0..3u32, 0..4u32).prop_map(|(piece, number)| Message::Request(block(piece, number))),
        2 => any_span().prop_map(Message::Request),
        2 => (0..3u32, 0..4u32).prop_map(|(piece, number)| Message::Cancel(block(piece, number))),
        1 => any_span().prop_map(Message::Cancel),
        1 => Just(Message::Interested),
        1 => Just(Message::NotInterested),
        1 => Just(Message::Choke),
        1 => Just(Message::Unchoke),
        1 => Just(Message::KeepAlive),
        1 => Just(Message::HaveNone),
        1 => piece.clone().prop_map(Message::Have),
        1 => piece.clone().prop_map(Message::Suggest),
        1 => piece.prop_map(Message::AllowedFast),
        1 => any::<u16>().prop_map(Message::Port),
        1 => Just(Message::Extended { id: 0, payload: b"d1:v1:xe" }),
        1 => Just(Message::Unknown { id: 200, len: 0 }),
    ];
    prop_oneof![
        20 => message.prop_map(Step::Say),
        2 => any::<bool>().prop_map(Step::Choke),
        4 => Just(Step::Send),
        1 => (0..200u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn every_request_has_at_most_one_answer_and_the_choked_get_nothing_but_fast_pieces(
        fast: bool,
        steps in prop::collection::vec(any_step(), 0..400),
    ) {
        let mut talk = Talk::open(if fast { FAST_ONLY } else { PLAIN });
        let (mut unanswered, mut fast_pieces) = (Vec::new(), Vec::new());
        let answer = |unanswered: &mut Vec<BlockSpan>, span| {
            let place = unanswered.iter().position(|asked| *asked == span);
            place.map(|place| unanswered.swap_remove(place)).is_some()
        };
        for step in steps {
            match step {
                Step::Say(message) => {
                    if let Message::Request(span) = message {
                        unanswered.push(span);
                    }
                    if talk.say(&[message]).is_err() {
                        return Ok(());
                    }
                }
                Step::Choke(choke) => talk.machine.handle_choke(choke),
                Step::Send => {
                    if let Some(span) = talk.machine.next_block() {
                        prop_assert!(facts().check(span).is_ok());
                        prop_assert!(!talk.machine.choked_by_us() || fast_pieces.contains(&span.piece));
                        prop_assert_eq!(talk.machine.poll_block(), Some(span));
                        prop_assert!(answer(&mut unanswered, span), "{} was not asked for", span);
                    }
                }
                Step::Wait(seconds) => {
                    talk.now += Duration::from_secs(seconds);
                    if talk.machine.handle_timeout(talk.now).is_err() {
                        return Ok(());
                    }
                    prop_assert!(talk.machine.poll_timeout() > talk.now);
                }
            }
            prop_assert!(talk.machine.buffered_bytes() <= CONTROL_QUEUED_LEN_MAX + 2 * 17 * REQUESTS_QUEUED_MAX);
            for message in talk.heard() {
                match message {
                    Message::Reject(span) => {
                        prop_assert!(fast && answer(&mut unanswered, span), "{} was not asked for", span);
                    }
                    Message::AllowedFast(piece) => fast_pieces.push(piece),
                    _ => {}
                }
            }
        }
        // With the fast extension no request stays without an answer.
        while let Some(span) = talk.machine.poll_block() {
            prop_assert!(answer(&mut unanswered, span));
        }
        prop_assert!(!fast || unanswered.is_empty(), "{:?}", unanswered);
    }

    #[test]
    fn arbitrary_bytes_in_arbitrary_parts_never_panic(parts in prop::collection::vec(
        prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0..21u8, 1 => any::<u8>()], 0..60), 0..30)) {
        let mut talk = Talk::unchoked(Reserved::OURS);
        for part in parts {
            if talk.feed(&part).is_err() {
                break;
            }
            prop_assert!(talk.machine.next_block().is_none_or(|span| facts().check(span).is_ok()));
        }
    }
}
