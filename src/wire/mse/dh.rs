//! The key exchange of MSE: Diffie and Hellman over a prime of 768 bits, generator 2, secrets of 160 bits.
//!
//! The prime and the generator are MSE's own. A public key of 0, 1, p-1 or beyond is refused: it would fix the secret
//! to a value that everybody knows. The powers take the same time for every secret, as the library has it.

use crypto_bigint::modular::{ConstMontyForm, ConstMontyParams};
use crypto_bigint::{U192, U768, const_monty_params};
use std::fmt;

/// Bytes of a public key, and of the secret that both sides come to share.
pub(super) const KEY_LEN: usize = 96;
/// Bytes of a secret exponent. MSE asks for 128 bits at least and finds no use in more than 180.
pub(super) const SECRET_LEN: usize = 20;
const SECRET_BITS: u32 = 8 * SECRET_LEN as u32;

const_monty_params!(
    Prime,
    U768,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B\
     302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563",
    "The prime of MSE."
);
type Power = ConstMontyForm<Prime, { U768::LIMBS }>;

/// Our secret exponent.
#[derive(Clone)]
pub(super) struct Secret(U192);

impl Secret {
    pub(super) fn new(bytes: &[u8; SECRET_LEN]) -> Self {
        let mut padded = [0; 24];
        padded[24 - SECRET_LEN..].copy_from_slice(bytes);
        Self(U192::from_be_slice(&padded))
    }

    /// What we tell the peer: 2 to the power of the secret.
    pub(super) fn public_key(&self) -> [u8; KEY_LEN] {
        self.power_of(&U768::from_u8(2))
    }

    /// What we and the owner of `public_key` share; `None` for a key that makes it known to everybody.
    pub(super) fn shared(&self, public_key: &[u8; KEY_LEN]) -> Option<[u8; KEY_LEN]> {
        let key = U768::from_be_slice(public_key);
        let last = Prime::PARAMS.modulus().as_ref().wrapping_sub(&U768::ONE);
        (key > U768::ONE && key < last).then(|| self.power_of(&key))
    }

    fn power_of(&self, base: &U768) -> [u8; KEY_LEN] {
        let power = Power::new(base).pow_bounded_exp(&self.0, SECRET_BITS).retrieve();
        let mut bytes = [0; KEY_LEN];
        bytes.copy_from_slice(power.to_be_bytes().as_ref());
        bytes
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2 to the power of 0x0102…14 modulo the prime, and of 0xfffe…ec, and of their product: by Python's `pow`.
    const FIRST: &str = "96e112dab29e8c5272accb9b17b26887ce54a144a4e3b697c7d159b7a817e556b0918db2b4c658e02a87f7e5fb14b18a\
                         553e084cbf3dad2d30f16596ccb982d406258c61b30c5c1dae2ddc60bdbd48d79896312aad63238c39e1a633821eb693";
    const SECOND: &str = "8f562741c6ccfd456d848c7655bdab6469b509a78f7ec72ed0f2ff5c96364ef6695ad9ba806b565650e08a05802ca8ad\
                          739f51dde1f7bf9cd0cceda29478445637743d2dd212526cbc24790f6df3ac88d8b1bc8320af443fe75edb807f3bd7c5";
    const SHARED: &str = "ce17231bfc8346c19ee2aef13b8ba9db4fd4cce722698acfcf175df0c1cda51bd8d8c3239da408d05fe475e31fdc2a54\
                          01955a4270c5e5fcb9d8317f0e5c74ba78325b9d2c6a8bf5dc67465d64d771980757300a65cdaed7bb2172eb594d5171";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn key(of: &U768) -> [u8; KEY_LEN] {
        of.to_be_bytes().as_ref().try_into().expect("a number of 768 bits has 96 bytes")
    }

    #[test]
    fn keys_and_the_shared_secret_are_those_of_an_independent_computation() {
        let first = Secret::new(&std::array::from_fn(|at| at as u8 + 1));
        let second = Secret::new(&std::array::from_fn(|at| 255 - at as u8));
        assert_eq!((hex(&first.public_key()), hex(&second.public_key())), (FIRST.into(), SECOND.into()));
        let shared = [first.shared(&second.public_key()), second.shared(&first.public_key())];
        assert_eq!(shared.map(|shared| hex(&shared.expect("a public key of ours"))), [SHARED, SHARED]);
    }

    #[test]
    fn keys_that_give_a_known_secret_are_refused() {
        let secret = Secret::new(&[7; SECRET_LEN]);
        let prime = *Prime::PARAMS.modulus().as_ref();
        let below = |less: u64| prime.wrapping_sub(&U768::from_u64(less));
        let weak = [U768::ZERO, U768::ONE, below(1), prime, prime.wrapping_add(&U768::ONE), U768::MAX];
        assert!(weak.iter().all(|public| secret.shared(&key(public)).is_none()));
        let sound = [U768::from_u8(2), U768::from_u8(3), below(2), below(3)];
        assert!(sound.iter().all(|public| secret.shared(&key(public)).is_some()));
    }

    proptest! {
        #[test]
        fn both_sides_come_to_share_the_same(one: [u8; SECRET_LEN], other: [u8; SECRET_LEN]) {
            let (one, other) = (Secret::new(&one), Secret::new(&other));
            prop_assert_eq!(one.shared(&other.public_key()), other.shared(&one.public_key()));
        }
    }
}
