//! The files in `scripts/docker`, `scripts/kubernetes` and `scripts/systemd`: whether they are what their readers
//! (Docker, Kubernetes, systemd) take, as far as that can be said without them.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use fasts3::cli::Cli;
use serde_json::Value;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// The documents of a YAML file, by a parser of python's; `None` where there is no such parser, but in CI.
fn documents(file: &str) -> Option<Vec<Value>> {
    let program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let parsed = Command::new("python3").args(["-c", program]).arg(scripts().join(file)).output();
    match parsed {
        Ok(parsed) if parsed.status.success() => Some(serde_json::from_slice(&parsed.stdout).unwrap()),
        failed => {
            let why = failed.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
            let is_missing = why.is_empty() || why.contains("No module named 'yaml'");
            assert!(is_missing && std::env::var("CI").as_deref() != Ok("true"), "{file}: {why}");
            None
        }
    }
}

/// Whether the program takes this command line.
fn is_understood(words: &[&str]) {
    let line = ["fasts3"].iter().chain(words);
    Cli::command().try_get_matches_from(line).unwrap_or_else(|e| panic!("{words:?}: {e}"));
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn compose_file_mounts_what_the_server_publishes_into_a_container_without_privilege() {
    let Some(compose) = documents("docker/compose.yaml") else { return };
    let compose = &compose[0];
    let options = compose.pointer("/volumes/bucket/driver_opts").unwrap();
    assert_eq!((&options["type"], &options["device"]), (&"nfs".into(), &":/".into()));
    let o: Vec<_> = options["o"].as_str().unwrap().split(',').collect();
    for word in ["addr=127.0.0.1", "port=2049", "mountport=2049", "nfsvers=3", "nolock"] {
        assert!(o.contains(&word), "{word} not in {o:?}");
    }
    assert!(!o.contains(&"_netdev"), "mount(2) does not know it");
    assert_eq!(words(&compose["services"]["fasts3"]["ports"]), ["127.0.0.1:2049:2049"]);
    let allow = compose.pointer("/services/fasts3/environment/FASTS3_ALLOW").unwrap().as_str().unwrap();
    is_understood(&["serve", "s3://bucket", "--cache", "x", "--listen", "0.0.0.0:2049", "--allow", allow]);
    let web = &compose["services"]["web"];
    assert_eq!(web["volumes"][0]["source"], "bucket");
    for service in ["fasts3", "web"] {
        let service = &compose["services"][service];
        assert_eq!(words(&service["cap_drop"]), ["ALL"]);
        for forbidden in ["privileged", "devices", "cap_add"] {
            assert!(service.get(forbidden).is_none(), "{forbidden}");
        }
    }
}

#[test]
fn image_runs_as_a_user_and_what_it_copies_is_there() {
    let file = std::fs::read_to_string(scripts().join("docker/Dockerfile")).unwrap();
    let run_stage = file.rsplit("FROM ").next().unwrap();
    assert!(run_stage.contains("\nUSER 10001:10001\n"));
    let ignore = std::fs::read_to_string(scripts().join("docker/Dockerfile.dockerignore")).unwrap();
    let build_stage = &file[..file.len() - run_stage.len()];
    let copied = build_stage.lines().filter_map(|line| line.strip_prefix("COPY "));
    for name in copied.flat_map(|line| line.split(' ').rev().skip(1)) {
        assert!(scripts().join("..").join(name).exists(), "{name}");
        assert!(ignore.lines().any(|line| line.strip_prefix('!') == Some(name)), "{name} is ignored");
    }
}

#[test]
fn kubernetes_volume_is_the_servers_service() {
    let Some(all) = documents("kubernetes/volume.yaml") else { return };
    let of_kind =
        |kind: &str| all.iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let (volume, claim, pod) = (of_kind("PersistentVolume"), of_kind("PersistentVolumeClaim"), of_kind("Pod"));
    assert_eq!(volume["spec"]["nfs"]["server"], of_kind("Service")["spec"]["clusterIP"]);
    assert!(words(&volume["spec"]["mountOptions"]).contains(&"mountport=2049"));
    assert_eq!(claim["spec"]["volumeName"], volume["metadata"]["name"]);
    assert_eq!(pod.pointer("/spec/volumes/0/persistentVolumeClaim/claimName"), claim.pointer("/metadata/name"));
    let server = of_kind("StatefulSet").pointer("/spec/template/spec/containers/0").unwrap();
    let allow = server.pointer("/env/0/value").unwrap().as_str().unwrap();
    is_understood(&[&words(&server["args"])[..], &["--cache", "x", "--allow", allow]].concat());
    assert!(server.pointer("/securityContext/privileged").is_none());
}

#[test]
fn kubernetes_sidecar_starts_first_and_ends_last() {
    let Some(all) = documents("kubernetes/sidecar.yaml") else { return };
    let sidecar = all[0].pointer("/spec/initContainers/0").unwrap();
    assert_eq!(sidecar["restartPolicy"], "Always");
    is_understood(&[&words(&sidecar["args"])[..], &["--cache", "x"]].concat());
    is_understood(&[&words(sidecar.pointer("/startupProbe/exec/command").unwrap())[1..], &["--cache", "x"]].concat());
}

#[test]
fn systemd_units_say_what_the_program_takes() {
    let unit = |name: &str| std::fs::read_to_string(scripts().join("systemd").join(name)).unwrap();
    let value = |unit: &str, key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    let service = unit("fasts3@.service");
    assert_eq!(value(&service, "Type"), "notify");
    let start =
        value(&service, "ExecStart").replace("${FASTS3_BUCKET}", "s3://media").replace("${MOUNTPOINT}", "/srv/media");
    is_understood(&start.split(' ').skip(1).collect::<Vec<_>>());
    let mount = unit("srv-media.mount");
    assert_eq!((value(&mount, "Where"), value(&mount, "Type")), ("/srv/media".into(), "fasts3".into()));
    assert_eq!(value(&unit("srv-media.automount"), "Where"), value(&mount, "Where"));
}
