//! What people ask of the farm: the same things and different ones, by mail and in person, twice, freshly, in agreement, and
//! not any more.

use crate::checks::Checks;
use crate::flaw::Flaw;
use crate::hours::{Asked, FarmTime, Refused};
use crate::log::Log;
use crate::tell;
use crate::workshop::{self, honest};
use node::artifact::Store;
use node::artifact::transfer::{Progress, Sink};
use node::artifact::upload::{Blobs, Uploads};
use node::chance::Chance;
use node::client::find::{Found, Search};
use node::client::get::{Answered, Errand, GetError, Got, Patience, Stage};
use node::client::order::OrderError;
use node::client::session::Session;
use node::client::wish::{SignedWish, Wish};
use protocol::id::{BuildKey, RequestId};
use protocol::recipe::Recipe;
use protocol::request::{Address, Conditions, Demand, Freshness, Priority, Subscription};
use protocol::signed::Signed;
use protocol::time::Span;
use std::collections::BTreeSet;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// A recipe that did not come with the program, so that the farm has to fetch it from whoever asks.
const BELL: &str = r#"
recipe = 1
name = "bell"
description = "rings"
requires = ["os=linux", "tool.cc"]
reproducible = true

[option.greeting]
type = "text"
help = "what it says"
pattern = "[A-Za-z0-9-]{1,64}"
default = "hello"

[[file]]
path = "bell.c"
text = "int main(void) { return 0; }"

[[step]]
run = ["cc", "-DGREETING=\"{greeting}\"", "-o", "bell", "bell.c"]

[[output]]
path = "bell"
"#;

/// A requester at his machine.
#[derive(Clone)]
pub(crate) struct Person {
    pub name: String,
    pub session: Session,
    pub uploads: Uploads,
    pub chance: Chance,
    pub checks: Checks,
    pub log: Log,
    pub time: FarmTime,
    pub flaw: Flaw,
}

/// Something that somebody might want.
pub(crate) fn any_wish(chance: &Chance) -> Wish {
    const GREETINGS: [&str; 10] =
        ["one", "one", "two", "three", "four", "err-1", "limit-1", "shaky-1", "shaky-2", "taboo-1"];
    let pick = |of: u64| chance.below(of);
    let recipe =
        if pick(4) == 0 { Recipe::parse(BELL).unwrap() } else { node::catalogue::by_name("hello").unwrap().clone() };
    let addresses: BTreeSet<Address> =
        (0..pick(3)).map(|_| format!("p{}@example.org", pick(4)).parse().unwrap()).collect();
    Wish {
        recipe,
        options: vec![("greeting".to_owned(), GREETINGS[pick(10) as usize].to_owned())],
        source: None,
        require: if pick(8) == 0 { vec!["tool.rare".parse().unwrap()] } else { vec![] },
        addresses: addresses.into_iter().collect(),
        demand: Demand {
            agree: NonZeroU8::new(if pick(4) == 0 { 2 } else { 1 }).unwrap(),
            freshness: if pick(6) == 0 { Freshness::Fresh } else { Freshness::Any },
        },
        conditions: Conditions::Usual,
        priority: [Priority::Urgent, Priority::Normal, Priority::Batch][pick(3) as usize],
        expires: Some(Span::from_secs(300 + 30 * pick(10))),
    }
}

impl Person {
    /// Asks for something in one of the ways there are.
    pub(crate) async fn ask(self, mut wish: Wish) {
        if self.chance.below(2) == 0 {
            // He has been told that his clock is behind, and means as long as he would otherwise.
            wish.expires = wish.expires.map(|span| Span::from(span.duration() + self.time.behind(&self.session.clock)));
        }
        match self.chance.below(4) {
            0 => self.submit_twice(&wish).await,
            1 => self.run(&wish, Patience::Detach).await,
            _ => self.run(&wish, Patience::Wait).await,
        }
    }

    /// The whole errand, tried again when the farm is not reached.
    pub(crate) async fn run(&self, wish: &Wish, patience: Patience) {
        for _ in 0..4 {
            let asked = self.time.look(&self.session.clock);
            let errand =
                Errand { session: &self.session, uploads: &self.uploads, wish, source: None, patience, folder: None };
            let mut shown = |stage: Stage| {
                if let Stage::Submitted { request } = stage {
                    self.checks.acknowledge(request, wish.addresses.clone(), wish.demand);
                    if self.chance.below(6) == 0 {
                        tokio::spawn(self.clone().cancel(request));
                    }
                }
            };
            match errand.ask(&self.chance, &mut shown).await {
                Ok(Answered::Build(build)) => match self.fetch(&build.found, wish.demand).await {
                    Ok(()) => return,
                    Err(error) => self.note(format!("not fetched: {error}")),
                },
                Ok(Answered::Otherwise(Got::Ended { request, ended, .. })) => {
                    return self.log.note(&self.name, |say| {
                        format!("hears that {} has ended: {}", say.request(request), tell::end(say, &ended))
                    });
                }
                Ok(Answered::Otherwise(_)) => return self.note("detached"),
                Err(GetError::Order(error)) if self.is_out_of_time(&error, wish, &asked) => return,
                Err(error) => self.note(format!("failed: {error}")),
            }
            sleep(Duration::from_millis(1_000 + self.chance.below(20_000))).await;
        }
    }

    /// Whether the farm refused for the time that his clock shows; it must have been right then, and have said so.
    fn is_out_of_time(&self, error: &OrderError, wish: &Wish, asked: &Asked) -> bool {
        let Some(refused) = Refused::of(error) else { return false };
        self.checks.count(|tally| &mut tally.clock_refusals);
        self.note(format!("is refused for his clock: {refused:?}"));
        let ttl = wish.expires.unwrap_or_default();
        if let Err(wrong) = self.time.justifies(refused, asked, ttl) {
            self.checks.breach(format!("{}: {wrong}", self.name));
        }
        true
    }

    /// The same request handed over again and again until the farm has answered, then once more for another address.
    async fn submit_twice(&self, wish: &Wish) {
        let asked = self.time.look(&self.session.clock);
        let signed = match wish.sign(&self.session, &self.chance) {
            Ok(signed) => signed,
            Err(error) => return self.checks.breach(format!("a wish cannot be signed: {error}")),
        };
        let blobs = Blobs::new([wish.recipe.encode()]);
        let serving = self.uploads.serve(Arc::new(blobs));
        if !self.submit(&signed, wish, &asked).await {
            return;
        }
        sleep(Duration::from_millis(self.chance.below(60_000))).await;
        let later: Address = "late@example.org".parse().unwrap();
        let subscription =
            Subscription { request: signed.request.id, address: Some(later.clone()), demand: wish.demand };
        let subscription = Signed::new(&subscription, self.session.farm, &self.session.secret);
        let again = SignedWish { request: signed.request, subscriptions: vec![subscription] };
        self.submit(&again, &Wish { addresses: vec![later], ..wish.clone() }, &asked).await;
        drop(serving);
    }

    async fn submit(&self, signed: &SignedWish, wish: &Wish, asked: &Asked) -> bool {
        for _ in 0..10 {
            match self.session.submit(signed).await {
                Ok(accepted) => {
                    self.checks.acknowledge(accepted.request, wish.addresses.clone(), wish.demand);
                    // The source is served until the farm has it; the wait may fail, the request is held all the same.
                    let _held = self.session.until_source_held(accepted.request, &self.chance).await;
                    return true;
                }
                Err(error) if self.is_out_of_time(&error, wish, asked) => return false,
                Err(error) => self.note(format!("not submitted: {error}")),
            }
            sleep(Duration::from_millis(1_000 + self.chance.below(10_000))).await;
        }
        false
    }

    async fn cancel(self, request: RequestId) {
        sleep(Duration::from_millis(self.chance.below(60_000))).await;
        match self.session.cancel(request).await {
            Ok(()) => self.checks.cancelled(request),
            Err(error) => {
                self.log.note(&self.name, |say| format!("cannot take {} back: {error}", say.request(request)));
            }
        }
    }

    /// Fetches what was found, and reads every byte of it.
    pub(crate) async fn fetch(&self, found: &Found, demand: Demand) -> Result<(), String> {
        let (store, verdict) = (Store::in_memory(), &found.verified.verdict);
        let (progress, _) = watch::channel(Progress::default());
        let delivery = self
            .session
            .deliver(found, Sink::Store(store.clone()), progress)
            .await
            .map_err(|error| error.to_string())?;
        let key = verdict.build_key;
        let mut files = workshop::read_whole(&store, &delivery.manifest).await;
        if self.flaw == Flaw::BlindReceiver
            && let Ok(files) = &mut files
        {
            // As it came from somebody who serves wrong bytes, had nobody compared them.
            files.iter_mut().for_each(|(_, bytes)| bytes[0] ^= 1);
        }
        match files {
            Ok(_) if delivery.manifest.id() != verdict.manifest => {
                self.checks.breach(format!("{} was delivered as another artifact", self.log.say(|say| say.key(key))));
            }
            Ok(files) if verdict.manifest == honest(key) && files != workshop::honest_files(key) => {
                self.checks.breach(format!("{} was delivered with other bytes", self.log.say(|say| say.key(key))));
            }
            Ok(_) => self.checks.delivered(key, verdict.manifest, demand),
            Err(wrong) => {
                let key = self.log.say(|say| say.key(key));
                self.checks.breach(format!("{key} was delivered damaged: {wrong}"));
            }
        }
        Ok(())
    }

    /// Whether what is finished can be found and fetched; tried for a while.
    pub(crate) async fn can_have(&self, key: BuildKey) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..8 {
            last = match self.session.find(key).await {
                Search::Found(found) => match self.fetch(&found, Demand::default()).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                },
                Search::NotBuilt => return Ok(()),
                Search::NobodyKnows => "nobody knows".to_owned(),
            };
            sleep(Duration::from_secs(20)).await;
        }
        Err(last)
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.log.note(&self.name, |_| what.to_string());
    }
}
