//! Requests, cancels and chokes: what is queued, what is turned down, and who has asked for too much.

use super::*;

fn bad_requests() -> Vec<(BlockSpan, SpanFault)> {
    let request = |piece, begin, len| BlockSpan { piece: PieceIndex(piece), begin, len };
    vec![
        (request(PIECES, 0, BLOCK_LEN), SpanFault::PieceOutOfRange),
        (request(u32::MAX, 0, BLOCK_LEN), SpanFault::PieceOutOfRange),
        (request(0, PIECE - BLOCK_LEN, BLOCK_LEN + 1), SpanFault::BehindPiece),
        (request(0, PIECE, BLOCK_LEN), SpanFault::BehindPiece),
        (request(20, BLOCK_LEN, BLOCK_LEN), SpanFault::BehindPiece),
        (request(0, 0, 0), SpanFault::Length),
        (request(0, 0, REQUEST_LEN_MAX + 1), SpanFault::Length),
        (request(0, 0, u32::MAX), SpanFault::Length),
        (request(0, 1, BLOCK_LEN), SpanFault::Unaligned),
        (request(0, BLOCK_LEN - 1, 1), SpanFault::Unaligned),
        (request(0, !(BLOCK_LEN - 1), BLOCK_LEN), SpanFault::BehindPiece),
        (request(u32::MAX, !(BLOCK_LEN - 1), u32::MAX), SpanFault::PieceOutOfRange),
    ]
}

#[test]
fn a_bad_request_is_rejected_where_rejects_are_understood_and_never_queued() {
    for (span, _) in bad_requests() {
        let mut talk = Talk::unchoked(FAST_ONLY);
        talk.tell(Message::Request(span));
        assert_eq!(talk.heard(), [Message::Reject(span)]);
        assert_eq!(talk.blocks(), []);
        assert_eq!(talk.say(&[Message::Request(block(0, 0))]), Ok(vec![]));
        assert_eq!(talk.blocks(), [block(0, 0)], "one bad request does not spoil the next");
    }
}

#[test]
fn a_bad_request_ends_the_connection_where_rejects_are_not_understood() {
    for (span, fault) in bad_requests() {
        let mut talk = Talk::unchoked(PLAIN);
        assert_eq!(talk.say(&[Message::Request(span)]), Err(PeerError::BadRequest(span, fault)));
        assert_eq!(talk.blocks(), []);
    }
}

#[test]
fn bad_requests_without_end_end_the_connection() {
    let mut talk = Talk::unchoked(FAST_ONLY);
    let bad = Message::Request(block(PIECES, 0));
    for _ in 0..REJECTS_MAX {
        talk.tell(bad);
    }
    assert_eq!(talk.heard().len(), REJECTS_MAX as usize);
    assert_eq!(talk.say(&[bad]), Err(PeerError::RequestFlood));
}

#[test]
fn a_request_for_a_piece_that_is_not_here_is_no_fault() {
    let span = BlockSpan { piece: MISSING, begin: 0, len: BLOCK_LEN };
    let mut talk = Talk::unchoked(FAST_ONLY);
    for _ in 0..REJECTS_MAX * 2 {
        talk.tell(Message::Request(span));
        assert_eq!(talk.heard(), [Message::Reject(span)]);
    }
    let mut talk = Talk::unchoked(PLAIN);
    talk.tell(Message::Request(span));
    assert!(!talk.machine.has_output());
}

#[test]
fn requests_are_offered_in_the_order_they_came() {
    let mut talk = Talk::unchoked(PLAIN);
    let spans = [block(3, 1), block(0, 0), block(3, 0)];
    talk.say(&spans.map(Message::Request)).unwrap();
    assert_eq!(talk.machine.next_block(), Some(spans[0]));
    assert_eq!(talk.blocks(), spans);
    assert!(!talk.machine.has_output());
}

#[test]
fn a_queue_that_runs_over_is_answered_with_rejects_and_then_with_the_end() {
    for (reserved, queued) in [(FAST_ONLY, REQUESTS_QUEUED_MAX), (PLAIN, REQUEST_RUNS_MAX)] {
        let rejects = if reserved == PLAIN { 0 } else { REJECTS_MAX as usize };
        let mut talk = Talk::unchoked(reserved);
        for _ in 0..queued {
            talk.tell(Message::Request(block(0, 0)));
        }
        assert_eq!(talk.heard(), []);
        for _ in 0..REJECTS_MAX {
            talk.tell(Message::Request(block(1, 1)));
        }
        assert_eq!(talk.heard(), vec![Message::Reject(block(1, 1)); rejects]);
        assert_eq!(talk.say(&[Message::Request(block(1, 1))]), Err(PeerError::RequestFlood));
        assert_eq!(talk.blocks(), vec![block(0, 0); queued]);
    }
}

#[test]
fn requests_from_a_choked_peer_are_turned_down_and_a_flood_of_them_ends_the_connection() {
    for (reserved, rejects) in [(FAST_ONLY, 1), (PLAIN, 0)] {
        let mut talk = Talk::open(reserved);
        for _ in 0..REQUESTS_WHILE_CHOKED_MAX {
            talk.tell(Message::Request(block(0, 0)));
            assert_eq!(talk.heard(), vec![Message::Reject(block(0, 0)); rejects]);
            assert!(!talk.machine.has_output());
        }
        assert_eq!(talk.say(&[Message::Request(block(0, 0))]), Err(PeerError::RequestFlood));
    }
}

#[test]
fn a_full_pipeline_that_crosses_each_choke_is_no_flood() {
    let mut talk = Talk::open(FAST_ONLY);
    for _ in 0..10 {
        talk.machine.handle_choke(false);
        talk.machine.handle_choke(true);
        for _ in 0..REQUESTS_QUEUED_MAX {
            talk.tell(Message::Request(block(0, 0)));
        }
        talk.heard();
    }
}

#[test]
fn a_choke_clears_the_queue_and_rejects_what_waited_where_that_is_understood() {
    for reserved in [FAST_ONLY, PLAIN] {
        let mut talk = Talk::unchoked(reserved);
        let spans = [block(0, 0), block(0, 1), block(0, 1)];
        talk.say(&spans.map(Message::Request)).unwrap();
        talk.machine.handle_choke(true);
        let mut expected = vec![Message::Choke];
        if reserved == FAST_ONLY {
            expected.extend(spans.map(Message::Reject));
        }
        assert_eq!((talk.heard(), talk.blocks()), (expected, vec![]));
        talk.machine.handle_choke(true);
        assert!(!talk.machine.has_output(), "a second choke says nothing new");
    }
}

#[test]
fn a_cancel_is_answered_once_by_a_reject_or_by_silence() {
    let mut talk = Talk::unchoked(FAST_ONLY);
    talk.tell(Message::Cancel(block(0, 0)));
    assert!(!talk.machine.has_output(), "nothing was asked");
    talk.say(&[Message::Request(block(0, 0)), Message::Request(block(0, 1))]).unwrap();
    talk.tell(Message::Cancel(block(0, 0)));
    assert_eq!(talk.heard(), [Message::Reject(block(0, 0))]);
    talk.tell(Message::Cancel(block(0, 0)));
    assert_eq!(talk.heard(), [], "it has been answered");
    assert_eq!(talk.blocks(), [block(0, 1)]);
    talk.tell(Message::Cancel(block(0, 1)));
    assert_eq!(talk.heard(), [], "its block is on its way");

    let mut talk = Talk::unchoked(PLAIN);
    talk.tell(Message::Request(block(0, 0)));
    talk.tell(Message::Cancel(block(0, 0)));
    assert!(!talk.machine.has_output());
}

#[test]
fn a_cancel_of_a_span_that_could_never_be_asked_for_is_ignored() {
    let mut talk = Talk::unchoked(PLAIN);
    for (span, _) in bad_requests() {
        talk.tell(Message::Cancel(span));
    }
    assert!(!talk.machine.has_output());
}

#[test]
fn who_makes_us_answer_without_reading_is_left() {
    let mut talk = Talk::unchoked(FAST_ONLY);
    let span = BlockSpan { piece: MISSING, begin: 0, len: BLOCK_LEN };
    let mut answers = 0;
    while answers <= CONTROL_QUEUED_LEN_MAX && talk.say(&[Message::Request(span)]).is_ok() {
        answers += 1;
    }
    assert_eq!(answers, CONTROL_QUEUED_LEN_MAX / 17);
    assert_eq!(talk.say(&[Message::Request(span)]), Err(PeerError::NotReading));
}
