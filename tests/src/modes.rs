//! Modes: the same test in kernel mode and in plain mode.

/// Makes two tests of each function that takes a `&Host`: `kernel::name` and `plain::name`.
#[macro_export]
macro_rules! in_both_modes {
    ($($test:ident),+ $(,)?) => {
        mod kernel {
            $(#[test]
            fn $test() {
                super::$test(&$crate::host::Host::kernel());
            })+
        }
        mod plain {
            $(#[test]
            fn $test() {
                super::$test(&$crate::host::Host::plain());
            })+
        }
    };
}
