//! The side that was dialled: answers a public key with its own, finds the torrent, and selects how payload goes.

use super::dh::{KEY_LEN, Secret};
use super::error::MseError;
use super::gather::{Gather, take};
use super::handshake::Progress;
use super::policy::{CryptoChoice, CryptoMethod, CryptoMethods};
use super::session::{CONSTANT, Pads, Session, masked, request_mark};
use super::skey::{SkeyHash, SkeyLookup};
use crate::limits::{MSE_INITIAL_PAYLOAD_LEN_MAX, MSE_PAD_LEN_MAX};
use std::mem;

#[derive(Debug)]
pub(super) struct Incoming {
    secret: Secret,
    pads: Pads,
    choice: CryptoChoice,
    gather: Gather,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The peer's public key is to come.
    PublicKey,
    /// Its pad is to come, and the mark behind it.
    Mark(Box<[u8; KEY_LEN]>, [u8; 20]),
    /// The torrent's masked name is to come.
    Name(Box<[u8; KEY_LEN]>),
    /// The verification constant is to come, what is provided, and the length of the second pad.
    Provided(Box<Session>),
    /// That much of the second pad is to come.
    Pad(Box<Session>, CryptoMethod, usize),
    /// The length of the initial payload is to come.
    PayloadLen(Box<Session>, CryptoMethod),
    /// That much of the initial payload is to come.
    Payload(Box<Session>, CryptoMethod, Vec<u8>, usize),
    /// Nothing more is taken.
    Finished,
}

/// What one step comes to.
enum Step {
    /// The input does not suffice.
    Wait(State),
    Next(State),
    Done(Progress),
}

impl Incoming {
    pub(super) fn new(secret: Secret, pads: Pads, choice: CryptoChoice) -> Self {
        Self { secret, pads, choice, gather: Gather::default(), state: State::PublicKey }
    }

    pub(super) fn handle_bytes(
        &mut self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        skeys: &dyn SkeyLookup,
    ) -> Result<Progress, MseError> {
        loop {
            let state = mem::replace(&mut self.state, State::Finished);
            match self.step(state, input, output, skeys)? {
                Step::Wait(state) => {
                    self.state = state;
                    return Ok(Progress::Pending);
                }
                Step::Next(state) => self.state = state,
                Step::Done(progress) => return Ok(progress),
            }
        }
    }

    pub(super) fn key_left(&self) -> Option<usize> {
        matches!(self.state, State::PublicKey).then(|| KEY_LEN - self.gather.len())
    }

    fn step(
        &mut self,
        state: State,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        skeys: &dyn SkeyLookup,
    ) -> Result<Step, MseError> {
        Ok(match state {
            State::PublicKey => match self.gather.field(input) {
                None => Step::Wait(State::PublicKey),
                Some(key) => Step::Next(self.answer(&key, output)?),
            },
            State::Mark(shared, mark) => {
                if self.gather.pass_mark(&mark, input)? {
                    Step::Next(State::Name(shared))
                } else {
                    Step::Wait(State::Mark(shared, mark))
                }
            }
            State::Name(shared) => match self.gather.field(input) {
                None => Step::Wait(State::Name(shared)),
                Some(name) => {
                    let name = SkeyHash(masked(name, &shared));
                    let info_hash = skeys.info_hash(&name).ok_or(MseError::UnknownTorrent)?;
                    Step::Next(State::Provided(Session::new(false, &shared, info_hash)))
                }
            },
            State::Provided(mut session) => match self.gather.field::<14>(input) {
                None => Step::Wait(State::Provided(session)),
                Some(field) => {
                    let (method, pad_len) = self.selected(session.decrypted(field))?;
                    Step::Next(State::Pad(session, method, pad_len))
                }
            },
            State::Pad(mut session, method, mut left) => {
                session.decrypt.skip(take(&mut left, input).len());
                if left == 0 {
                    Step::Next(State::PayloadLen(session, method))
                } else {
                    Step::Wait(State::Pad(session, method, left))
                }
            }
            State::PayloadLen(mut session, method) => match self.gather.field(input) {
                None => Step::Wait(State::PayloadLen(session, method)),
                Some(field) => {
                    let len = u16::from_be_bytes(session.decrypted(field));
                    if usize::from(len) > MSE_INITIAL_PAYLOAD_LEN_MAX {
                        return Err(MseError::InitialPayloadLength { len });
                    }
                    self.confirm(&mut session, method, output);
                    Step::Next(State::Payload(session, method, Vec::new(), len.into()))
                }
            },
            State::Payload(mut session, method, mut payload, mut left) => {
                let start = payload.len();
                payload.extend_from_slice(take(&mut left, input));
                session.decrypt.apply(&mut payload[start..]);
                if left == 0 {
                    Step::Done(Progress::Established(session.establish(method, payload)))
                } else {
                    Step::Wait(State::Payload(session, method, payload, left))
                }
            }
            State::Finished => Step::Done(Progress::Pending),
        })
    }

    /// Answers the peer's public key, if it is worth an answer.
    fn answer(&mut self, key: &[u8; KEY_LEN], output: &mut Vec<u8>) -> Result<State, MseError> {
        let shared = self.secret.shared(key).ok_or(MseError::WeakPublicKey)?;
        output.extend_from_slice(&self.secret.public_key());
        self.pads.append_first(output);
        Ok(State::Mark(Box::new(shared), request_mark(&shared)))
    }

    fn selected(&self, field: [u8; 14]) -> Result<(CryptoMethod, usize), MseError> {
        let [constant @ .., a, b, c, d, high, low] = field;
        if constant != CONSTANT {
            return Err(MseError::WrongConstant);
        }
        let (provided, accepted) = (CryptoMethods(u32::from_be_bytes([a, b, c, d])), self.choice.methods);
        let method = self.choice.select(provided).ok_or(MseError::NoCommonMethod { provided, accepted })?;
        let len = u16::from_be_bytes([high, low]);
        if usize::from(len) > MSE_PAD_LEN_MAX {
            return Err(MseError::PadLength { len });
        }
        Ok((method, len.into()))
    }

    /// Says what was selected.
    fn confirm(&mut self, session: &mut Session, method: CryptoMethod, output: &mut Vec<u8>) {
        let mut selected = CONSTANT.to_vec();
        selected.extend_from_slice(&CryptoMethods::only(method).0.to_be_bytes());
        self.pads.append_second(&mut selected);
        session.encrypt_to(&selected, output);
    }

    /// Bytes held, output not counted.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let payload = if let State::Payload(.., payload, _) = &self.state { payload.capacity() } else { 0 };
        payload + self.gather.held()
    }
}
