//! One file per measurement.

pub(crate) mod broadcast;
pub(crate) mod content;
pub(crate) mod exec;
pub(crate) mod fanout;
pub(crate) mod heartbeats;
pub(crate) mod idle;
pub(crate) mod pool;
pub(crate) mod pool_nodes;
pub(crate) mod push_load;
pub(crate) mod real;
pub(crate) mod reconnect;
pub(crate) mod resume;
pub(crate) mod stall;
pub(crate) mod stdout;
pub(crate) mod sync;

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::cpu;
use crate::report::Samples;

/// Wall and CPU milliseconds of one way to do a thing.
#[derive(Default)]
pub(crate) struct Cost {
    pub(crate) wall_ms: Samples,
    pub(crate) cpu_ms: Samples,
}

impl Cost {
    /// Runs client commands at once to their ends, and adds their wall time.
    pub(crate) fn take(&mut self, commands: Vec<Command>) -> Result<()> {
        let begun = Instant::now();
        let children: Vec<_> = commands
            .into_iter()
            .map(|mut command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn())
            .collect::<Result<_, _>>()?;
        for mut child in children {
            let status = child.wait()?;
            ensure!(status.success(), "a measured command failed: {status}");
        }
        self.wall_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }
}

/// CPU milliseconds of what a meter counts and of client commands while `work` goes on.
pub(crate) struct CpuSpan<'m> {
    meter: &'m cpu::Meter,
    before: f64,
}

impl<'m> CpuSpan<'m> {
    pub(crate) fn begin(meter: &'m cpu::Meter) -> Result<Self> {
        Ok(Self { meter, before: meter.seconds()? + cpu::of_children()? })
    }

    pub(crate) fn end_ms(self) -> Result<f64> {
        Ok((self.meter.seconds()? + cpu::of_children()? - self.before) * 1e3)
    }
}

/// Durable writes of the hub so far.
pub(crate) async fn store_writes(hub: &crate::hub::Hub) -> Result<u64> {
    let stats = crate::api::Api::connect(hub).await?.get("/api/v1/stats").await?;
    Ok(stats["store_writes"].as_u64().unwrap_or(0))
}
