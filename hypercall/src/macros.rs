//! How the ABI is written down once: each structure and each constant stands beside its name in Xen's headers, and the
//! same lines yield the Rust type, the compile-time asserts, and (feature `abi-table`) the rows that `cargo xtask abi`
//! compares with a C compiler's view of those headers.

/// Structures: `Rust = "C name", size { field: type = "C field" @ offset, padding: type }`. One call in a module.
///
/// `IntoBytes` refuses implicit padding at compile time, so no structure hands uninitialised bytes to Xen.
macro_rules! structs {
    ($( $(#[$meta:meta])* $name:ident = $c:literal, $size:literal {
        $( $(#[$field_meta:meta])* $field:ident : $type:ty $(= $c_field:literal @ $offset:literal)? ),* $(,)?
    } )*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
            #[repr(C)]
            pub struct $name {
                $( $(#[$field_meta])* pub $field: $type, )*
            }
            const _: () = {
                assert!(size_of::<$name>() == $size);
                $( $( assert!(core::mem::offset_of!($name, $field) == $offset); )? )*
            };
        )*
        #[cfg(feature = "abi-table")]
        pub(crate) const LAYOUTS: &[$crate::abi::Row] = &[ $(
            $crate::abi::Row { expression: concat!("sizeof(", $c, ")"), value: $size },
            $( $( $crate::abi::Row { expression: concat!("offsetof(", $c, ", ", $c_field, ")"), value: $offset }, )? )*
        )* ];
    };
}

/// Constants: `NAME: type = value, "C expression";`. One call in a module.
macro_rules! constants {
    ($( $(#[$meta:meta])* $name:ident : $type:ty = $value:expr, $c:literal; )*) => {
        $( $(#[$meta])* pub const $name: $type = $value; )*
        #[cfg(feature = "abi-table")]
        pub(crate) const CONSTANTS: &[$crate::abi::Row] =
            &[ $( $crate::abi::Row { expression: $c, value: $name as i64 }, )* ];
    };
}
