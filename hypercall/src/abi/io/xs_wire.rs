//! io/xs_wire.h: messages to xenstored, and the page that carries them. xenstored writes its half at any time.

constants! {
    /// Message: control.
    XS_CONTROL: u32 = 0, "XS_CONTROL";
    /// Message: list a directory.
    XS_DIRECTORY: u32 = 1, "XS_DIRECTORY";
    /// Message: read a node.
    XS_READ: u32 = 2, "XS_READ";
    /// Message: read a node's permissions.
    XS_GET_PERMS: u32 = 3, "XS_GET_PERMS";
    /// Message: set a watch.
    XS_WATCH: u32 = 4, "XS_WATCH";
    /// Message: remove a watch.
    XS_UNWATCH: u32 = 5, "XS_UNWATCH";
    /// Message: start a transaction.
    XS_TRANSACTION_START: u32 = 6, "XS_TRANSACTION_START";
    /// Message: end a transaction.
    XS_TRANSACTION_END: u32 = 7, "XS_TRANSACTION_END";
    /// Message: introduce a domain.
    XS_INTRODUCE: u32 = 8, "XS_INTRODUCE";
    /// Message: release a domain.
    XS_RELEASE: u32 = 9, "XS_RELEASE";
    /// Message: a domain's directory.
    XS_GET_DOMAIN_PATH: u32 = 10, "XS_GET_DOMAIN_PATH";
    /// Message: write a node.
    XS_WRITE: u32 = 11, "XS_WRITE";
    /// Message: make a directory.
    XS_MKDIR: u32 = 12, "XS_MKDIR";
    /// Message: remove a node and what is below.
    XS_RM: u32 = 13, "XS_RM";
    /// Message: set a node's permissions.
    XS_SET_PERMS: u32 = 14, "XS_SET_PERMS";
    /// Message, from xenstored: a watch fired.
    XS_WATCH_EVENT: u32 = 15, "XS_WATCH_EVENT";
    /// Message, from xenstored: an error, by name.
    XS_ERROR: u32 = 16, "XS_ERROR";
    /// Message: whether a domain is introduced.
    XS_IS_DOMAIN_INTRODUCED: u32 = 17, "XS_IS_DOMAIN_INTRODUCED";
    /// Message: a suspended domain goes on.
    XS_RESUME: u32 = 18, "XS_RESUME";
    /// Message: give a domain another's rights.
    XS_SET_TARGET: u32 = 19, "XS_SET_TARGET";
    /// Message: remove all one's watches.
    XS_RESET_WATCHES: u32 = 21, "XS_RESET_WATCHES";
    /// Message: list a part of a directory.
    XS_DIRECTORY_PART: u32 = 22, "XS_DIRECTORY_PART";
    /// Bytes of a payload.
    PAYLOAD_MAX: usize = 4096, "XENSTORE_PAYLOAD_MAX";
    /// Bytes of an absolute path.
    ABS_PATH_MAX: usize = 3072, "XENSTORE_ABS_PATH_MAX";
    /// Bytes of a relative path.
    REL_PATH_MAX: usize = 2048, "XENSTORE_REL_PATH_MAX";
    /// Bytes of each ring.
    RING_LEN: usize = 1024, "XENSTORE_RING_SIZE";
    /// The connection is up.
    CONNECTED: u32 = 0, "XENSTORE_CONNECTED";
    /// The connection is being set up again.
    RECONNECT: u32 = 1, "XENSTORE_RECONNECT";
}

structs! {
    /// What precedes each payload.
    SockMsg = "struct xsd_sockmsg", 16 {
        /// `XS_*`.
        kind: u32 = "type" @ 0,
        /// The client's own name of the request.
        req_id: u32 = "req_id" @ 4,
        /// The transaction, or 0.
        tx_id: u32 = "tx_id" @ 8,
        /// Bytes that follow.
        len: u32 = "len" @ 12,
    }
    /// The page that carries the messages. Indices run freely; mask them.
    DomainInterface = "struct xenstore_domain_interface", 2076 {
        /// Requests, by the guest.
        req: [u8; RING_LEN] = "req" @ 0,
        /// Replies and watch events, by xenstored.
        rsp: [u8; RING_LEN] = "rsp" @ 1024,
        /// Consumer of `req`, by xenstored.
        req_cons: u32 = "req_cons" @ 2048,
        /// Producer of `req`, by the guest.
        req_prod: u32 = "req_prod" @ 2052,
        /// Consumer of `rsp`, by the guest.
        rsp_cons: u32 = "rsp_cons" @ 2056,
        /// Producer of `rsp`, by xenstored.
        rsp_prod: u32 = "rsp_prod" @ 2060,
        /// What xenstored can do.
        server_features: u32 = "server_features" @ 2064,
        /// `CONNECTED` or `RECONNECT`.
        connection: u32 = "connection" @ 2068,
        /// Why the connection failed.
        error: u32 = "error" @ 2072,
    }
}
