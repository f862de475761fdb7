//! The side that dialled: sends its key, then request and initial payload at once, then reads what was selected.

use super::dh::{KEY_LEN, Secret};
use super::error::MseError;
use super::gather::{Gather, take};
use super::handshake::Progress;
use super::policy::{CryptoMethod, CryptoMethods};
use super::session::{CONSTANT, Pads, Session, masked, request_mark};
use super::skey::SkeyHash;
use crate::id::InfoHash;
use crate::limits::MSE_PAD_LEN_MAX;
use std::mem;

#[derive(Debug)]
pub(super) struct Outgoing {
    secret: Secret,
    pads: Pads,
    info_hash: InfoHash,
    offered: CryptoMethods,
    initial_payload: Vec<u8>,
    gather: Gather,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The peer's public key is to come.
    PublicKey,
    /// Its pad is to come, and the verification constant behind it.
    Constant(Box<Session>, [u8; 8]),
    /// The selected method is to come, and the length of the second pad.
    Select(Box<Session>),
    /// That much of the second pad is to come.
    Pad(Box<Session>, CryptoMethod, usize),
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

impl Outgoing {
    pub(super) fn new(
        secret: Secret,
        mut pads: Pads,
        info_hash: InfoHash,
        offered: CryptoMethods,
        initial_payload: Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Self {
        output.extend_from_slice(&secret.public_key());
        pads.append_first(output);
        let (gather, state) = (Gather::default(), State::PublicKey);
        Self { secret, pads, info_hash, offered, initial_payload, gather, state }
    }

    pub(super) fn handle_bytes(
        &mut self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Progress, MseError> {
        loop {
            let state = mem::replace(&mut self.state, State::Finished);
            match self.step(state, input, output)? {
                Step::Wait(state) => {
                    self.state = state;
                    return Ok(Progress::Pending);
                }
                Step::Next(state) => self.state = state,
                Step::Done(progress) => return Ok(progress),
            }
        }
    }

    fn step(&mut self, state: State, input: &mut &[u8], output: &mut Vec<u8>) -> Result<Step, MseError> {
        Ok(match state {
            State::PublicKey => match self.gather.field(input) {
                None => Step::Wait(State::PublicKey),
                Some(key) => Step::Next(self.request(&key, output)?),
            },
            State::Constant(session, mark) => {
                if self.gather.pass_mark(&mark, input)? {
                    Step::Next(State::Select(session))
                } else {
                    Step::Wait(State::Constant(session, mark))
                }
            }
            State::Select(mut session) => match self.gather.field::<6>(input) {
                None => Step::Wait(State::Select(session)),
                Some(field) => {
                    let (method, pad_len) = self.selected(session.decrypted(field))?;
                    Step::Next(State::Pad(session, method, pad_len))
                }
            },
            State::Pad(mut session, method, mut left) => {
                session.decrypt.skip(take(&mut left, input).len());
                if left == 0 {
                    Step::Done(Progress::Established(session.establish(method, Vec::new())))
                } else {
                    Step::Wait(State::Pad(session, method, left))
                }
            }
            State::Finished => Step::Done(Progress::Pending),
        })
    }

    /// Says which torrent is meant and what is offered, with the initial payload behind it.
    fn request(&mut self, key: &[u8; KEY_LEN], output: &mut Vec<u8>) -> Result<State, MseError> {
        let shared = self.secret.shared(key).ok_or(MseError::WeakPublicKey)?;
        let mut session = Session::new(true, &shared, self.info_hash);
        output.extend_from_slice(&request_mark(&shared));
        output.extend_from_slice(&masked(SkeyHash::of(&self.info_hash).0, &shared));

        let payload = mem::take(&mut self.initial_payload);
        let mut request = CONSTANT.to_vec();
        request.extend_from_slice(&self.offered.0.to_be_bytes());
        self.pads.append_second(&mut request);
        let len = u16::try_from(payload.len()).expect("our initial payload is one handshake at most");
        request.extend_from_slice(&len.to_be_bytes());
        request.extend_from_slice(&payload);
        session.encrypt_to(&request, output);

        let mark = session.decrypted(CONSTANT);
        Ok(State::Constant(session, mark))
    }

    fn selected(&self, field: [u8; 6]) -> Result<(CryptoMethod, usize), MseError> {
        let [a, b, c, d, high, low] = field;
        let selected = CryptoMethods(u32::from_be_bytes([a, b, c, d]));
        let method = selected.single().filter(|&method| self.offered.contain(method));
        let method = method.ok_or(MseError::NotOffered { selected, offered: self.offered })?;
        let len = u16::from_be_bytes([high, low]);
        if usize::from(len) > MSE_PAD_LEN_MAX {
            return Err(MseError::PadLength { len });
        }
        Ok((method, len.into()))
    }

    /// Bytes held, output not counted.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.initial_payload.capacity() + self.gather.held()
    }
}
