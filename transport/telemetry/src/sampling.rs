//! Which traces are recorded: decided where a trace begins, before anything is built for it.

use ringway::trace::TraceContext;

use crate::Error;

pub(crate) const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
pub(crate) const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Which traces are recorded. The default, as OpenTelemetry's, records every trace that begins here,
/// and of those that began elsewhere the ones that are recorded there.
///
/// ```
/// use ringway_telemetry::Sampler;
///
/// let one_in_a_hundred = Sampler::ratio(0.01);
/// assert_ne!(one_in_a_hundred, Sampler::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    ratio: f64,
    /// Traces with an id below this are recorded.
    bound: u64,
    /// A trace that began elsewhere is recorded if it is recorded there.
    parent_based: bool,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::ratio(1.0)
    }
}

impl Sampler {
    /// Records `ratio` of the traces that begin here, from 0 (none) to 1 (all), and of those that
    /// began elsewhere the ones that are recorded there (`parentbased_traceidratio`).
    pub fn ratio(ratio: f64) -> Self {
        let ratio = ratio.clamp(0.0, 1.0);
        Self {
            ratio,
            bound: bound(ratio),
            parent_based: true,
        }
    }

    /// Decides by its own ratio for traces that began elsewhere, too (`traceidratio`).
    #[must_use]
    pub fn whatever_the_parent(mut self) -> Self {
        self.parent_based = false;
        self
    }

    /// The sampler that the environment names.
    pub(crate) fn named(name: Option<String>, argument: Option<String>) -> Result<Self, Error> {
        let Some(name) = name else {
            return Ok(Self::default());
        };
        let (kind, parent_based) = match name.strip_prefix("parentbased_") {
            Some(kind) => (kind, true),
            None => (name.as_str(), false),
        };
        let ratio = match kind {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => ratio_of(argument)?,
            _ => {
                return Err(Error::Setting {
                    variable: SAMPLER,
                    value: name,
                    reason: "use always_on, always_off or traceidratio, with parentbased_ in \
                             front or without"
                        .to_owned(),
                });
            }
        };
        Ok(Self {
            parent_based,
            ..Self::ratio(ratio)
        })
    }

    /// Whether a trace is recorded; `parent` says whether it is where the call comes from.
    #[inline]
    pub fn records(&self, trace_id: u128, parent: Option<bool>) -> bool {
        match parent {
            Some(recorded) if self.parent_based => recorded,
            // The low half, of which OpenTelemetry's own `TraceIdRatioBased` takes 63 bits.
            #[allow(
                clippy::cast_possible_truncation,
                reason = "the low half is what is wanted"
            )]
            _ => (trace_id as u64) >> 1 < self.bound,
        }
    }

    /// Whether what `parent` leads to is not recorded, because it is not recorded itself.
    #[inline]
    pub(crate) fn leaves_out(&self, parent: &TraceContext) -> bool {
        self.parent_based && !parent.is_sampled()
    }

    /// How the program's own spans are sampled, which OpenTelemetry's SDK does.
    pub(crate) fn of_sdk(&self) -> opentelemetry_sdk::trace::Sampler {
        use opentelemetry_sdk::trace::Sampler as Sdk;
        let root = Sdk::TraceIdRatioBased(self.ratio);
        match self.parent_based {
            true => Sdk::ParentBased(Box::new(root)),
            false => root,
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of 63 bits, clamped"
)]
fn bound(ratio: f64) -> u64 {
    (ratio * (1u64 << 63) as f64) as u64
}

fn ratio_of(argument: Option<String>) -> Result<f64, Error> {
    // Without one all are recorded (OpenTelemetry, "Environment Variable Specification").
    let Some(argument) = argument else {
        return Ok(1.0);
    };
    let ratio = argument.parse().ok().filter(|it| (0.0..=1.0).contains(it));
    ratio.ok_or(Error::Setting {
        variable: SAMPLER_ARG,
        value: argument,
        reason: "not a number from 0 to 1".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, argument: &str) -> Result<Sampler, Error> {
        let argument = Some(argument.to_owned()).filter(|it| !it.is_empty());
        Sampler::named(Some(name.to_owned()), argument)
    }

    #[test]
    fn the_environment_names_what_opentelemetry_names() {
        assert_eq!(Sampler::named(None, None).unwrap(), Sampler::default());
        let quarter = named("parentbased_traceidratio", "0.25").unwrap();
        assert_eq!(quarter, Sampler::ratio(0.25));
        let quarter = named("traceidratio", "0.25").unwrap();
        assert_eq!(quarter, Sampler::ratio(0.25).whatever_the_parent());
        assert_eq!(
            named("parentbased_always_off", "").unwrap(),
            Sampler::ratio(0.0)
        );
        assert_eq!(
            named("parentbased_always_on", "").unwrap(),
            Sampler::ratio(1.0)
        );
        let error = named("xray", "").unwrap_err().to_string();
        assert!(error.contains("OTEL_TRACES_SAMPLER=xray"), "{error}");
        for bad in ["1.5", "-1", "much", "NaN"] {
            let error = named("traceidratio", bad).unwrap_err().to_string();
            assert!(
                error.contains(&format!("OTEL_TRACES_SAMPLER_ARG={bad}")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_ratio_holds_and_the_ends_are_exact() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut count = |sampler: Sampler| {
            (0..100_000)
                .filter(|_| sampler.records(random.u128(..), None))
                .count()
        };
        assert_eq!(count(Sampler::ratio(0.0)), 0);
        assert_eq!(count(Sampler::ratio(1.0)), 100_000);
        let tenth = count(Sampler::ratio(0.1));
        assert!((9_500..10_500).contains(&tenth), "{tenth}");
        assert!(Sampler::ratio(1.0).records(u128::MAX, None));
    }

    #[test]
    fn a_parent_decides_unless_it_is_not_asked() {
        let none = Sampler::ratio(0.0);
        assert!(none.records(1, Some(true)));
        assert!(!Sampler::ratio(1.0).records(1, Some(false)));
        assert!(
            Sampler::ratio(1.0)
                .whatever_the_parent()
                .records(1, Some(false))
        );
        assert!(!none.whatever_the_parent().records(1, Some(true)));
    }
}
