//! What a scenario tells: printed at once, or held until its end when several run side by side.
//!
//! Each thread has its own holder, so that the lines of two machines never mix.

use std::cell::RefCell;
use std::fmt;

thread_local! {
    static HELD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Holds back what this thread says from now on.
pub fn hold() {
    HELD.with_borrow_mut(|held| *held = Some(String::new()));
}

/// Prints in one piece what this thread said since [`hold`]; from now on it is printed at once again.
pub fn release() {
    if let Some(text) = HELD.with_borrow_mut(Option::take) {
        print!("{text}");
    }
}

/// One line; `say!` is the way to call it.
pub fn line(words: fmt::Arguments) {
    HELD.with_borrow_mut(|held| match held {
        Some(text) => *text += &format!("{words}\n"),
        None => println!("{words}"),
    });
}

/// `println!` for scenarios.
#[macro_export]
macro_rules! say {
    ($($word:tt)*) => { $crate::say::line(format_args!($($word)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_in_order_and_only_from_this_thread() {
        hold();
        say!("one {}", 1);
        std::thread::spawn(|| say!("from elsewhere")).join().unwrap();
        say!("two");
        let held = HELD.with_borrow(Clone::clone);
        assert_eq!(held.as_deref(), Some("one 1\ntwo\n"));
        release();
        assert!(HELD.with_borrow(Option::is_none));
    }
}
