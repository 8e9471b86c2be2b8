//! Syncthing: two instances with keys and configuration of their own, that know each other and
//! nobody else. From the package `syncthing`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::peers::{duplicate, remove};
use super::place::{Far, Ground};
use super::{Job, Way};
use crate::cpu::Meter;

/// Of both instances' interfaces.
const KEY: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(300);

/// The peer.
pub(crate) struct Syncthing {
    far: Rc<Far>,
    room: PathBuf,
    meter: Meter,
    running: Option<Running>,
}

struct Running {
    near: Child,
    far: Child,
    near_api: Api,
    far_api: Api,
    far_id: String,
}

/// Where an instance answers.
#[derive(Clone)]
struct Api(String);

impl Api {
    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(&self.0)?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.contains(" 200 "), "Syncthing {path}: {head}");
        if body.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(body)?) }
    }

    /// Whether the folder is at rest with so many files, and needs none.
    fn complete(&self, files: usize) -> Result<bool> {
        let status = self.ask("GET", "/rest/db/status?folder=tree", "")?;
        let count = |key: &str| status[key].as_u64();
        let files = Some(files as u64);
        Ok(status["state"] == "idle"
            && count("localFiles") == files
            && count("globalFiles") == files
            && count("needTotalItems") == Some(0))
    }
}

impl Syncthing {
    pub(crate) fn new(far: &Rc<Far>, ground: &Ground) -> Self {
        let room = ground.path().join("syncthing");
        Self { far: Rc::clone(far), room, meter: Meter::new(), running: None }
    }

    fn running(&self) -> Result<&Running> {
        self.running.as_ref().context("Syncthing is not running")
    }

    /// Makes the instance `name`'s keys; its identity.
    fn identity(&self, name: &str) -> Result<String> {
        let home = self.room.join(name);
        let output = Command::new("syncthing")
            .args(["generate", "--no-default-folder", "--skip-port-probing", "--home"])
            .arg(&home)
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "syncthing generate: {}", String::from_utf8_lossy(&output.stderr));
        let output = Command::new("syncthing").arg("--device-id").arg("--home").arg(&home).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Starts both; the folder of the near one stands still when `held`.
    fn start(&mut self, source: &Path, held: bool) -> Result<()> {
        let (near_id, far_id) = (self.identity("near")?, self.identity("far")?);
        let [near_port, far_port, near_api, far_api] = free_ports()?;
        let near_api = format!("127.0.0.1:{near_api}");
        let far_api = format!("{}:{far_api}", self.far.address);
        let devices = format!(
            "<device id=\"{near_id}\" name=\"near\"><address>tcp://{}:{near_port}</address></device>\
             <device id=\"{far_id}\" name=\"far\"><address>tcp://{}:{far_port}</address></device>",
            self.far.near(),
            self.far.address
        );
        let folder = |path: &Path, kind: &str, paused: bool| {
            format!(
                "<folder id=\"tree\" path=\"{}\" type=\"{kind}\" rescanIntervalS=\"0\" fsWatcherEnabled=\"false\">\
                 <paused>{paused}</paused><device id=\"{near_id}\"/><device id=\"{far_id}\"/></folder>",
                path.display()
            )
        };
        let near_folder = folder(source, "sendonly", held);
        let far_folder = folder(&self.room.join("copy"), "receiveonly", false);
        let near = config(&near_folder, &devices, &format!("{}:{near_port}", self.far.near()), &near_api);
        let far = config(&far_folder, &devices, &format!("{}:{far_port}", self.far.address), &far_api);
        std::fs::write(self.room.join("near/config.xml"), near)?;
        std::fs::write(self.room.join("far/config.xml"), far)?;
        let program = Path::new("syncthing");
        let near = serve(self.meter.command(program), &self.room.join("near"))?;
        let far = serve(self.far.command(&self.meter, program), &self.room.join("far"))?;
        for process in [&near, &far] {
            self.meter.add(process.id());
        }
        let (near_api, far_api) = (Api(near_api), Api(far_api));
        self.running =
            Some(Running { near, far, near_api: near_api.clone(), far_api, far_id: far_id.clone() });
        until(|| {
            let answer = near_api.ask("GET", "/rest/system/connections", "");
            Ok(answer.is_ok_and(|answer| answer["connections"][&far_id]["connected"] == true))
        })
        .context("Syncthing's two ends did not connect")
    }

    /// Waits until the far end has everything and the near end has been told so. What the far end
    /// knows of is enough for a first copy only, what the near end was told only for later ones.
    fn settled(&self, files: usize) -> Result<()> {
        let running = self.running()?;
        let path = format!("/rest/db/completion?folder=tree&device={}", running.far_id);
        until(|| {
            if !running.near_api.complete(files)? {
                return Ok(false);
            }
            let answer = running.near_api.ask("GET", &path, "")?;
            let told =
                ["needBytes", "needItems", "needDeletes"].iter().all(|need| answer[need].as_u64() == Some(0));
            Ok(told && running.far_api.complete(files)?)
        })
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        for process in [&mut running.near, &mut running.far] {
            // The program has a second one that does the work, which ends with it when asked.
            kill(Pid::from_raw(i32::try_from(process.id())?), Signal::SIGTERM)?;
            process.wait()?;
        }
        Ok(())
    }
}

impl Way for Syncthing {
    fn name(&self) -> &str {
        "syncthing"
    }

    fn updates(&self) -> bool {
        true
    }

    fn ready(&mut self, job: &Job<'_>) -> Result<()> {
        let copy = self.room.join("copy");
        std::fs::create_dir_all(&copy)?;
        // Its marker, without which it takes a folder for one that is not mounted.
        for folder in [job.source, &copy] {
            std::fs::create_dir_all(folder.join(".stfolder"))?;
        }
        if job.kept {
            duplicate(job.source, &copy)?;
        }
        self.start(job.source, !job.kept)?;
        if job.kept { self.settled(job.files) } else { Ok(()) }
    }

    fn go(&mut self, job: &Job<'_>) -> Result<()> {
        if job.kept {
            self.running()?.near_api.ask("POST", "/rest/db/scan?folder=tree", "")?;
        } else {
            let body = "{\"paused\":false}";
            self.running()?.near_api.ask("PATCH", "/rest/config/folders/tree", body)?;
        }
        self.settled(job.files)
    }

    fn copy(&self) -> Result<PathBuf> {
        Ok(self.room.join("copy"))
    }

    fn cpu(&self) -> Result<f64> {
        self.meter.seconds_with_clients()
    }

    fn clear(&mut self, job: &Job<'_>) -> Result<()> {
        self.stop()?;
        remove(&job.source.join(".stfolder"))?;
        remove(&self.room)
    }
}

impl Drop for Syncthing {
    fn drop(&mut self) {
        // What could not be ended so ends with the namespace.
        drop(self.stop());
    }
}

fn serve(mut command: Command, home: &Path) -> Result<Child> {
    command.args(["serve", "--no-browser", "--no-restart", "--no-upgrade", "--home"]).arg(home);
    let log = std::fs::File::create(home.join("log"))?;
    Ok(command.env("HOME", home).stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn()?)
}

fn config(folder: &str, devices: &str, listen: &str, api: &str) -> String {
    format!(
        "<configuration version=\"36\">{folder}{devices}\
         <gui enabled=\"true\" tls=\"false\"><address>{api}</address><apikey>{KEY}</apikey></gui>\
         <options><listenAddress>tcp://{listen}</listenAddress>\
         <globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled>\
         <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><urAccepted>-1</urAccepted>\
         <startBrowser>false</startBrowser><autoUpgradeIntervalH>0</autoUpgradeIntervalH>\
         <crashReportingEnabled>false</crashReportingEnabled><reconnectionIntervalS>1</reconnectionIntervalS>\
         <setLowPriority>false</setLowPriority></options></configuration>"
    )
}

/// Four different ports that are free at the near end.
fn free_ports() -> Result<[u16; 4]> {
    let listeners: Vec<TcpListener> =
        (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let ports: Vec<u16> = listeners.iter().map(|one| Ok(one.local_addr()?.port())).collect::<Result<_>>()?;
    ports.try_into().map_err(|_| anyhow::anyhow!("no free ports"))
}

fn until(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if done()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("not within {} s", PATIENCE.as_secs())
}
