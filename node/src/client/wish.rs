//! From what somebody wants to a signed request.

use super::session::Session;
use crate::chance::Chance;
use protocol::farm::command::Submitted;
use protocol::id::RequestId;
use protocol::platform::Require;
use protocol::recipe::{OptionError, Recipe, Settings, SpecError};
use protocol::request::{
    Address, BuildSpec, CheckedRequest, Conditions, DEFAULT_TTL, Demand, Freshness, MAX_ADDRESSES, Name, OptionValue,
    Priority, Request, Source, Subscription,
};
use protocol::signed::Signed;
use protocol::time::Span;
use std::collections::BTreeMap;

/// What somebody wants, as he said it.
#[derive(Clone, Debug)]
pub struct Wish {
    /// How it is built.
    pub recipe: Recipe,
    /// Options as typed.
    pub options: Vec<(String, String)>,
    /// The source, where the recipe does not bring its own.
    pub source: Option<Source>,
    /// What else the machine must have, its platform included.
    pub require: Vec<Require>,
    /// Who is to be written to.
    pub addresses: Vec<Address>,
    /// What has to be true first.
    pub demand: Demand,
    /// In which conditions it is built.
    pub conditions: Conditions,
    /// How urgent.
    pub priority: Priority,
    /// How long it waits; `None` for a week.
    pub expires: Option<Span>,
}

/// Why a wish is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// An option is not one of the recipe's, or its value is not one of the option's.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Options, source or requirement do not fit the recipe.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Too many addresses.
    #[error("at most {MAX_ADDRESSES} addresses can wait for one request")]
    Addresses,
}

impl Wish {
    /// Everything that decides what is built.
    ///
    /// # Errors
    ///
    /// [`WishError`] says what does not fit the recipe.
    pub fn spec(&self) -> Result<BuildSpec, WishError> {
        self.spec_of(self.recipe.resolve(&self.options)?.options)
    }

    fn spec_of(&self, options: BTreeMap<Name, OptionValue>) -> Result<BuildSpec, WishError> {
        let spec = self.recipe.spec(options, self.source.clone(), &self.require)?;
        Ok(BuildSpec { conditions: self.conditions, ..spec })
    }

    /// Signs the request and one subscription for each address, or one for whoever looks by himself.
    ///
    /// # Errors
    ///
    /// [`WishError`].
    pub fn sign(&self, session: &Session, chance: &Chance) -> Result<SignedWish, WishError> {
        if self.addresses.len() > MAX_ADDRESSES {
            return Err(WishError::Addresses);
        }
        let Settings { options, effort } = self.recipe.resolve(&self.options)?;
        let request = Request {
            recipe: self.recipe.name().clone(),
            spec: self.spec_of(options)?,
            effort,
            priority: self.priority,
            nonce: chance.nonce(),
            issued_at: session.clock.now(),
            ttl: self.expires.unwrap_or(DEFAULT_TTL),
        };
        let build_key = request.spec.key();
        let signed = Signed::new(&request, session.farm, &session.secret);
        let id = RequestId(signed.id());
        let subscribe = |address: Option<Address>| {
            let subscription = Subscription { request: id, address, demand: self.demand };
            Signed::new(&subscription, session.farm, &session.secret)
        };
        let subscriptions = if self.addresses.is_empty() {
            vec![subscribe(None)]
        } else {
            self.addresses.iter().cloned().map(Some).map(subscribe).collect()
        };
        let request = CheckedRequest { id, requester: session.secret.public(), request, build_key, signed };
        Ok(SignedWish { request, subscriptions })
    }

    /// The same, with nobody to be mailed.
    #[must_use]
    pub fn unmailed(&self) -> Self {
        Self { addresses: Vec::new(), ..self.clone() }
    }

    /// Whether a finished build, wherever it comes from, is all that is wanted.
    #[must_use]
    pub fn can_be_found(&self) -> bool {
        self.addresses.is_empty() && self.demand.agree.get() == 1 && self.demand.freshness == Freshness::Any
    }
}

/// A request ready to be submitted.
#[derive(Clone, Debug)]
pub struct SignedWish {
    /// The request.
    pub request: CheckedRequest,
    /// Who is to be told.
    pub subscriptions: Vec<Signed>,
}

/// What the farm said to a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The request.
    pub request: RequestId,
    /// What it met.
    pub submitted: Submitted,
}
