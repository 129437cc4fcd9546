//! Failures of the service under another name than theirs.

use bellrope::HandlerError;

type Failure = HandlerError;

#[bellrope::service]
trait Fails {
    fn fail(&self) -> Result<u8, Failure>;
}

fn main() {}
