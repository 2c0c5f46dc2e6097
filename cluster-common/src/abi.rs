//! The version of everything in this crate that lies in memory shared between kernel programs and supervisors.

/// Changes whenever a layout, a name or the meaning of a value changes.
///
/// Programs and maps outlive the supervisor that loaded them: the next one compares before it takes over.
pub const VERSION: u32 = 4;

/// A group's settings, written by the supervisor and read by the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// [`VERSION`] of the supervisor that loaded the program.
    pub abi: u32,
    /// An [`OnMiss`](crate::choose::OnMiss) as a number.
    pub on_miss: u32,
    /// How many [sources](crate::steer::Source) are steered. Unless it is 0 the program looks each connection's source up.
    pub steered: u32,
    /// Fills the last word.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Config>() == 16);

#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for Config {}
