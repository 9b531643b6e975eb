//! The clock that the node's work goes by: that of the machine, or one of a test.

use std::{fmt, sync::Arc, time::Duration};

use crate::timeline::Moment;

/// The longest sleep in one piece. Clocks of machines are set, and stand still while a machine sleeps, without sleeping tasks taking
/// notice.
const SLICE: Duration = Duration::from_secs(5);

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Moment + Send + Sync>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self::new(Moment::now)
    }

    /// A clock that shows what a function says.
    pub fn new(now: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The present.
    pub fn now(&self) -> Moment {
        (self.0)()
    }

    /// Waits until the clock shows this moment.
    pub async fn sleep_until(&self, moment: Moment) {
        loop {
            let left = self.now().until(moment);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(SLICE)).await;
        }
    }
}
