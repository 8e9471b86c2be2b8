//! What the walls cost: the time of `true` from its start to its end, without walls, at level kernel
//! and at level full, in turn. Prints the layers first, then p50 and p90 of 200 runs each.

#![expect(clippy::print_stdout, reason = "its figures are for the one who runs it")]

use std::time::{Duration, Instant};

use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Level, Limits, Walls};
use cortex_node::NodeConfig;
use cortex_node::trial::Trial;

const RUNS: usize = 200;

fn main() {
    cortex_node::run_if_guard();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = |level_max| NodeConfig { level_max, ..NodeConfig::new(folder.path()) };
    let full = Trial::new(config(Level::Full)).await.expect("tried");
    let kernel = Trial::new(config(Level::Kernel)).await.expect("tried");
    for layer in full.layers() {
        println!("{:<14}{:<9}{}", layer.name, layer.state.as_str(), layer.note);
    }
    println!("level {}, without namespaces {}", full.level().as_str(), kernel.level().as_str());
    let limits = Limits { memory_bytes: Some(1 << 30), processes: Some(256), ..Limits::default() };
    let bounded = Walls { limits, ..Walls::default() };
    let plain = Walls::default();
    let cases = [
        ("permissive", &full, None),
        ("kernel", &kernel, Some(&plain)),
        ("full", &full, Some(&plain)),
        ("full, bounded", &full, Some(&bounded)),
    ];
    let mut times = vec![Vec::new(); cases.len()];
    // The first round makes the rooms.
    for round in 0..=RUNS {
        for ((_, trial, walls), times) in cases.iter().zip(&mut times) {
            let spec = RunSpec { argv: vec!["true".to_owned()], ..RunSpec::default() };
            let begun = Instant::now();
            let outcome = trial.run(*walls, spec).await;
            assert_eq!(outcome.ended.code, Some(0), "{outcome:?}");
            if round > 0 {
                times.push(begun.elapsed());
            }
        }
    }
    for ((name, ..), times) in cases.iter().zip(&mut times) {
        times.sort();
        println!("{name:<14} p50 {:>6.2} ms, p90 {:>6.2} ms", ms(times[RUNS / 2]), ms(times[RUNS * 9 / 10]));
    }
    full.finish().await;
    kernel.finish().await;
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
