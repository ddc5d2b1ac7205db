//! `cargo xtask sbom`: what the static binary is made of, as CycloneDX.
//!
//! Belongs here: the list of crates that end up in the binary, or that made it. Must hold: one commit
//! gives one text, so no time and no random number is in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Value, json};

use crate::task::{self, Failure, Tried, cargo, workspace};

/// The version of CycloneDX that is written.
const SPEC_VERSION: &str = "1.6";

/// Writes `gofer.cdx.json` into the target folder.
pub(crate) fn run() -> Result<(), Failure> {
    let lock = workspace().join("Cargo.lock");
    let lock = fs::read_to_string(lock).tried("cannot read Cargo.lock")?;
    let bom = bom(&metadata()?, &checksums(&lock))?;
    let path = task::target().join("gofer.cdx.json");
    let text = format!("{bom:#}\n");
    fs::write(&path, text).tried(format_args!("cannot write {}", path.display()))?;
    let count = bom["components"].as_array().map_or(0, Vec::len);
    println!("{}: {count} components", path.display());
    Ok(())
}

fn metadata() -> Result<Value, Failure> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = cargo(&["metadata", "--format-version=1", "--locked"])
        .args(["--filter-platform", &platform])
        .output()
        .tried("cannot start cargo metadata")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure(format!("cargo metadata: {why}")));
    }
    serde_json::from_slice(&output.stdout).tried("cannot read what cargo metadata says")
}

/// Name and version of each package of the lock file that has a checksum, and that.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |package: &str, name: &str| {
        let start = format!("{name} = \"");
        let line = package.lines().find_map(|line| line.strip_prefix(&start));
        line.and_then(|rest| rest.strip_suffix('"'))
            .map(str::to_owned)
    };
    let packages = lock.split("[[package]]").filter_map(|package| {
        let key = (field(package, "name")?, field(package, "version")?);
        Some((key, field(package, "checksum")?))
    });
    packages.collect()
}

fn bom(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Result<Value, Failure> {
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"])
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"]["nodes"])
        .map(|node| (text(&node["id"]), node))
        .collect();
    let gofer = packages
        .iter()
        .find(|(_, package)| package["name"] == "gofer");
    let (gofer, package) = gofer.ok_or_else(|| Failure("the workspace has no gofer".into()))?;
    let mut reached = BTreeSet::from([*gofer]);
    let mut pending = vec![*gofer];
    let mut dependencies = Vec::new();
    while let Some(id) = pending.pop() {
        let mut below: Vec<&str> = nodes.get(id).map_or(Vec::new(), |node| ordinary(node));
        below.sort_unstable();
        pending.extend(below.iter().filter(|id| reached.insert(**id)));
        let refs: Vec<String> = below.iter().map(|id| reference(packages[id])).collect();
        dependencies.push(json!({ "ref": reference(packages[id]), "dependsOn": refs }));
    }
    dependencies.sort_by_key(|entry| text(&entry["ref"]).to_owned());
    let component = |id: &&str| component(packages[*id], checksums);
    let mut components: Vec<Value> = reached
        .iter()
        .filter(|id| *id != gofer)
        .map(component)
        .collect();
    components.sort_by_key(|component| text(&component["bom-ref"]).to_owned());
    let mut top = self::component(package, checksums);
    top["type"] = "application".into();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": { "component": top },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// What the crate is linked with, or expanded by: not what only its tests or its build use.
fn ordinary(node: &Value) -> Vec<&str> {
    let used =
        |dependency: &&Value| list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
    let found = list(&node["deps"]).filter(used);
    found.map(|dependency| text(&dependency["pkg"])).collect()
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(package),
        "name": name,
        "version": version,
        "purl": reference(package),
        // A macro runs in the compiler; nothing of it is in the binary but what it wrote.
        "scope": if is_macro(package) { "excluded" } else { "required" },
    });
    if let Some(licence) = package["license"].as_str() {
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

fn is_macro(package: &Value) -> bool {
    let mut kinds = list(&package["targets"]).flat_map(|target| list(&target["kind"]));
    kinds.any(|kind| kind == "proc-macro")
}

fn reference(package: &Value) -> String {
    format!(
        "pkg:cargo/{}@{}",
        text(&package["name"]),
        text(&package["version"])
    )
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn the_list_names_what_the_binary_is_linked_with_and_nothing_of_the_tests() {
        let lock = fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
        let metadata = metadata().unwrap();
        let bom = bom(&metadata, &checksums(&lock)).unwrap();
        let find = |name: &str| list(&bom["components"]).find(|c| c["name"] == name);
        let rustix = find("rustix").expect("rustix is linked");
        assert_eq!(rustix["scope"], "required");
        assert_eq!(rustix["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert_eq!(find("thiserror-impl").unwrap()["scope"], "excluded");
        assert!(find("server").is_some(), "our own crates too");
        for test_only in ["rig", "tempfile", "proptest"] {
            assert!(find(test_only).is_none(), "{test_only} is for tests");
        }
        let again = super::bom(&metadata, &checksums(&lock)).unwrap();
        assert_eq!(bom.to_string(), again.to_string());
    }
}
