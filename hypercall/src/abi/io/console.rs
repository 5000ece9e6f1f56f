//! io/console.h: the page of the PV console. dom0 writes its half at any time.

structs! {
    /// The console's rings: `in` towards the guest, `out` from it. Indices run freely; mask them.
    ConsoleRing = "struct xencons_interface", 3088 {
        /// Bytes for the guest.
        input: [u8; 1024] = "in" @ 0,
        /// Bytes from the guest.
        output: [u8; 2048] = "out" @ 1024,
        /// Consumer of `input`, by the guest.
        in_cons: u32 = "in_cons" @ 3072,
        /// Producer of `input`, by the backend.
        in_prod: u32 = "in_prod" @ 3076,
        /// Consumer of `output`, by the backend.
        out_cons: u32 = "out_cons" @ 3080,
        /// Producer of `output`, by the guest.
        out_prod: u32 = "out_prod" @ 3084,
    }
}
