//! `node builds`: what the farm has built.

use crate::exit::{Exit, Failure};
use crate::output::{Format, Output, Table};
use crate::sentences;
use crate::shape::{BuildShape, BuildsShape};
use indicatif::HumanBytes;
use protocol::wire::BuildRow;

/// Shows finished builds, newest first as they came.
pub(crate) fn show(output: &Output, rows: &[BuildRow]) -> Result<Exit, Failure> {
    if output.format() == Format::Text && rows.is_empty() {
        output.say("nothing has been built yet");
        return Ok(Exit::Done);
    }
    output.answer(&table(rows).text())?;
    output.object(&BuildsShape { builds: Some(rows.iter().map(BuildShape::from).collect()), reason: None })?;
    Ok(Exit::Done)
}

fn table(rows: &[BuildRow]) -> Table {
    let mut table = Table::new(&["BUILD", "RECIPE", "SIZE", "HOLDERS", "DECIDED"]);
    for row in rows {
        table.row([
            row.build_key.short(),
            row.recipe.clone(),
            HumanBytes(row.size_bytes).to_string(),
            row.holders.to_string(),
            sentences::moment(row.decided_at),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::digest::Digest;
    use protocol::id::{BuildKey, ManifestId};
    use protocol::report::Fingerprint;
    use protocol::time::Timestamp;

    #[test]
    fn a_build_is_a_row() {
        let row = BuildRow {
            build_key: BuildKey(Digest::of(b"")),
            recipe: "lua\x1b".to_owned(),
            manifest: ManifestId(Digest::of(b"")),
            size_bytes: 2048,
            holders: 2,
            environment: Fingerprint::default(),
            decided_at: Timestamp::from_millis(1_700_000_000_000),
        };
        assert_eq!(
            table(&[row]).text(),
            "BUILD     RECIPE   SIZE      HOLDERS  DECIDED\n\
             e3b0c442  lua\\x1b  2.00 KiB  2        2023-11-14T22:13:20Z"
        );
    }
}
