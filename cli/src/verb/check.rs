//! `node request --check`: whether two builds in conditions that differ came out the same.

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::sentences::{self, Said};
use crate::shape::{FileShape, RequestShape};
use crate::verb::request::{millis, mode};
use node::artifact::compare::{Difference, Kind, Side};
use protocol::id::ManifestId;
use protocol::request::Conditions;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Differences that are told to people; scripts get all.
const SHOWN: usize = 20;

/// Two builds that were compared.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// The one in the usual conditions.
    pub(crate) first: RequestShape,
    /// The artifact of the other.
    pub(crate) second: ManifestId,
    /// Where they differ.
    pub(crate) differences: Vec<Difference>,
}

/// `request --check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CheckShape {
    /// Of the build in the usual conditions.
    #[serde(flatten)]
    pub(crate) request: RequestShape,
    /// Whether both builds are the same, byte by byte.
    pub(crate) reproducible: Option<bool>,
    /// The artifact of the build in other conditions.
    pub(crate) other_manifest: Option<String>,
    pub(crate) differences: Option<Vec<DifferenceShape>>,
}

/// A path at which the two builds differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DifferenceShape {
    pub(crate) path: String,
    /// `only_first`, `only_second`, `sort`, `mode` or `content`.
    pub(crate) kind: &'static str,
    /// Bytes before the first that differs; null unless it is the content.
    pub(crate) offset: Option<u64>,
    /// Bytes from there, hexadecimal, or the mode; null where nothing is there.
    pub(crate) first: Option<String>,
    pub(crate) second: Option<String>,
}

impl From<&Difference> for DifferenceShape {
    fn from(difference: &Difference) -> Self {
        let shape =
            |kind, offset, first, second| Self { path: difference.path.to_string(), kind, offset, first, second };
        match &difference.kind {
            Kind::OnlyIn(Side::First) => shape("only_first", None, None, None),
            Kind::OnlyIn(Side::Second) => shape("only_second", None, None, None),
            Kind::Sort => shape("sort", None, None, None),
            Kind::Mode { first, second } => {
                shape("mode", None, Some(mode(*first).to_owned()), Some(mode(*second).to_owned()))
            }
            Kind::Content { offset, first, second } => {
                shape("content", Some(*offset), Some(hex(first)), Some(hex(second)))
            }
        }
    }
}

/// Conditions as people say them.
pub(crate) const fn name(conditions: Conditions) -> &'static str {
    match conditions {
        Conditions::Usual => "the usual",
        Conditions::Other => "other",
    }
}

/// Shows whether the two builds are the same.
pub(crate) fn finished(
    output: &Output,
    checked: Checked,
    folder: &Path,
    files: Vec<FileShape>,
    elapsed: Duration,
) -> Result<Exit, Failure> {
    let Checked { first, second, differences } = checked;
    let exit = if differences.is_empty() {
        output.say(&format!(
            "the same, byte by byte, in another folder, time and time zone, with another host name and number of jobs: {} in {}",
            sentences::files(files.len()),
            sentences::span(elapsed)
        ));
        Exit::Done
    } else {
        let what = format!("not reproducible: {}", differing(&differences));
        let next = "keep paths (`-ffile-prefix-map`), dates (`SOURCE_DATE_EPOCH`), host names and the order of parallel jobs out of it";
        output.error(&Said::with_next(what, next));
        Exit::BuildError
    };
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    output.answer(&paths.join("\n"))?;
    output.say(&format!("the build in the usual conditions is in {}", folder.display()));
    output.object(&CheckShape {
        request: RequestShape { files: Some(files), elapsed_ms: Some(millis(elapsed)), ..first },
        reproducible: Some(differences.is_empty()),
        other_manifest: Some(second.to_string()),
        differences: Some(differences.iter().map(DifferenceShape::from).collect()),
    })?;
    Ok(exit)
}

/// Shows why there are no two builds to compare.
pub(crate) fn broken_off(
    output: &Output,
    failure: &Failure,
    known: RequestShape,
    elapsed: Duration,
) -> Result<Exit, Failure> {
    output.error(&failure.said);
    let reason = Some(failure.said.what.clone());
    let request = RequestShape { reason, elapsed_ms: Some(millis(elapsed)), ..known };
    output.object(&CheckShape { request, ..CheckShape::default() })?;
    Ok(failure.exit)
}

fn differing(differences: &[Difference]) -> String {
    let mut lines: Vec<String> = differences.iter().take(SHOWN).map(sentence).collect();
    if differences.len() > SHOWN {
        lines.push(format!("and {} more", differences.len() - SHOWN));
    }
    lines.join("\n  ")
}

fn sentence(Difference { path, kind }: &Difference) -> String {
    match kind {
        Kind::OnlyIn(Side::First) => format!("{path} is made in the usual conditions only"),
        Kind::OnlyIn(Side::Second) => format!("{path} is made in other conditions only"),
        Kind::Sort => format!("{path} is a file in one and none in the other"),
        Kind::Mode { first, second } => format!("{path} has mode {} and {}", mode(*first), mode(*second)),
        Kind::Content { offset, first, second } => {
            let shown = |bytes: &[u8]| if bytes.is_empty() { "its end".to_owned() } else { hex(bytes) };
            format!("{path} differs from byte {offset}: {} and {}", shown(first), shown(second))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use protocol::tree::{Mode, TreePath};

    #[test]
    fn differences_are_told_to_people_and_to_scripts() {
        let difference = |kind| Difference { path: TreePath::try_from("bin/lua".to_owned()).unwrap(), kind };
        let content = difference(Kind::Content { offset: 7, first: vec![0, 255], second: vec![] });
        assert_eq!(sentence(&content), "bin/lua differs from byte 7: 00 ff and its end");
        let shape = DifferenceShape::from(&content);
        assert_eq!((shape.kind, shape.offset, shape.first.as_deref()), ("content", Some(7), Some("00 ff")));
        let modes = difference(Kind::Mode { first: Mode::Plain, second: Mode::Executable });
        assert_eq!(sentence(&modes), "bin/lua has mode 0644 and 0755");
        let many = vec![difference(Kind::OnlyIn(Side::Second)); 22];
        assert!(differing(&many).ends_with("\n  and 2 more"));
    }
}
