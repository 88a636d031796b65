//! What a build sees of the place and time it is made in.
//!
//! The usual surroundings are equal on every volunteer, so that equal sources can give equal outputs. The other ones differ in
//! everything that an output must not depend on; a build that comes out the same in both is reproducible as far as that goes.
//! The clock is not turned: two builds are made at two times anyway.

use protocol::recipe::Ground;
use protocol::request::Conditions;
use std::num::NonZeroU32;
use std::time::Duration;

/// Where the work folder usually is inside.
pub const BUILD_DIR: &str = "/build";
/// Where `HOME` is inside.
pub const HOME_DIR: &str = "/home/build";
/// Where programs are inside that are called otherwise outside.
pub const ALIAS_DIR: &str = "/tools";

/// What differs between conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The folder in which the source lies and the steps start.
    pub build_dir: &'static str,
    /// The host's name.
    pub host_name: &'static str,
    /// `TZ`, in the notation of POSIX, which needs no database.
    pub time_zone: &'static str,
    /// How much later than `SOURCE_DATE_EPOCH` files were last changed.
    pub files_later: Duration,
    jobs: Jobs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jobs {
    EachCore,
    /// One where there are several cores, two where there is one.
    Otherwise,
}

impl Surroundings {
    /// Those that every build has.
    pub const USUAL: Self = Self {
        build_dir: BUILD_DIR,
        host_name: "build",
        time_zone: "UTC",
        files_later: Duration::ZERO,
        jobs: Jobs::EachCore,
    };
    /// Those that differ from the usual ones.
    pub const OTHER: Self = Self {
        build_dir: "/somewhere/else/to-build",
        host_name: "elsewhere",
        time_zone: "ELSE11",
        files_later: Duration::from_secs(86_400),
        jobs: Jobs::Otherwise,
    };

    /// The surroundings for these conditions.
    #[must_use]
    pub const fn of(conditions: Conditions) -> Self {
        match conditions {
            Conditions::Usual => Self::USUAL,
            Conditions::Other => Self::OTHER,
        }
    }

    /// What a recipe may know of them, where a build may use `cores`.
    #[must_use]
    pub fn ground(&self, cores: u64) -> Ground<'static> {
        let cores = NonZeroU32::new(u32::try_from(cores).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        let jobs = match self.jobs {
            Jobs::EachCore => cores,
            Jobs::Otherwise if cores == NonZeroU32::MIN => NonZeroU32::MIN.saturating_add(1),
            Jobs::Otherwise => NonZeroU32::MIN,
        };
        Ground { jobs, here: self.build_dir }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::recipe::MAX_HERE_BYTES;

    #[test]
    fn the_other_surroundings_differ_in_everything() {
        let (usual, other) = (Surroundings::of(Conditions::Usual), Surroundings::of(Conditions::Other));
        assert_ne!(usual.build_dir, other.build_dir);
        assert_ne!(
            usual.build_dir.len(),
            other.build_dir.len(),
            "a path of the same length may hide what depends on it"
        );
        assert_ne!(usual.host_name, other.host_name);
        assert_ne!(usual.time_zone, other.time_zone);
        assert_ne!(usual.files_later, other.files_later);
        for cores in [0, 1, 2, 64] {
            assert_ne!(usual.ground(cores).jobs, other.ground(cores).jobs, "{cores}");
        }
        assert!([usual, other].iter().all(|surroundings| surroundings.build_dir.len() <= MAX_HERE_BYTES));
    }
}
