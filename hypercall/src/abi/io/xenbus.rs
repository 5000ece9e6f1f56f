//! io/xenbus.h: the states of a device's two ends.

constants! {
    /// No state.
    STATE_UNKNOWN: u32 = 0, "XenbusStateUnknown";
    /// The toolstack made the nodes.
    STATE_INITIALISING: u32 = 1, "XenbusStateInitialising";
    /// The backend waits for the frontend's details.
    STATE_INIT_WAIT: u32 = 2, "XenbusStateInitWait";
    /// The frontend has published its details.
    STATE_INITIALISED: u32 = 3, "XenbusStateInitialised";
    /// In use.
    STATE_CONNECTED: u32 = 4, "XenbusStateConnected";
    /// Being closed.
    STATE_CLOSING: u32 = 5, "XenbusStateClosing";
    /// Closed.
    STATE_CLOSED: u32 = 6, "XenbusStateClosed";
    /// Being reconfigured.
    STATE_RECONFIGURING: u32 = 7, "XenbusStateReconfiguring";
    /// Reconfigured.
    STATE_RECONFIGURED: u32 = 8, "XenbusStateReconfigured";
}
