//! A root to write to without touching the cached one: an overlay of the host's kernel above it.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A copy-on-write view of a folder, unmounted when dropped.
#[derive(Debug)]
pub struct WritableCopy {
    root: PathBuf,
}

impl WritableCopy {
    /// Mounts a copy of `original`, with everything it needs inside `folder`.
    ///
    /// # Panics
    /// If the host cannot mount an overlay.
    #[must_use]
    pub fn new(original: &Path, folder: &Path) -> Self {
        let part = |name: &str| {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).expect("a scratch folder can be written to");
            path
        };
        let (root, upper, work) = (part("root"), part("upper"), part("work"));
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            original.display(),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).expect("a path holds no NUL");
        mount(
            "overlay",
            &root,
            "overlay",
            MountFlags::empty(),
            Some(&*options),
        )
        .expect("the host can mount an overlay");
        Self { root }
    }

    /// Where the copy is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }
}

impl Drop for WritableCopy {
    fn drop(&mut self) {
        // A busy mount would keep the scratch folder from being removed: detach it in any case.
        _ = unmount(&self.root, UnmountFlags::DETACH);
    }
}
