//! Telling that an operation makes progress, so that whoever waits for it knows that it is not stuck.
//!
//! The programs of this crate have one thread; one that nobody gave a listener tells nobody.

use std::cell::RefCell;

/// Who is told.
type Listener = Box<dyn FnMut()>;

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// Has this thread's progress told, many times in a second.
pub fn listen(listener: impl FnMut() + 'static) {
    LISTENER.with_borrow_mut(|place| *place = Some(Box::new(listener)));
}

/// Something was done: a file, or a part of a large one.
pub(crate) fn made() {
    LISTENER.with_borrow_mut(|listener| {
        if let Some(listener) = listener {
            listener();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn a_listener_hears_each_step() {
        made();
        let heard = Rc::new(Cell::new(0));
        let count = Rc::clone(&heard);
        listen(move || count.set(count.get() + 1));
        made();
        made();
        assert_eq!(heard.get(), 2);
    }
}
