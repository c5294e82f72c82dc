//! One thing that was examined.

use serde::Serialize;

/// What an examination came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Nothing that works or does not, but good to know.
    Note,
    /// It works, though worse than it could.
    Limited,
    /// It does not work.
    No,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "-",
            Self::Limited => "limited",
            Self::No => "NO",
        }
    }
}

/// One thing that was examined, what was found, and what to do about it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    pub(crate) area: &'static str,
    pub(crate) what: String,
    pub(crate) state: State,
    pub(crate) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

impl Finding {
    pub(crate) fn new(
        area: &'static str,
        what: impl Into<String>,
        state: State,
        found: impl Into<String>,
    ) -> Self {
        Self {
            area,
            what: what.into(),
            state,
            found: found.into(),
            advice: None,
        }
    }

    /// What to do about it.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}
