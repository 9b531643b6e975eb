//! The proof of elapsed time: the figures of `poet-service bench`.

use crate::Result;

#[expect(clippy::unnecessary_wraps, reason = "the form of all parts")]
pub(crate) fn run() -> Result<()> {
    println!("{}", poet_service::bench::run(1.0));
    Ok(())
}
