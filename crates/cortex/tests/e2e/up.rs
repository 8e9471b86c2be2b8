//! `cortex up`: everything on one machine, twice over.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::world::{Process, program, shell};

#[test]
fn up_runs_a_first_command_through_the_hub_and_can_be_started_again() {
    let home = tempfile::tempdir().expect("a folder");
    for round in 0..2 {
        let mut command = program(home.path());
        command.args(["up", "--json", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
        let up = Process::start(&mut command, &home.path().join("up.log"));
        let ready = up.first_line();
        assert_eq!(
            (&ready["up"], &ready["first"]["exit"]),
            (&true.into(), &0.into()),
            "round {round}: {ready}"
        );
        assert!(ready["first"]["stdout"].as_str().is_some_and(|text| text.starts_with("Linux ")), "{ready}");
        // Neither address nor token is given: both are found in the default data directory.
        let mut exec = program(home.path());
        let output = exec.args(["exec", "local", "--", "uname"]).output().expect("run a command");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "Linux\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        up.stop();
    }
}

#[test]
fn the_next_step_that_up_prints_works_when_it_is_pasted() {
    let home = tempfile::tempdir().expect("a folder");
    let elsewhere = home.path().join("a folder's data").display().to_string();
    for extra in [&[][..], &["--data-dir", &elsewhere]] {
        let mut command = program(home.path());
        command.args(["up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]).args(extra);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut up = command.spawn().expect("start it");
        let lines = BufReader::new(up.stdout.take().expect("its output")).lines().map_while(Result::ok);
        let next = lines.skip_while(|line| !line.starts_with("Next,")).nth(1).expect("a next step");
        assert!(extra.len() == 2 || next == "  cortex exec local -- id", "{next}");
        let done = shell(home.path(), &next).output().expect("paste it");
        assert!(done.stdout.starts_with(b"uid="), "{next}: {}", String::from_utf8_lossy(&done.stderr));
        terminated(&mut up);
    }
}

#[test]
fn a_second_hub_on_one_data_directory_is_refused_with_the_address_of_the_first() {
    let home = tempfile::tempdir().expect("a folder");
    let up = || {
        let mut command = program(home.path());
        command.args(["up", "--json", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
        command
    };
    let first = Process::start(&mut up(), &home.path().join("up.log"));
    let address = first.first_line()["http"].as_str().expect("an address").to_owned();
    let second = up().output().expect("run it");
    let shown = String::from_utf8_lossy(&second.stdout).into_owned();
    assert_eq!(second.status.code(), Some(8), "{shown}");
    assert!(shown.contains(&address) && shown.contains("cortex status"), "{shown}");
    first.stop();
}

fn terminated(up: &mut std::process::Child) {
    let pid = nix::unistd::Pid::from_raw(up.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    assert!(up.wait().is_ok(), "it ends");
}
