//! The image of `make image`: its content and its use.

use std::path::Path;

use super::client::{Client, docker, docker_ok, lossy};
use super::engine::{Container, Image, skip, unique_name};
use super::host;
use super::scratch::Scratch;

/// Builds an image from `context`.
pub(crate) fn build(context: &Path, words: &[&str]) -> Image {
    let image = Image::adopt(unique_name());
    // The build fetches nothing. The classic builder works without a network.
    let client = Client::new(&["docker"], &[("DOCKER_BUILDKIT", "0")]);
    let fixed = ["build", "--network=none", "--tag", image.name()];
    client.ok(&[&fixed, words, &[context.to_str().unwrap()]].concat());
    image
}

/// The image of `make image`.
pub(crate) fn keepalive_image() -> Image {
    let binary = std::fs::read(host::keepalive()).unwrap();
    let dockerfile = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/scratch.Dockerfile");
    let import = std::fs::read(env!("CARGO_BIN_EXE_keepalive-tools")).unwrap();
    build(Scratch::with(&[("keepalive", &binary), ("keepalive-tools", &import)]).path(), &["--file", dockerfile])
}

/// The file system of a container of `image`. It is created and not run, so that no program is needed.
fn files_of(image: &Image) -> Vec<String> {
    let container = Container::adopt(&Client::default(), unique_name());
    docker_ok(&["create", "--name", container.name(), image.name(), "none"]);
    let archive = docker(&["export", container.name()]).stdout;
    // The name is at the start of each header; contents are skipped by their size, tar(5).
    let mut names = Vec::new();
    let mut rest = archive.as_slice();
    while let Some(header) = rest.get(..512).filter(|header| header[0] != 0) {
        let field = |from: usize, to: usize| lossy(&header[from..to]).trim_matches(['\0', ' ']).to_owned();
        names.push(field(0, 100));
        let size = usize::from_str_radix(&field(124, 136), 8).unwrap();
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    names
}

#[test]
fn the_image_contains_only_the_binaries_and_can_be_copied_from() {
    if !docker(&["version"]).status.success() {
        return skip("no Docker Engine answers");
    }
    let image = keepalive_image();

    // Docker itself adds empty files and directories as mount points.
    let docker_adds = |name: &String| {
        name == ".dockerenv" || ["dev/", "etc/", "proc/", "sys/"].iter().any(|top| name.starts_with(top))
    };
    let own: Vec<String> = files_of(&image).into_iter().filter(|name| !docker_adds(name)).collect();
    assert_eq!(own, ["sbin/", "sbin/keepalive", "sbin/keepalive-tools"]);

    let copying = format!("FROM scratch\nCOPY --from={} /sbin/keepalive /init\nENTRYPOINT [\"/init\"]\n", image.name());
    let copy = build(Scratch::with(&[("Dockerfile", copying.as_bytes())]).path(), &[]);
    // The image has no other program, so no command is found. The code 127 shows that keepalive has searched for it.
    let output = docker(&["run", "--rm", "--network=none", copy.name(), "--", "nosuchprogram"]);
    assert_eq!(output.status.code(), Some(127), "{}", lossy(&output.stderr));
    assert!(lossy(&output.stderr).contains("nosuchprogram"), "{}", lossy(&output.stderr));
}
