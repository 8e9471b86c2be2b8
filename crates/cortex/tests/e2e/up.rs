//! `cortex up`: everything on one machine, twice over.

use crate::world::{Process, program};

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
        let mut exec = program(home.path());
        exec.env("CORTEX_HUB", ready["http"].as_str().expect("an address"));
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
