//! How a request stands: what is done for it now, whether that moves, and when it will be built.

use super::{ended, span, waiting_because};
use node::clocks::Skew;
use protocol::farm::durations::Estimate;
use protocol::farm::explain::{Explanation, RequestView};
use protocol::id::{PeerKey, RequestId};
use protocol::progress::{Motion, Phase};
use protocol::wire::{HeardRequest, HeardState};

/// What a request does now, in one line.
pub(crate) fn standing(view: &RequestView, request: RequestId) -> String {
    match &view.explanation {
        Explanation::Unknown => "no such request is known here".to_owned(),
        Explanation::Running { volunteer, .. } => match view.motion {
            None => format!("volunteer {} builds it", volunteer.short()),
            Some(motion) => format!("volunteer {} {}", volunteer.short(), moving(motion)),
        },
        Explanation::Ended(end) => ended(end, request).what,
        waits @ (Explanation::AwaitingSource
        | Explanation::Keeping
        | Explanation::Unmet { .. }
        | Explanation::Waiting { .. }) => waiting_because(waits).unwrap_or_default(),
    }
}

fn moving(motion: Motion) -> String {
    let does = match motion.phase {
        Phase::Fetching => "fetches its source",
        Phase::Building => "builds it",
        Phase::Collecting => "takes in what was built",
        Phase::Reporting => "has ended, and its report is on the way",
    };
    match no_progress(motion) {
        Some(still) => format!("{does}; {still}"),
        None => does.to_owned(),
    }
}

/// For how long nothing has moved, where that is worth a word.
pub(crate) fn no_progress(motion: Motion) -> Option<String> {
    motion.still_for.map(|still| format!("no sign of progress for {}", span(still.duration())))
}

/// When a request will be built. Nobody knows it better than this says.
pub(crate) fn estimate(estimate: Estimate) -> String {
    let past = |builds| if builds == 1 { "1 past build".to_owned() } else { format!("{builds} past builds") };
    match estimate {
        Estimate::NothingToJudgeBy => "unknown: no past build to judge by".to_owned(),
        Estimate::Within { soonest, latest, builds } if soonest.as_millis() == 0 => {
            format!("within about {}, judging by {}", span(latest.duration()), past(builds))
        }
        Estimate::Within { soonest, latest, builds } => {
            let (soonest, latest) = (span(soonest.duration()), span(latest.duration()));
            format!("in about {soonest} to {latest}, judging by {}", past(builds))
        }
        Estimate::Longer { longest, builds } => {
            let longest = span(longest.duration());
            format!("unknown: it takes longer than any of {}, which took up to about {longest}", past(builds))
        }
    }
}

/// What a peer that is no coordinator says of a request.
pub(crate) fn heard(heard: &HeardRequest) -> String {
    let HeardRequest { state, free, busy, .. } = heard;
    match state {
        HeardState::Waiting => format!(
            "waited for a volunteer; {} are heard of, {free} free and {busy} busy, and whether they could build it is not \
             known there",
            free + busy
        ),
        HeardState::Building => "that peer builds it".to_owned(),
        HeardState::Judged => "its build has a verdict".to_owned(),
    }
}

/// Whose word it is, and how old.
pub(crate) fn hearsay(peer: PeerKey, heard: &HeardRequest) -> String {
    let age = span(heard.heard.duration());
    format!("no coordinator can be reached: this is hearsay, told by {} and heard there {age} ago", peer.short())
}

/// A peer passed on what a coordinator has told it.
pub(crate) fn passed_on(peer: PeerKey) -> String {
    format!(
        "no coordinator can be reached from here: {} asked one and passed this on, and nothing proves it",
        peer.short()
    )
}

/// This machine's clock is not the coordinator's.
pub(crate) fn clocks_differ(skew: Skew) -> String {
    format!(
        "this machine's clock is {skew} the coordinator's: one of the two is wrong, and requests are dated by the coordinator's"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::time::Span;

    #[test]
    fn an_attempt_that_does_not_move_is_told() {
        let motion =
            |phase, minutes: Option<u64>| Motion { phase, still_for: minutes.map(|m| Span::from_secs(m * 60)) };
        assert_eq!(moving(motion(Phase::Building, Some(4))), "builds it; no sign of progress for 4m");
        assert_eq!(moving(motion(Phase::Fetching, None)), "fetches its source");
    }

    #[test]
    fn an_estimate_is_a_range_and_says_what_it_stands_on() {
        let within = |soonest, latest, builds| {
            estimate(Estimate::Within { soonest: Span::from_secs(soonest), latest: Span::from_secs(latest), builds })
        };
        assert_eq!(within(240, 540, 8), "in about 4m to 9m, judging by 8 past builds");
        assert_eq!(within(0, 20, 1), "within about 20s, judging by 1 past build");
        assert_eq!(estimate(Estimate::NothingToJudgeBy), "unknown: no past build to judge by");
        assert_eq!(
            estimate(Estimate::Longer { longest: Span::from_secs(360), builds: 2 }),
            "unknown: it takes longer than any of 2 past builds, which took up to about 6m"
        );
    }
}
