//! xsm/flask_op.h: booleans of the FLASK policy.

constants! {
    /// The interface's version.
    INTERFACE_VERSION: u32 = 1, "XEN_FLASK_INTERFACE_VERSION";
    /// Operation: a boolean's value.
    GETBOOL: u32 = 11, "FLASK_GETBOOL";
    /// Operation: sets a boolean.
    SETBOOL: u32 = 12, "FLASK_SETBOOL";
}

/// `bool_id` of a boolean that is named by its name.
pub const BY_NAME: u32 = u32::MAX;

structs! {
    /// Argument of xsm_op.
    FlaskOp = "struct xen_flask_op", 40 {
        /// The operation.
        cmd: u32 = "cmd" @ 0,
        /// [`INTERFACE_VERSION`].
        interface_version: u32 = "interface_version" @ 4,
        /// For GETBOOL and SETBOOL.
        boolean: FlaskBoolean = "u" @ 8,
        /// The rest of the union.
        rest: u64,
    }
    /// A boolean.
    FlaskBoolean = "struct xen_flask_boolean", 24 {
        /// Its number, or [`BY_NAME`].
        bool_id: u32 = "bool_id" @ 0,
        /// Out: its value.
        enforcing: u8 = "enforcing" @ 4,
        /// Out: its value after the next commit.
        pending: u8 = "pending" @ 5,
        /// SETBOOL: its new value.
        new_value: u8 = "new_value" @ 6,
        /// SETBOOL: commit at once.
        commit: u8 = "commit" @ 7,
        /// Bytes of the name.
        size: u32 = "size" @ 8,
        /// Padding.
        pad: u32,
        /// Address of the name.
        name: u64 = "name" @ 16,
    }
}
