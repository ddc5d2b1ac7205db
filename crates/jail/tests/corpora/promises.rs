//! What holds for any text that claims to be mount configurations or a bundle's `config.json`.
//! Shared by the replay of the corpora and by the fuzz targets `conf` and `spec`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use jail::conf::{Conf, Lower, Upper};
use jail::spec::Mount;
use jail::{Confs, Descriptors, Dialect, Options, Plan, Spec};

/// A list as long as its commas say, which means the same when written out again.
pub(crate) fn of_conf(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(confs) = text.parse::<Confs>() else {
        return;
    };
    assert_eq!(confs.0.len(), text.split(',').count());
    assert!(
        confs
            .0
            .iter()
            .all(|conf| conf.is_lisafs() || conf.is_overlaid() || is_image(conf))
    );
    let again: Vec<String> = confs.0.iter().map(written).collect();
    assert_eq!(again.join(","), text);
}

fn is_image(conf: &Conf) -> bool {
    conf.lower == Lower::Erofs
}

fn written(conf: &Conf) -> String {
    let lower = match conf.lower {
        Lower::None => "none",
        Lower::Lisafs => "lisafs",
        Lower::Erofs => "erofs",
    };
    let upper = match conf.upper {
        Upper::None => "none",
        Upper::Memory => "memory",
        Upper::SelfFile => "self",
        Upper::Anonymous => "anon",
    };
    let size = conf.size.as_ref().map(|size| format!(":size={size}"));
    format!("{lower}:{upper}{}", size.unwrap_or_default())
}

/// Absolute places, a list that can be written back, and a plan or a refusal in every dialect.
pub(crate) fn of_spec(input: &[u8]) {
    for bundle in ["/bundle", "relative/bundle"] {
        let Ok(spec) = Spec::parse(input, Path::new(bundle)) else {
            continue;
        };
        assert!(!spec.root.path.is_empty());
        for mount in &spec.mounts {
            assert!(mount.destination.starts_with('/'));
            assert!(bundle.starts_with('r') || !is_relative(&mount.source));
            let written = serde_json::to_vec(mount).expect("a mount is plain data");
            let again: Mount = serde_json::from_slice(&written).expect("what we wrote");
            assert_eq!(again, *mount);
        }
        for dialect in [Dialect::V2022, Dialect::V2024, Dialect::V2026] {
            plan(dialect, &spec);
        }
    }
}

fn is_relative(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/')
}

/// With as many sockets as there are mounts, so that what follows the count is reached.
fn plan(dialect: Dialect, spec: &Spec) {
    let mounts = spec.mounts.iter().filter(|mount| mount.is_gofer_mount());
    let served = 1 + mounts.count();
    if served > 8 {
        return;
    }
    let mut options = Options::new(dialect, spec.clone());
    if dialect != Dialect::V2022 {
        let confs = vec!["lisafs:none"; served].join(",");
        options.confs = confs.parse::<Confs>().expect("confs of ours").0;
    }
    let descriptors = Descriptors {
        mounts: Some(null()),
        io: (0..served).map(|_| null()).collect(),
        rpc: (dialect == Dialect::V2026).then(null),
        ..Descriptors::default()
    };
    if let Err(refused) = Plan::new(options, descriptors) {
        assert!(!refused.to_string().contains('\n'), "one line for the log");
    }
}

fn null() -> OwnedFd {
    File::open("/dev/null").expect("every host has it").into()
}
