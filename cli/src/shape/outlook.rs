//! What `status` says of a request that has not ended: who could build it, how it moves, when it will be built.

use crate::sentences;
use protocol::farm::durations::Estimate;
use protocol::farm::explain::{Explanation, RequestView};
use protocol::id::PeerKey;
use protocol::progress::Phase;
use protocol::wire::HeardRequest;
use serde::Serialize;

/// Fields of `status REQUEST`, each null where it is no question or not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct OutlookShape {
    /// Jobs that come first.
    pub(crate) ahead: Option<u32>,
    /// Capable volunteers that are about to be asked.
    pub(crate) volunteers_free: Option<u32>,
    /// Capable volunteers whose slots are all in use.
    pub(crate) volunteers_busy: Option<u32>,
    /// Capable volunteers that fell silent a short while ago.
    pub(crate) volunteers_gone: Option<u32>,
    /// Capable volunteers that refused or tried it already.
    pub(crate) volunteers_refusing: Option<u32>,
    /// `fetching`, `building`, `collecting` or `reporting`.
    pub(crate) phase: Option<&'static str>,
    /// For how long there has been no sign of progress, in whole minutes' milliseconds; null below one.
    pub(crate) no_progress_ms: Option<u64>,
    /// From now until it is built, at the soonest.
    pub(crate) soonest_ms: Option<u64>,
    /// From now until it is built, at the latest.
    pub(crate) latest_ms: Option<u64>,
    /// How many past builds of its recipe the two stand on.
    pub(crate) past_builds: Option<u32>,
    /// The peer whose word it is, where no coordinator answered.
    pub(crate) told_by: Option<String>,
    /// How long ago that peer has heard it.
    pub(crate) heard_ms: Option<u64>,
}

impl From<&RequestView> for OutlookShape {
    fn from(view: &RequestView) -> Self {
        let mut shape = Self {
            phase: view.motion.map(|motion| phase(motion.phase)),
            no_progress_ms: view.motion.and_then(|motion| Some(motion.still_for?.as_millis())),
            ..Self::default()
        };
        if let Explanation::Waiting { busy, free, gone, excluded, ahead, .. } = &view.explanation {
            shape.ahead = Some(*ahead);
            (shape.volunteers_free, shape.volunteers_busy) = (Some(*free), Some(*busy));
            (shape.volunteers_gone, shape.volunteers_refusing) = (Some(*gone), Some(*excluded));
        }
        match view.estimate {
            Some(Estimate::Within { soonest, latest, builds }) => {
                (shape.soonest_ms, shape.latest_ms) = (Some(soonest.as_millis()), Some(latest.as_millis()));
                shape.past_builds = Some(builds);
            }
            Some(Estimate::Longer { builds, .. }) => shape.past_builds = Some(builds),
            Some(Estimate::NothingToJudgeBy) => shape.past_builds = Some(0),
            None => {}
        }
        shape
    }
}

impl OutlookShape {
    /// The same, told by a peer that is no coordinator.
    pub(crate) fn told_by(self, peer: PeerKey) -> Self {
        Self { told_by: Some(peer.to_string()), ..self }
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Fetching => "fetching",
        Phase::Building => "building",
        Phase::Collecting => "collecting",
        Phase::Reporting => "reporting",
    }
}

/// What a peer has heard of a request, in the shape of `status REQUEST`.
pub(crate) fn heard(peer: PeerKey, heard: &HeardRequest) -> super::RequestStatusShape {
    use protocol::wire::HeardState;
    super::RequestStatusShape {
        request: Some(heard.request.to_string()),
        build_key: Some(heard.build_key.to_string()),
        state: Some(match heard.state {
            HeardState::Waiting => "queued",
            HeardState::Building => "running",
            HeardState::Judged => "finished",
        }),
        waiting_because: (heard.state == HeardState::Waiting).then(|| sentences::heard(heard)),
        outlook: OutlookShape { heard_ms: Some(heard.heard.as_millis()), ..OutlookShape::default() }.told_by(peer),
        ..super::RequestStatusShape::default()
    }
}
