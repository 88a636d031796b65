//! The farm's side of each verb: joins, asks, and hands what it got to [`crate::verb`] to be shown.
//!
//! Nothing here prints and nothing here decides what a sentence says. A verb joins its farm as a short-lived peer, or, where no
//! farm is known, `request` becomes one for as long as it needs.

mod alone;
mod ask;
mod check;
mod destination;
mod errand;
mod failure;
mod fetch;
mod footing;
mod interruption;
mod lan;
mod logs;
mod matrix;
mod request;
mod serve;
mod source;
mod store;

use crate::args::{DaemonArgs, FarmVerb, Role, SharedArgs, Verb};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::run;
use crate::sentences::{self, Said};
use node::client::member::Member;
use node::client::session::JoinError;
use node::home::{Home, HomeError};
use node::network::config::Transports;
use tokio_util::sync::CancellationToken;

/// What every verb stands on.
pub(crate) struct Place {
    pub(crate) output: Output,
    pub(crate) shared: SharedArgs,
    pub(crate) home: Home,
    /// Cancelled by SIGINT or SIGTERM.
    pub(crate) stop: CancellationToken,
}

/// Does a verb that needs a farm.
pub(crate) fn verb(output: &Output, shared: &SharedArgs, verb: Verb) -> Result<Exit, Failure> {
    with_runtime(output, shared, async move |place| {
        let stop = place.stop.clone();
        let interrupted = || Failure::new(Exit::Interrupted, Said::new("interrupted"));
        let verb = match verb {
            // It answers a signal itself, with its own words, and a farm of one takes a moment to end in order.
            Verb::Request(args) => {
                let place = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(interrupted()),
                    settled = place.on_lan() => settled?,
                };
                return request::run(&place, *args).await;
            }
            verb => verb,
        };
        let doing = async {
            if let Verb::Store(verb) = verb {
                return store::run(&place, verb).await;
            }
            let place = place.on_lan().await?;
            match verb {
                Verb::Status { request: None } => ask::farm(&place).await,
                Verb::Status { request: Some(named) } => ask::request(&place, &named).await,
                Verb::Logs(args) => logs::run(&place, &args).await,
                Verb::Cancel { request } => ask::cancel(&place, &request).await,
                Verb::Fetch(args) => fetch::run(&place, args).await,
                Verb::Builds => ask::builds(&place).await,
                Verb::Volunteers => ask::volunteers(&place).await,
                Verb::Farm(FarmVerb::Show) => ask::ticket(&place).await,
                Verb::Request(_) | Verb::Store(_) | Verb::Recipe(_) | Verb::Doctor | Verb::Completions { .. } => {
                    unreachable!("these verbs were done before")
                }
            }
        };
        tokio::select! {
            biased;
            done = doing => done,
            () = past_patience(&stop) => Err(interrupted()),
        }
    })
}

/// Runs a daemon.
pub(crate) fn serve(output: &Output, shared: &SharedArgs, role: Role, args: DaemonArgs) -> Result<Exit, Failure> {
    with_runtime(output, shared, async move |place| {
        let stop = place.stop.clone();
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Exit::Interrupted),
            settled = place.on_lan() => settled?,
        };
        serve::run(&place, role, args).await
    })
}

/// Ends a verb that does not answer a signal itself.
async fn past_patience(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
}

fn with_runtime(
    output: &Output,
    shared: &SharedArgs,
    work: impl AsyncFnOnce(Place) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    let broken = |error: std::io::Error| {
        Failure::new(
            Exit::Infrastructure,
            Said::with_next(format!("cannot start: {error}"), "look at the limits of this shell with `ulimit -a`"),
        )
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(broken)?;
    let home = Home::open(run::home(shared)?).map_err(|error| failure::of_home(&error))?;
    let done = runtime.block_on(async {
        let stop = node::shutdown::on_signals().map_err(broken)?;
        work(Place { output: output.clone(), shared: shared.clone(), home, stop }).await
    });
    // Whatever is still blocked in the background must not hold up the prompt.
    runtime.shutdown_background();
    done
}

impl Place {
    /// Joins the farm.
    async fn join(&self) -> Result<Member, Failure> {
        self.try_join().await.map_err(|error| match error {
            JoinError::NoFarm => Failure::new(Exit::Unreachable, sentences::no_farm()),
            error => failure::of_join(&error),
        })
    }

    /// Joins the farm, if one is known.
    async fn try_join(&self) -> Result<Member, JoinError> {
        self.forget_dead_daemon()?;
        let joining = Member::join(&self.home, self.shared.farm.as_ref(), transports());
        let joined = tokio::select! {
            biased;
            joined = joining => joined,
            () = self.stop.cancelled() => Err(JoinError::Network("interrupted".to_owned())),
        }?;
        if let Some(skew) = joined.session.skew {
            self.output.say(&sentences::clocks_differ(skew));
        }
        Ok(joined)
    }

    /// Whether the daemon of this home, if there is one, is a farm of one: such a farm has no ticket to remember.
    fn is_farm_of_one(&self) -> Result<bool, HomeError> {
        Ok(self.shared.farm.is_none() && self.home.ticket()?.is_none())
    }

    /// A daemon that was killed could not take its address back; whoever can take its lock knows that it is gone.
    fn forget_dead_daemon(&self) -> Result<(), JoinError> {
        if self.home.daemon()?.is_some()
            && let Ok(_lock) = self.home.lock()
        {
            self.home.forget_daemon()?;
        }
        Ok(())
    }
}

/// Which transports to use: both, unless `NODE_TRANSPORT` says `tcp` or `quic`.
fn transports() -> Transports {
    match std::env::var("NODE_TRANSPORT").as_deref() {
        Ok("tcp") => Transports::Tcp,
        Ok("quic") => Transports::Quic,
        _ => Transports::Both,
    }
}
