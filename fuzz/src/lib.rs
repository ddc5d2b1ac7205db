//! What several fuzz targets share: requests drawn from bytes, a world with canaries, a peer that
//! owns its side of a window, a kernel with a mount, a server that lies.
//!
//! Belongs here: what makes or checks inputs. Belongs elsewhere: the targets (`fuzz_targets`), how
//! they are built and run (`cargo xtask fuzz`).

pub mod claims;
pub mod kernel;
pub mod liar;
pub mod messages;
pub mod peer;
pub mod requests;
pub mod world;
