//! The identifiers of the hypercall interface, under the names that this crate uses.

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident($raw:ty);)*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name($raw);
        impl $name {
            /// Names the thing with this number.
            pub const fn new(raw: $raw) -> Self {
                Self(raw)
            }
            /// The number.
            pub const fn raw(self) -> $raw {
                self.0
            }
        }
    )* };
}

ids! {
    /// A domain.
    DomId(u16);
    /// A grant reference of our own table.
    GrantRef(u32);
    /// A local event channel port.
    EvtchnPort(u32);
}
