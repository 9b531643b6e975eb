//! The proof of elapsed time: the figures of `poet-service bench`.

use crate::Result;

pub(crate) fn run() -> Result<()> {
    let figures = poet_service::bench::run(1.0);
    println!("{figures}");
    let folder = tempfile::tempdir()?;
    let served = poet_service::bench::server::run(folder.path(), 1.0)?;
    println!("{served}");
    println!("  the hashing thread has         {:.1} % of the chain's speed", 100.0 * served.share_of(figures.chain_cycles));
    Ok(())
}
