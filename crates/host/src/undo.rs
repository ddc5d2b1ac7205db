//! The undo beside the deed.

/// Runs its action when dropped, unless kept.
pub(crate) struct Undo<F: FnMut()>(Option<F>);

impl<F: FnMut()> Undo<F> {
    pub(crate) const fn new(action: F) -> Self {
        Self(Some(action))
    }

    /// The deed stands.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl<F: FnMut()> Drop for Undo<F> {
    fn drop(&mut self) {
        if let Some(action) = &mut self.0 {
            action();
        }
    }
}
