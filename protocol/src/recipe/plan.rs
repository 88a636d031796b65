//! What a recipe comes to once everything is chosen: the steps to run, the files to keep, the limits.

use super::condition::{Circumstances, PLATFORM_KEYS, fixed};
use super::fill::Filling;
use super::{Condition, Limits, Output, Recipe, SpecError, StepRule, VariantRule, with_room};
use crate::platform::{Require, Requirement};
use crate::request::{BuildSpec, Name, OptionValue};
use crate::time::Span;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// The longest path of a folder in which builds are made, in bytes.
pub const MAX_HERE_BYTES: usize = 64;

/// What a recipe may know of the place where it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ground<'a> {
    /// How many jobs may run side by side: `{jobs}`.
    pub jobs: NonZeroU32,
    /// The absolute path of the folder in which the steps start: `{here}`; at most [`MAX_HERE_BYTES`].
    pub here: &'a str,
}

/// A step to run: program, arguments and the variables to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Program and arguments, never empty.
    pub argv: Vec<String>,
    /// Variables added to the sandbox's environment.
    pub env: BTreeMap<String, String>,
    /// The most wall-clock time of this step, where it has a limit of its own.
    pub time: Option<Span>,
}

/// A smoke test to run: it passes with exit status 0 and, where something is expected, with that text on standard output.
/// It starts in a folder that holds the artifact, as it was collected, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmokeTest {
    /// Program and arguments, never empty.
    pub argv: Vec<String>,
    /// What standard output must contain.
    pub expect: Option<String>,
}

/// All that a volunteer does for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One after another, in an environment of their own.
    pub steps: Vec<Step>,
    /// What the build leaves behind; at least one is required.
    pub outputs: Vec<Output>,
    /// What is tried on the artifact.
    pub smoke: Option<SmokeTest>,
    /// What the build may use.
    pub limits: Limits,
    /// The date of every file the build starts from, and `SOURCE_DATE_EPOCH`: seconds since 1970.
    pub source_date_epoch: u64,
}

impl Recipe {
    /// What a volunteer does on this ground for a request with this spec and these options that do not change the result.
    ///
    /// # Errors
    ///
    /// [`SpecError`] as from [`Recipe::admit`]: nothing that does not fit is ever planned.
    pub fn plan(
        &self,
        spec: &BuildSpec,
        effort: &BTreeMap<Name, OptionValue>,
        ground: Ground<'_>,
    ) -> Result<Plan, SpecError> {
        self.admit(spec, effort)?;
        let circumstances = self.circumstances(&spec.options, &spec.requirement)?;
        let filling = Filling { rules: &self.0.options, options: &spec.options, effort, ground };
        let steps: Vec<Step> = self
            .0
            .steps
            .iter()
            .filter(|rule| circumstances.allow(&rule.when))
            .map(|rule| self.step(rule, circumstances, filling))
            .collect();
        Ok(Plan {
            steps,
            outputs: self.outputs_in(circumstances).cloned().collect(),
            smoke: self.0.smoke.as_ref().map(|smoke| SmokeTest {
                argv: filling.words(&smoke.run),
                expect: smoke.expect.as_ref().map(|word| filling.word(word)),
            }),
            limits: self.limits_in(circumstances),
            source_date_epoch: self.0.source_date_epoch,
        })
    }

    fn step(&self, rule: &StepRule, circumstances: Circumstances<'_>, filling: Filling<'_>) -> Step {
        let variants = self.variants_in(circumstances).map(|variant| &variant.env);
        // Whatever comes later wins.
        let layers = [&self.0.env].into_iter().chain(variants).chain([&rule.env]);
        let variables: BTreeMap<_, _> = layers.flatten().collect();
        let set =
            variables.into_iter().filter_map(|(name, variable)| Some((name.clone(), filling.variable(variable)?)));
        Step { argv: filling.words(&rule.run), env: set.collect(), time: rule.time }
    }

    /// What a build with this spec may use.
    ///
    /// # Errors
    ///
    /// [`SpecError`] when conditions ask for a platform that the spec leaves open.
    pub fn limits_for(&self, spec: &BuildSpec) -> Result<Limits, SpecError> {
        Ok(self.limits_in(self.circumstances(&spec.options, &spec.requirement)?))
    }

    /// What conditions are held against, where they can be decided.
    pub(super) fn circumstances<'a>(
        &self,
        options: &'a BTreeMap<Name, OptionValue>,
        requirement: &'a Requirement,
    ) -> Result<Circumstances<'a>, SpecError> {
        let asked = |key: &&str| self.conditions().any(|condition| condition.subject().as_str() == *key);
        match PLATFORM_KEYS.into_iter().filter(asked).find(|key| fixed(requirement, key).is_none()) {
            Some(key) => Err(SpecError::Platform { recipe: self.0.name.clone(), key }),
            None => Ok(Circumstances { options, requirement }),
        }
    }

    fn conditions(&self) -> impl Iterator<Item = &Condition> {
        let variants = self.0.variants.iter().flat_map(|variant| &variant.when);
        let steps = self.0.steps.iter().flat_map(|step| &step.when);
        variants.chain(steps).chain(self.0.outputs.iter().flat_map(|output| &output.when))
    }

    fn variants_in<'a>(&'a self, circumstances: Circumstances<'a>) -> impl Iterator<Item = &'a VariantRule> {
        self.0.variants.iter().filter(move |variant| circumstances.allow(&variant.when))
    }

    pub(super) fn outputs_in<'a>(&'a self, circumstances: Circumstances<'a>) -> impl Iterator<Item = &'a Output> {
        self.0.outputs.iter().filter(move |output| circumstances.allow(&output.when))
    }

    fn limits_in(&self, circumstances: Circumstances<'_>) -> Limits {
        self.variants_in(circumstances).fold(self.0.limits, |limits, variant| Limits {
            time: variant.limits.time.map_or(limits.time, |time| limits.time.max(time)),
            memory_mib: variant.limits.memory_mib.map_or(limits.memory_mib, |mib| limits.memory_mib.max(mib)),
            disk_mib: variant.limits.disk_mib.map_or(limits.disk_mib, |mib| limits.disk_mib.max(mib)),
            quiet: limits.quiet,
        })
    }

    /// What the build needs of a volunteer: the author's constraints with those of the variants, and room for its limits.
    pub(super) fn requirement_in(&self, circumstances: Circumstances<'_>) -> Requirement {
        let mut requirement = with_room(self.0.requirement.clone(), self.limits_in(circumstances));
        for variant in self.variants_in(circumstances) {
            for (key, constraint) in variant.requirement.iter() {
                requirement.add(key, constraint.clone());
            }
        }
        requirement
    }

    /// The same with what `--platform` and `--require` add, which decide the platform.
    pub(super) fn requirement_with(
        &self,
        options: &BTreeMap<Name, OptionValue>,
        extra: &[Require],
    ) -> Result<Requirement, SpecError> {
        let with_extra = |mut requirement: Requirement| {
            extra.iter().for_each(|Require { key, constraint }| requirement.add(key.clone(), constraint.clone()));
            requirement
        };
        let platform = with_extra(self.0.requirement.clone());
        Ok(with_extra(self.requirement_in(self.circumstances(options, &platform)?)))
    }
}
