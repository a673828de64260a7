//! Today's date for templates that print it.

use jiff::Zoned;
use jiff::fmt::strtime;
use minijinja::{Error, ErrorKind};

/// The local time in a format of C's `strftime`.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    strtime::format(format, &Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
}
