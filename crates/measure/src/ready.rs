//! What is done when a run was accepted and before its first frame: outputs are opened, which a run that is refused
//! shall not touch.

use std::fmt;
use std::sync::Arc;

use crate::error::MeasureError;

/// Called once, when nothing but the frames is missing. Its error ends the run before any.
#[derive(Clone)]
pub struct Ready(Arc<dyn Fn() -> Result<(), MeasureError> + Send + Sync>);

impl Ready {
    /// With this to be done.
    pub fn new(act: impl Fn() -> Result<(), MeasureError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(act))
    }

    pub(crate) fn call(&self) -> Result<(), MeasureError> {
        (self.0)()
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}
