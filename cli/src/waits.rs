//! Every wait of the commands that is not the keeper's. `docs/operating/exit-codes.md` prints the same table.

use std::time::Duration;

/// For one request to xenstored.
pub const XENSTORE: Duration = Duration::from_secs(10);
/// For the stub to answer a request, or to publish anything during a session, without the keeper.
pub const STUB: Duration = Duration::from_secs(35);
/// For the keeper to say that it is ready.
pub const KEEPER: Duration = Duration::from_secs(20);
/// For `xl list -l`.
pub const XL_LIST: Duration = Duration::from_secs(30);
/// For `xl restore` after the whole image was handed to it.
pub const XL_RESTORE: Duration = Duration::from_secs(600);
/// For the next byte of a migration that is received. libxl itself gives a guest 60 s to suspend.
pub const SENDER: Duration = Duration::from_secs(300);

/// The table of the document: name, length, what follows.
#[cfg(test)]
pub const ROWS: &[(&str, Duration, &str)] = &[
    ("xenstore request", XENSTORE, "the command fails"),
    ("stub's answer", STUB, "`stub-died`"),
    ("keeper's readiness", KEEPER, "`keeper-lost`; nothing was touched"),
    ("`xl list -l`", XL_LIST, "`xl-failed`; nothing was touched"),
    ("`xl restore` after the image's end", XL_RESTORE, "`xl-failed`"),
    ("next byte of a migration", SENDER, "`sender-gone`"),
];
