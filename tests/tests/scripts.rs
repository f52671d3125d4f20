//! `scripts/setup.sh`: what the demo compiles for, and what the tests say they skip.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder with programs that are shell scripts.
fn programs(list: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, script) in list {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

/// Bash with the functions of `setup.sh`, as strict as the scripts are.
fn bash(script: &str, environment: &[(&str, &Path)]) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -euo pipefail\n. scripts/setup.sh\n{script}")]);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).envs(environment.iter().copied());
    command.output().expect("bash")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_demo_takes_the_gpus_that_hipc_knows() {
    let hipc = r#"[ "$1 $2 $3" = "compile model.gguf --arch" ] || exit 9
case $4 in
gfx90c | gfx803) printf 'error: no target %s\n  known are many\n' "$4" >&2; exit 2 ;;
*) [ "$6" = -o ] && echo bundle >"$7" ;;
esac"#;
    let doctor = "printf 'gfx90c\\ngfx1100\\ngfx803\\ngfx1030\\ngfx1100\\n'";
    let folder = programs(&[("hipc", hipc), ("hipfire-run", doctor), ("none", "exit 3")]);
    let ask = |doctor: &str| {
        let at = folder.path().display();
        bash(&format!("echo \"<$(usable_archs {at}/hipc {at}/{doctor} model.gguf)>\""), &[("TMPDIR", folder.path())])
    };
    let run = ask("hipfire-run");
    let (out, err) = (text(&run.stdout), text(&run.stderr));
    assert_eq!((out, run.status.code()), ("<gfx1030,gfx1100>\n", Some(0)), "{err}");
    for arch in ["gfx90c", "gfx803"] {
        assert!(err.contains(&format!("can't compile for ({arch}): error: no target {arch}\n")), "{err}");
    }
    let run = ask("none");
    assert_eq!((text(&run.stdout), text(&run.stderr), run.status.code()), ("<>\n", "", Some(0)));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "something is left behind");
}

#[test]
fn what_tests_skip_is_said() {
    let clang = "case $1 in --version) echo clang version 19.1.7 ;; *) exit 1 ;; esac";
    let folder = programs(&[("clang", clang), ("mount", "exit 1")]);
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let clang = folder.path().join("clang");
    let nowhere = Path::new("/nowhere");
    let environment = [("HIPC_SHARED", nowhere), ("HIPC_HIPCC", nowhere), ("HIPC_CLANG", &clang), ("PATH", Path::new(&path))];
    let run = bash("say_skipped; echo $SKIPPED", &environment);
    let (out, err) = (text(&run.stdout), text(&run.stderr));
    assert_eq!(run.status.code(), Some(0), "{err}");
    for part in ["/nowhere/golden", "/nowhere/models", "AddressSanitizer", "22.1.8", "a full disk"] {
        assert!(err.contains(part), "no {part} in\n{err}");
    }
    let lines = err.lines().filter(|l| l.starts_with("==> skipped: ")).count();
    assert!(lines >= 5 && out == format!("{lines}\n"), "{out}{err}");
    // What is here isn't said to be skipped.
    fs::create_dir_all(folder.path().join("shared/golden")).unwrap();
    let shared = folder.path().join("shared");
    let run = bash("say_skipped", &[("HIPC_SHARED", &shared), ("HIPC_CLANG", &clang)]);
    let err = text(&run.stderr);
    assert!(err.contains("shared/models") && !err.contains("shared/golden"), "{err}");
}
