//! `node volunteers`: who lends a machine, and what it can do.

use crate::exit::{Exit, Failure};
use crate::output::{Format, Output, Table};
use crate::sentences;
use crate::shape::{VolunteerShape, VolunteersShape, flat};
use protocol::wire::VolunteerView;

/// Shows the volunteers that the peer asked knows of.
pub(crate) fn show(output: &Output, views: &[VolunteerView]) -> Result<Exit, Failure> {
    if output.format() == Format::Text && views.is_empty() {
        output.say("no volunteer has been heard");
        return Ok(Exit::Done);
    }
    output.answer(&table(views).text())?;
    output.object(&VolunteersShape {
        volunteers: Some(views.iter().map(VolunteerShape::from).collect()),
        reason: None,
    })?;
    Ok(Exit::Done)
}

fn table(views: &[VolunteerView]) -> Table {
    let mut table = Table::new(&["VOLUNTEER", "PLATFORM", "STATE", "SLOTS", "ACCEPTS", "HEARD", "TOOLS"]);
    for view in views {
        let tools: Vec<String> = flat(&view.capability)
            .iter()
            .filter_map(|(key, version)| Some(format!("{} {version}", key.strip_prefix("tool.")?)))
            .collect();
        table.row([
            view.volunteer.short(),
            view.capability.platform(),
            sentences::presence(view.presence).to_owned(),
            format!("{}/{}", view.busy, view.capability.slots),
            sentences::accepts(&view.capability.accepts).to_owned(),
            format!("{} ago", sentences::span(view.heard.duration())),
            tools.join(", "),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use protocol::farm::explain::Presence;
    use protocol::id::PeerKey;
    use protocol::platform::{Acceptance, Capability, Value};
    use protocol::time::Span;

    #[test]
    fn a_volunteer_is_a_row_with_its_tools() {
        let tools = [("cc", "12.2.0"), ("python3", "3.11")]
            .map(|(name, version)| (name.to_owned(), Value::Version(version.parse().unwrap())));
        let facts = [
            ("os".to_owned(), Value::Text("linux".to_owned())),
            ("arch".to_owned(), Value::Text("x86_64".to_owned())),
            ("tool".to_owned(), Value::Map(tools.into())),
        ];
        let view = VolunteerView {
            volunteer: PeerKey::from_bytes([0xab; 32]),
            capability: Capability { facts: facts.into(), accepts: Acceptance::Any, slots: 2 },
            presence: Presence::Free,
            busy: 0,
            heard: Span::from_secs(3),
        };
        assert_eq!(
            table(&[view]).text(),
            "VOLUNTEER  PLATFORM      STATE  SLOTS  ACCEPTS  HEARD   TOOLS\n\
             abababab   linux/x86_64  free   0/2    any      3s ago  cc 12.2.0, python3 3.11"
        );
    }
}
