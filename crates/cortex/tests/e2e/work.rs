//! Real work inside the walls, since a wall that breaks work gets switched off: builds, tests,
//! clones and scripts through a node with the profile `dev`, at both levels that STRICT takes, as
//! root's node and as an ordinary user's.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::users::{Home, as_each_user};
use crate::world::{Ended, World, hub};

/// A node that works.
struct Scene {
    world: World,
    work: PathBuf,
    level: &'static str,
}

impl Scene {
    fn new(home: &Home, level: &'static str) -> Self {
        let mut world = hub().start();
        home.open(&world.path(""));
        // It is not there: the node makes it for whoever runs are executed as.
        let work = world.path("work");
        let grpc = world.hub().grpc.clone();
        let attached = world.join_with(&grpc, "a", "dev", |command| {
            command.arg("--work").arg(&work).env("HOME", home.path()).env("PATH", home.search_path());
            command.env("CORTEX_NODE__LEVEL_MAX", level);
        });
        assert_eq!(attached["sandbox"], level, "this machine reaches another level");
        if level != "full" {
            let listed = "a layer is missing: Not tried: the node's configuration does not want it.";
            std::fs::write(world.path("expected-warnings"), listed).expect("written");
        }
        Self { world, work, level }
    }

    /// Runs a command in a folder below that for work.
    fn run(&self, folder: &str, argv: &[&str]) -> Ended {
        let cwd = self.work.join(folder).display().to_string();
        let arguments = [&["exec", "a", "--cwd", cwd.as_str(), "--"], argv].concat();
        let begun = Instant::now();
        let ended = self.world.cortex(&arguments);
        println!("{}: {argv:?} took {:?}", self.level, begun.elapsed());
        ended
    }

    /// The same, and it has to succeed; what it printed.
    fn good(&self, folder: &str, argv: &[&str]) -> String {
        let ended = self.run(folder, argv);
        assert_eq!(
            ended.code,
            Some(0),
            "{} {argv:?}\nstdout: {}\nstderr: {}",
            self.level,
            ended.text(),
            ended.stderr
        );
        ended.text()
    }

    fn allow(&self, program: &str) {
        self.world.cortex(&["policy", "allow", "a", program, "--yes"]).expect(0);
    }

    /// Puts files where runs work, by runs: they are their user's.
    fn put(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = self.work.join(name);
            let folder = path.parent().expect("a folder").display().to_string();
            self.good("", &["mkdir", "-p", &folder]);
            let path = path.display().to_string();
            let arguments = ["exec", "a", "-i", "--", "tee", &path];
            self.world.cortex_with_input(&arguments, text.as_bytes().to_vec()).expect(0);
        }
    }
}

/// Tells which of these the machine lacks, in the words of `cargo xtask test`.
fn has(program: &str) -> bool {
    let is_there =
        ["/usr/local/bin", "/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(program).is_file());
    if !is_there {
        println!("left out: {program} is not there");
    }
    is_there
}

/// One test at each level, as each user.
fn at_each_level(name: &str, body: impl Fn(&Scene, &Home)) {
    as_each_user(&format!("work::{name}"), |home| {
        for level in ["full", "kernel"] {
            body(&Scene::new(home, level), home);
        }
    });
}

const CRATE: &[(&str, &str)] = &[
    ("dep/Cargo.toml", "[package]\nname = \"dep\"\nversion = \"0.1.0\"\nedition = \"2021\"\n"),
    ("dep/src/lib.rs", "pub fn twice(n: u32) -> u32 { n * 2 }\n"),
    (
        "app/Cargo.toml",
        "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ndep = { path = \"../dep\" }\n[workspace]\n",
    ),
    (
        "app/build.rs",
        "fn main() {\n    let out = std::env::var(\"OUT_DIR\").unwrap();\n    std::fs::write(format!(\"{out}/made.rs\"), \"pub const MADE: u32 = 21;\").unwrap();\n    println!(\"cargo:rerun-if-changed=build.rs\");\n}\n",
    ),
    (
        "app/src/lib.rs",
        "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n/// ```\n/// assert_eq!(app::answer(), 42);\n/// ```\npub fn answer() -> u32 { dep::twice(MADE) }\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn it_is_known() {\n        assert_eq!(super::answer(), 42);\n        let file = std::env::temp_dir().join(\"of a test\");\n        std::fs::write(&file, \"x\").unwrap();\n        std::fs::remove_file(file).unwrap();\n    }\n}\n",
    ),
    ("app/src/main.rs", "fn main() { println!(\"{}\", app::answer()); }\n"),
];

#[test]
fn a_crate_with_a_build_script_and_a_dependency_is_built_tested_and_run() {
    at_each_level("a_crate_with_a_build_script_and_a_dependency_is_built_tested_and_run", |scene, home| {
        if let Some(reason) = home.no_toolchain() {
            println!("left out: cargo: {reason}");
            return;
        }
        scene.put(CRATE);
        scene.good("app", &["cargo", "build", "--offline"]);
        let told = scene.good("app", &["cargo", "test", "--offline"]);
        assert_eq!(told.matches("1 passed").count(), 2, "the unit test and the one of the page: {told}");
        assert_eq!(scene.good("app", &["cargo", "run", "--offline", "--quiet"]), "42\n");
        // What a run built is executed by another, which was let do so.
        let built = scene.work.join("app/target/debug/app").display().to_string();
        scene.run("", &[&built]).expect(5);
        scene.allow(&built);
        assert_eq!(scene.good("", &[&built]), "42\n");
        scene.good("", &["rm", "-r", "app/target"]);
    });
}

#[test]
fn a_repository_is_made_and_cloned_and_looked_at_from_elsewhere() {
    at_each_level("a_repository_is_made_and_cloned_and_looked_at_from_elsewhere", |scene, _| {
        if !has("git") {
            return;
        }
        scene.good("", &["git", "init", "--initial-branch", "main", "origin"]);
        for (name, value) in [("user.name", "somebody"), ("user.email", "some@body.invalid")] {
            scene.good("origin", &["git", "config", name, value]);
        }
        scene.put(&[("origin/text", "a line\n"), ("origin/in/deep", "another\n")]);
        scene.good("origin", &["git", "add", "."]);
        scene.good("origin", &["git", "commit", "--message", "the first"]);
        scene.good("", &["git", "clone", "origin", "copy"]);
        let url = format!("file://{}", scene.work.join("origin").display());
        scene.good("", &["git", "clone", "--depth", "1", &url, "shallow"]);
        for copy in ["copy", "shallow"] {
            let folder = scene.work.join(copy).display().to_string();
            let told = scene.good("", &["git", "-C", &folder, "log", "--format=%s by %an"]);
            assert_eq!(told, "the first by somebody\n");
            assert_eq!(scene.good(copy, &["cat", "in/deep"]), "another\n");
        }
        scene.good("origin", &["git", "commit", "--allow-empty", "--message", "the second"]);
        scene.good("copy", &["git", "pull", "--ff-only"]);
        assert_eq!(scene.good("copy", &["git", "rev-list", "--count", "HEAD"]), "2\n");
        scene.good("copy", &["git", "gc"]);
        scene.good("copy", &["git", "fsck", "--full"]);
    });
}

/// Each of two targets waits for the other, in a make below the one that has the job server.
const MAKEFILE: &str = "all:\n\t+$(MAKE) --no-print-directory both\nboth: left right\nleft right:\n\ttouch $@.begun\n\tn=0; until test -e left.begun -a -e right.begun; do n=$$((n+1)); test $$n -lt 200 || exit 1; sleep 0.05; done\n\tcc -o $@ main.c && ./$@\n";

#[test]
fn make_runs_targets_side_by_side_and_a_shell_script_does_as_it_says() {
    at_each_level("make_runs_targets_side_by_side_and_a_shell_script_does_as_it_says", |scene, _| {
        if has("make") {
            scene.put(&[
                ("made/Makefile", MAKEFILE),
                ("made/main.c", "#include <stdio.h>\nint main(void) { puts(\"made\"); return 0; }\n"),
            ]);
            let told = scene.good("made", &["make", "-j2"]);
            assert_eq!(told.lines().filter(|line| *line == "made").count(), 2, "{told}");
        }
        let script = "#!/bin/sh\nset -eu\nfile=$(mktemp)\ntrap 'rm -f \"$file\"' EXIT\nprintf '%s\\n' c a b | sort > \"$file\"\nwhile read -r line; do echo \"<$line>\"; done < \"$file\"\n(sleep 0.1; echo later) & wait\ncat <<END\n$0 $1\nEND\ntest -w \"$HOME\" && echo home\n";
        scene.put(&[("script.sh", script)]);
        scene.run("", &["sh", "script.sh", "x"]).expect(5);
        scene.allow("sh");
        let told = scene.good("", &["sh", "script.sh", "x"]);
        assert_eq!(told, "<a>\n<b>\n<c>\nlater\nscript.sh x\nhome\n");
        // By itself it is a program like any other: what is granted is that file.
        scene.allow("chmod");
        scene.good("", &["chmod", "755", "script.sh"]);
        let script = scene.work.join("script.sh").display().to_string();
        scene.run("", &[&script, "x"]).expect(5);
        scene.allow(&script);
        assert_eq!(scene.good("", &[&script, "x"]).lines().count(), 6);
    });
}

const PYTHON: &str = "
import hashlib, json, os, socket, sqlite3, ssl, subprocess, sys, tempfile, threading
from concurrent.futures import ThreadPoolExecutor
assert subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True, check=True).stdout == b'42\\n'
assert subprocess.check_output('echo a | tr a b', shell=True) == b'b\\n'
assert ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED
with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
with tempfile.TemporaryDirectory() as folder:
    base = sqlite3.connect(os.path.join(folder, 'base'))
    base.execute('create table t (n)')
    base.execute('insert into t values (1)')
    base.commit()
here, there = socket.socketpair()
here.send(b'x')
assert there.recv(1) == b'x'
print('plain')
";

const POOL: &str = "
import multiprocessing, sys
def square(n, into=None):
    return n * n if into is None else into.put(n * n)
if __name__ == '__main__':
    for method in ['fork', 'spawn']:
        kind = multiprocessing.get_context(method)
        with kind.Pool(2) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
        queue = kind.Queue()
        child = kind.Process(target=square, args=(7, queue))
        child.start()
        assert queue.get(timeout=20) == 49
        child.join()
        print(method)
";

#[test]
fn python_starts_processes_and_pools_and_has_its_modules() {
    at_each_level("python_starts_processes_and_pools_and_has_its_modules", |scene, _| {
        if !has("python3") {
            return;
        }
        scene.run("", &["python3", "-c", "print(1)"]).expect(5);
        scene.allow("python3");
        assert_eq!(scene.good("", &["python3", "-c", PYTHON]), "plain\n");
        scene.put(&[("pool.py", POOL)]);
        if scene.level == "full" {
            assert_eq!(scene.good("", &["python3", "pool.py"]), "fork\nspawn\n");
        } else {
            // docs/sandbox.md says so: locks by name need /dev/shm, which is the machine's own there.
            let ended = scene.run("", &["python3", "pool.py"]);
            assert_ne!(ended.code, Some(0));
            assert!(ended.stderr.contains("PermissionError"), "{}", ended.stderr);
        }
    });
}

const NODE: &str = "
const { execFileSync, spawn } = require('child_process');
const { Worker } = require('worker_threads');
const fs = require('fs'), os = require('os'), path = require('path');
if (execFileSync('echo', ['a']).toString() !== 'a\\n') process.exit(2);
if (execFileSync(process.execPath, ['-p', '6 * 7']).toString() !== '42\\n') process.exit(3);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'x'));
fs.writeFileSync(path.join(folder, 'f'), 'x');
fs.rmSync(folder, { recursive: true });
if (!(os.cpus().length > 0)) process.exit(4);
const worker = new Worker('require(\"worker_threads\").parentPort.postMessage(42)', { eval: true });
worker.on('message', (n) => spawn('cat', { stdio: ['pipe', 'inherit', 'inherit'] }).stdin.end('worker ' + n + '\\n'));
";

#[test]
fn node_starts_processes_and_threads_and_npm_answers() {
    at_each_level("node_starts_processes_and_threads_and_npm_answers", |scene, _| {
        if !has("node") {
            return;
        }
        scene.allow("node");
        assert_eq!(scene.good("", &["node", "-e", NODE]), "worker 42\n");
        if has("npm") {
            let version = scene.good("", &["npm", "--version"]);
            assert!(version.split('.').count() == 3, "{version}");
            scene.put(&[(
                "pack/package.json",
                "{\"name\":\"pack\",\"version\":\"1.0.0\",\"scripts\":{\"say\":\"node -p 6*7\"}}",
            )]);
            let told = scene.good("pack", &["npm", "run", "--silent", "say"]);
            assert_eq!(told, "42\n");
        }
    });
}

#[test]
fn output_input_variables_time_and_cancel_are_as_outside() {
    const BYTES: usize = 64 * 1024 * 1024;
    at_each_level("output_input_variables_time_and_cancel_are_as_outside", |scene, _| {
        scene.allow("sh");
        let begun = Instant::now();
        let line =
            format!("head -c {BYTES} /dev/zero | tr '\\0' x > big; cat big | tee copy | wc -c; cmp big copy");
        assert_eq!(scene.good("", &["sh", "-c", &line]).trim(), BYTES.to_string());
        let big = scene.work.join("big").display().to_string();
        // Beside the search for secrets, which takes its time on so much.
        let came = scene.world.command(&["exec", "a", "--", "cat", &big]).output().expect("it ends");
        assert_eq!(came.status.code(), Some(0));
        assert!(came.stdout.len() == BYTES && came.stdout.iter().all(|byte| *byte == b'x'));
        scene.good("", &["rm", "big", "copy"]);
        println!("{}: 64 MiB through pipes twice in {:?}", scene.level, begun.elapsed());
        let input: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let back = scene.world.cortex_with_input(&["exec", "a", "-i", "--", "cat"], input.clone()).expect(0);
        assert!(back.stdout == input, "{} of {} bytes", back.stdout.len(), input.len());
        let arguments = ["exec", "a", "--env", "LANG=C.UTF-8", "--", "sh", "-c", "echo $LANG; cd; pwd"];
        let told = scene.world.cortex(&arguments).expect(0).text();
        assert_eq!(told, format!("C.UTF-8\n{}\n", scene.work.join(".home").display()));
        let begun = Instant::now();
        let late = "sleep 60 & sleep 60; wait";
        scene.world.cortex(&["exec", "a", "--timeout", "500ms", "--", "sh", "-c", late]).expect(124);
        let arguments =
            ["exec", "a", "--detach", "--json", "--", "sh", "-c", "trap '' TERM; sleep 60 & wait"];
        let accepted = scene.world.cortex(&arguments).expect(0).value();
        let run = accepted["run_id"].as_str().expect("an id").to_owned();
        scene.world.run_reaches(&run, "running", Duration::from_secs(10));
        scene.world.cortex(&["run", "cancel", &run, "--grace", "1ms"]).expect(0);
        let view = scene.world.run_reaches(&run, "cancelled", Duration::from_secs(10));
        assert_eq!(view["signal"], 9, "{view}");
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody waited for what sleeps");
    });
}
