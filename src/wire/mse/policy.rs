//! What a user wants of encryption, and what follows for each connection.
//!
//! | policy  | incoming plaintext | incoming encrypted | outgoing               | payload selected for the peer |
//! |---------|--------------------|--------------------|------------------------|-------------------------------|
//! | off     | yes                | no                 | plaintext              |                               |
//! | allow   | yes                | yes                | plaintext, then encr.  | plaintext when it is offered  |
//! | prefer  | yes                | yes                | encrypted, then plain  | RC4 when it is offered        |
//! | require | no                 | RC4 payload only   | encrypted, RC4 only    | RC4                           |
//!
//! libtorrent selects RC4 or plaintext by a setting of its own. Here the policy says it: RC4 costs a copy and about one
//! nanosecond a byte and takes sends from mapped pages away, so whoever only *allows* encryption does not pay for it,
//! and whoever prefers it does.

use std::fmt;
use std::str::FromStr;

/// What a user wants of encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// Plaintext only, both ways: an encrypted handshake is refused.
    Off,
    /// Peers may come encrypted or not; we dial in plaintext, and once more encrypted when that fails. Behind an encrypted handshake plaintext payload is
    /// selected when the peer offers it, since that keeps sends without a copy.
    #[default]
    Allow,
    /// Peers may come encrypted or not; we dial encrypted, and once more in plaintext when that fails. RC4 payload is
    /// selected when the peer offers it.
    Prefer,
    /// Only RC4, both ways: plaintext handshakes and plaintext payload are refused.
    Require,
}

impl Encryption {
    /// A peer may open with a plaintext handshake.
    pub const fn accepts_plaintext(self) -> bool {
        !matches!(self, Self::Require)
    }

    /// What a peer may choose from that opens with an encrypted handshake; `None` when it may not.
    pub const fn accepts(self) -> Option<CryptoChoice> {
        match self {
            Self::Off => None,
            Self::Allow => {
                Some(CryptoChoice { methods: CryptoMethods::BOTH, preferred: CryptoMethod::Plaintext })
            }
            Self::Prefer => Some(CryptoChoice { methods: CryptoMethods::BOTH, preferred: CryptoMethod::Rc4 }),
            Self::Require => Some(CryptoChoice { methods: CryptoMethods::RC4, preferred: CryptoMethod::Rc4 }),
        }
    }

    /// What we offer to a peer that we dial; `None` when we dial in plaintext.
    pub const fn offers(self) -> Option<CryptoMethods> {
        match self {
            Self::Off | Self::Allow => None,
            Self::Prefer => Some(CryptoMethods::BOTH),
            Self::Require => Some(CryptoMethods::RC4),
        }
    }

    /// As which policy a peer is dialled once more that ended the first connection before it had introduced itself, or said
    /// nothing until its time was over: perhaps it understands the other way, or takes no other. `None` when there is no
    /// other way.
    pub const fn second_try(self) -> Option<Self> {
        match self {
            Self::Off | Self::Require => None,
            Self::Allow => Some(Self::Prefer),
            Self::Prefer => Some(Self::Off),
        }
    }
}

impl Encryption {
    /// As which policies a peer is dialled, one after the other, until it introduces itself. Every connection that we open
    /// goes by this, whatever it is for.
    pub fn tries(self) -> impl Iterator<Item = Self> {
        [Some(self), self.second_try()].into_iter().flatten()
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
        })
    }
}

impl FromStr for Encryption {
    type Err = UnknownEncryption;

    fn from_str(text: &str) -> Result<Self, UnknownEncryption> {
        [Self::Off, Self::Allow, Self::Prefer, Self::Require]
            .into_iter()
            .find(|policy| policy.to_string() == text)
            .ok_or_else(|| UnknownEncryption(text.to_owned()))
    }
}

/// A word that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of allow, prefer, require and off")]
pub struct UnknownEncryption(pub String);

/// How the payload goes behind an encrypted handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CryptoMethod {
    /// As without MSE.
    Plaintext,
    /// Each direction by its own RC4.
    Rc4,
}

/// Methods that a side provides, as their bits stand in `crypto_provide` and `crypto_select`. Unknown bits are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CryptoMethods(pub u32);

impl CryptoMethods {
    /// Only plaintext payload.
    pub const PLAINTEXT: Self = Self(1);
    /// Only RC4 payload.
    pub const RC4: Self = Self(2);
    /// Either.
    pub const BOTH: Self = Self(3);

    /// `method` is among them.
    pub const fn contain(self, method: CryptoMethod) -> bool {
        self.0 & Self::only(method).0 != 0
    }

    /// That one method.
    pub const fn only(method: CryptoMethod) -> Self {
        match method {
            CryptoMethod::Plaintext => Self::PLAINTEXT,
            CryptoMethod::Rc4 => Self::RC4,
        }
    }

    /// The method, when it is exactly one that we know.
    pub const fn single(self) -> Option<CryptoMethod> {
        match self {
            Self::PLAINTEXT => Some(CryptoMethod::Plaintext),
            Self::RC4 => Some(CryptoMethod::Rc4),
            _ => None,
        }
    }
}

impl fmt::Display for CryptoMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PLAINTEXT => f.write_str("plaintext"),
            Self::RC4 => f.write_str("RC4"),
            Self::BOTH => f.write_str("plaintext or RC4"),
            Self(0) => f.write_str("nothing"),
            Self(bits) => write!(f, "methods {bits:#x}"),
        }
    }
}

impl fmt::Debug for CryptoMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CryptoMethods({self})")
    }
}

/// What an incoming side accepts, and which of it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptoChoice {
    /// Accepted at all.
    pub methods: CryptoMethods,
    /// Selected when the peer provides it. One of `methods`.
    pub preferred: CryptoMethod,
}

impl CryptoChoice {
    /// The method for a peer that provides `provided`; `None` when nothing fits.
    pub fn select(self, provided: CryptoMethods) -> Option<CryptoMethod> {
        let common = CryptoMethods(provided.0 & self.methods.0);
        let order = [self.preferred, CryptoMethod::Rc4, CryptoMethod::Plaintext];
        order.into_iter().find(|&method| common.contain(method))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Encryption; 4] =
        [Encryption::Off, Encryption::Allow, Encryption::Prefer, Encryption::Require];

    #[test]
    fn policies_round_trip_as_words_and_nothing_else_is_one() {
        for policy in ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        for text in ["", "Allow", "on", "required", "prefer "] {
            assert_eq!(text.parse::<Encryption>(), Err(UnknownEncryption(text.to_owned())));
        }
    }

    #[test]
    fn the_payload_is_selected_as_the_policy_says() {
        let select = |policy: Encryption, provided: u32| {
            policy.accepts().expect("encryption is accepted").select(CryptoMethods(provided))
        };
        let (plain, rc4) = (Some(CryptoMethod::Plaintext), Some(CryptoMethod::Rc4));
        assert_eq!([1, 2, 3].map(|provided| select(Encryption::Allow, provided)), [plain, rc4, plain]);
        assert_eq!([1, 2, 3].map(|provided| select(Encryption::Prefer, provided)), [plain, rc4, rc4]);
        assert_eq!([1, 2, 3].map(|provided| select(Encryption::Require, provided)), [None, rc4, rc4]);
        for policy in [Encryption::Allow, Encryption::Prefer, Encryption::Require] {
            assert_eq!(select(policy, 0), None);
            assert_eq!(select(policy, !3), None, "methods of another time are not ours");
        }
        assert_eq!(Encryption::Off.accepts(), None);
    }

    #[test]
    fn two_sides_of_any_policies_agree_or_one_of_them_refuses() {
        for (dials, listens) in ALL.into_iter().flat_map(|one| ALL.map(|other| (one, other))) {
            let encrypted = dials.tries().find_map(Encryption::offers).zip(listens.accepts());
            let method = encrypted.and_then(|(offered, choice)| choice.select(offered));
            let plain = dials.tries().any(|policy| policy.offers().is_none());
            let meets = method.is_some() || (plain && listens.accepts_plaintext());
            let pair = [dials, listens];
            let never = pair.contains(&Encryption::Off) && pair.contains(&Encryption::Require);
            assert_eq!(meets, !never, "{dials} dials {listens}");
            if dials == Encryption::Require || listens == Encryption::Require {
                assert_ne!(method, Some(CryptoMethod::Plaintext));
            }
        }
    }
}
