//! `node doctor`: what this machine lacks, and which command mends it.

use crate::exit::{Exit, Failure};
use crate::output::{Format, Output, Table};
use crate::sentences::Said;
use crate::shape::{CheckShape, DoctorShape};
use node::doctor::{Check, Diagnosis, Finding};

/// Shows every check; what is missing ends the command with the code of an infrastructure failure.
pub(crate) fn show(output: &Output, diagnosis: &Diagnosis) -> Result<Exit, Failure> {
    let mut table = Table::new(&["CHECK", "STATE", "FOUND"]);
    for check in diagnosis.checks() {
        let shape = shape(check);
        table.row([shape.name.to_owned(), shape.state.to_owned(), shape.found]);
    }
    output.answer(&table.text())?;
    if output.format() == Format::Text {
        mends(diagnosis).iter().for_each(|said| output.warn(said));
    }
    let checks = diagnosis.checks().iter().map(shape).collect();
    output.object(&DoctorShape { ready: Some(diagnosis.is_ready()), checks: Some(checks), reason: None })?;
    if diagnosis.is_ready() {
        output.tell(&Said::with_next("this machine can volunteer", "`node --volunteer --farm TICKET` joins a farm"));
        Ok(Exit::Done)
    } else {
        Ok(Exit::Infrastructure)
    }
}

/// A sentence with its command for every check that is not good.
fn mends(diagnosis: &Diagnosis) -> Vec<Said> {
    let sentence = |check: &Check| match &check.finding {
        Finding::Good { .. } => None,
        Finding::Advice { seen, mend } | Finding::Missing { seen, mend } => {
            Some(Said::with_next(format!("{}: {seen}", check.name), format!("`{mend}`")))
        }
    };
    diagnosis.checks().iter().filter_map(sentence).collect()
}

fn shape(check: &Check) -> CheckShape {
    let (state, found, mend) = match &check.finding {
        Finding::Good { seen } => ("good", seen, None),
        Finding::Advice { seen, mend } => ("advice", seen, Some(mend.clone())),
        Finding::Missing { seen, mend } => ("missing", seen, Some(mend.clone())),
    };
    CheckShape { name: check.name, state, found: found.clone(), mend }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_comes_with_its_command() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.add(Check::good("disk", "5120 MiB free"));
        diagnosis.add(Check::missing("bubblewrap", "not installed", "apt-get install bubblewrap"));
        assert_eq!(mends(&diagnosis), [Said::with_next("bubblewrap: not installed", "`apt-get install bubblewrap`")]);
        let states: Vec<_> = diagnosis.checks().iter().map(|check| shape(check).state).collect();
        assert_eq!(states, ["good", "missing"]);
    }
}
