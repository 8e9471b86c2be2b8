//! Protobuf ⇄ core. Parsing is fallible and happens here, once; making is not.
//!
//! What this build does not know (a message of a newer peer) becomes `Ok(None)` and is ignored;
//! what it knows and cannot be read is a refusal `invalid_argument`, and the link is closed.

use bytes::Bytes;
use cortex_core::id::{
    Attempt, ConsentId, Epoch, Generation, NodeId, OpId, Revision, RunId, Seq, TaskId, TransferId,
};
use cortex_core::limits;
use cortex_core::message::{Envelope, Frame, Hello, RunReport, SignedPolicy, Start, ToHub, ToNode, Welcome};
use cortex_core::node::{AuditHead, Facts};
use cortex_core::run::{EndCause, Ended, RunSpec};
use cortex_core::sandbox::{Layer, LayerState, Level, Place};
use cortex_core::stream::{Positions, Stream};
use cortex_core::{Code, Refusal};

pub mod files;
pub mod transfer;
pub mod watch;

use crate::mesh;
use crate::mesh::attach_request::Message as Up;
use crate::mesh::attach_response::Message as Down;

/// A message of a node, for the wire.
pub fn to_hub_into_proto(envelope: Envelope<ToHub>) -> mesh::AttachRequest {
    let message = match envelope.message {
        ToHub::Hello(hello) => Up::Hello(hello_into(*hello)),
        ToHub::Heartbeat { seq } => Up::Heartbeat(mesh::Heartbeat { seq }),
        ToHub::Started { run, level } => {
            Up::RunStarted(mesh::RunStarted { run_id: run_into(run), sandbox: level.as_str().to_owned() })
        }
        ToHub::Output(frame) => Up::RunOutput(mesh::RunOutput {
            run_id: run_into(frame.run),
            stream: stream_into(frame.stream).into(),
            position: frame.position,
            offset: frame.offset,
            data: frame.data,
        }),
        ToHub::Ended { run, ended } => {
            Up::RunEnded(mesh::RunEnded { run_id: run_into(run), ended: Some(ended_into(ended)) })
        }
        ToHub::OutputLost { run, first_kept } => Up::OutputLost(mesh::OutputLost {
            run_id: run_into(run),
            first_kept: Some(positions_into(first_kept)),
        }),
        ToHub::InputTaken { run, upto } => Up::InputTaken(mesh::InputTaken { run_id: run_into(run), upto }),
        ToHub::Refused { run, refusal } => Up::Refused(mesh::Refused {
            run_id: run.map(run_into).unwrap_or_default(),
            refusal: Some(refusal_into(&refusal)),
        }),
        ToHub::Renew { csr } => Up::Renew(mesh::Renew { csr_der: csr }),
        ToHub::FileAnswered { op, answer } => Up::FileAnswer(files::answer_into(op, answer)),
        ToHub::TransferNews(news) => Up::TransferNews(transfer::news_into(news)),
        ToHub::WatchNews(news) => Up::WatchNews(watch::news_into(news)),
    };
    mesh::AttachRequest { epoch: envelope.epoch.0, message: Some(message) }
}

/// A message of a node, from the wire; `None` when this build does not know it.
pub fn to_hub_from_proto(request: mesh::AttachRequest) -> Result<Option<Envelope<ToHub>>, Refusal> {
    let epoch = Epoch(request.epoch);
    let Some(message) = request.message else { return Ok(None) };
    let message = match message {
        Up::Hello(hello) => ToHub::Hello(Box::new(hello_from(hello, epoch)?)),
        Up::Heartbeat(heartbeat) => ToHub::Heartbeat { seq: heartbeat.seq },
        Up::RunStarted(started) => {
            ToHub::Started { run: run_from(&started.run_id)?, level: level_from(&started.sandbox) }
        }
        Up::RunOutput(output) => ToHub::Output(frame_from(output)?),
        Up::RunEnded(ended) => ToHub::Ended {
            run: run_from(&ended.run_id)?,
            ended: ended_from(ended.ended.ok_or_else(|| missing("run_ended.ended"))?)?,
        },
        Up::OutputLost(lost) => ToHub::OutputLost {
            run: run_from(&lost.run_id)?,
            first_kept: positions_from(lost.first_kept.unwrap_or_default())?,
        },
        Up::InputTaken(taken) => ToHub::InputTaken { run: run_from(&taken.run_id)?, upto: taken.upto },
        Up::Refused(refused) => ToHub::Refused {
            run: if refused.run_id.is_empty() { None } else { Some(run_from(&refused.run_id)?) },
            refusal: refusal_from(refused.refusal.unwrap_or_default()),
        },
        Up::Renew(renew) => ToHub::Renew { csr: renew.csr_der },
        Up::FileAnswer(answer) => {
            let (op, answer) = files::answer_from(answer)?;
            ToHub::FileAnswered { op, answer }
        }
        Up::TransferNews(news) => ToHub::TransferNews(transfer::news_from(news)?),
        Up::WatchNews(news) => ToHub::WatchNews(watch::news_from(&news)?),
    };
    Ok(Some(Envelope { epoch, message }))
}

/// A message of the hub, for the wire.
pub fn to_node_into_proto(envelope: Envelope<ToNode>) -> mesh::AttachResponse {
    let message = match envelope.message {
        ToNode::Welcome(welcome) => Down::Welcome(mesh::Welcome {
            generation: welcome.generation.0,
            name: welcome.name,
            policy: Some(policy_into(welcome.policy)),
            audit_head: welcome.audit_head.map(head_into),
        }),
        ToNode::HeartbeatAck { seq } => Down::HeartbeatAck(mesh::HeartbeatAck { seq }),
        ToNode::Start(start) => Down::RunStart(start_into(start)),
        ToNode::Input { run, offset, data, eof } => {
            Down::RunInput(mesh::RunInput { run_id: run_into(run), offset, data, eof })
        }
        ToNode::Cancel { run, grace_ms } => {
            Down::RunCancel(mesh::RunCancel { run_id: run_into(run), grace_ms, cut: false })
        }
        ToNode::Cut { run } => {
            Down::RunCancel(mesh::RunCancel { run_id: run_into(run), grace_ms: 0, cut: true })
        }
        ToNode::Resume { run, from, granted } => {
            Down::RunResume(mesh::RunResume { run_id: run_into(run), from, granted })
        }
        ToNode::Credit { run, granted, durable } => {
            Down::RunCredit(mesh::RunCredit { run_id: run_into(run), granted, durable })
        }
        ToNode::Settled { run } => Down::RunSettled(mesh::RunSettled { run_id: run_into(run) }),
        ToNode::Forget { run } => Down::RunForget(mesh::RunForget { run_id: run_into(run) }),
        ToNode::Policy(policy) => Down::Policy(policy_into(policy)),
        ToNode::Certificate { chain } => Down::Certificate(mesh::Certificate { chain_der: chain }),
        ToNode::FileAsk(ask) => Down::FileAsk(files::ask_into(*ask)),
        ToNode::FileCancel { op } => Down::FileCancel(mesh::FileCancel { op_id: files::op_into(op) }),
        ToNode::FileSettled { op } => Down::FileSettled(mesh::FileSettled { op_id: files::op_into(op) }),
        ToNode::AttemptFence { task, attempt } => Down::AttemptFence(mesh::AttemptFence {
            task_id: Bytes::copy_from_slice(task.as_bytes()),
            attempt: attempt.0,
        }),
        ToNode::TransferAsk(ask) => Down::TransferAsk(transfer::ask_into(*ask)),
        ToNode::TransferCancel { id } => {
            Down::TransferCancel(mesh::TransferCancel { transfer_id: transfer::id_into(id) })
        }
        ToNode::Watch(ask) => Down::Watch(watch::ask_into(*ask)),
        ToNode::Unwatch { id } => Down::Unwatch(mesh::Unwatch { watch_id: watch::id_into(id) }),
        ToNode::Goodbye { refusal, retry_after_ms } => {
            Down::Goodbye(mesh::Goodbye { refusal: Some(refusal_into(&refusal)), retry_after_ms })
        }
    };
    mesh::AttachResponse { epoch: envelope.epoch.0, message: Some(message) }
}

/// A message of the hub, from the wire; `None` when this build does not know it.
pub fn to_node_from_proto(response: mesh::AttachResponse) -> Result<Option<Envelope<ToNode>>, Refusal> {
    let Some(message) = response.message else { return Ok(None) };
    let message = match message {
        Down::Welcome(welcome) => ToNode::Welcome(Welcome {
            generation: Generation(welcome.generation),
            name: welcome.name,
            policy: policy_from(welcome.policy.ok_or_else(|| missing("welcome.policy"))?),
            audit_head: welcome.audit_head.map(head_from).transpose()?,
        }),
        Down::HeartbeatAck(ack) => ToNode::HeartbeatAck { seq: ack.seq },
        Down::RunStart(start) => ToNode::Start(start_from(start)?),
        Down::RunInput(input) => ToNode::Input {
            run: run_from(&input.run_id)?,
            offset: input.offset,
            data: input.data,
            eof: input.eof,
        },
        Down::RunCancel(cancel) if cancel.cut => ToNode::Cut { run: run_from(&cancel.run_id)? },
        Down::RunCancel(cancel) => {
            ToNode::Cancel { run: run_from(&cancel.run_id)?, grace_ms: cancel.grace_ms }
        }
        Down::RunResume(resume) => {
            ToNode::Resume { run: run_from(&resume.run_id)?, from: resume.from, granted: resume.granted }
        }
        Down::RunCredit(credit) => ToNode::Credit {
            run: run_from(&credit.run_id)?,
            granted: credit.granted,
            durable: credit.durable,
        },
        Down::RunSettled(settled) => ToNode::Settled { run: run_from(&settled.run_id)? },
        Down::RunForget(forget) => ToNode::Forget { run: run_from(&forget.run_id)? },
        Down::Policy(policy) => ToNode::Policy(policy_from(policy)),
        Down::Certificate(certificate) => ToNode::Certificate { chain: certificate.chain_der },
        Down::FileAsk(ask) => ToNode::FileAsk(Box::new(files::ask_from(ask)?)),
        Down::FileCancel(cancel) => ToNode::FileCancel { op: files::op_id_from(&cancel.op_id)? },
        Down::FileSettled(settled) => ToNode::FileSettled { op: files::op_id_from(&settled.op_id)? },
        Down::AttemptFence(fence) => {
            let (task, attempt) =
                task_from(&fence.task_id, fence.attempt)?.ok_or_else(|| missing("attempt_fence.task_id"))?;
            ToNode::AttemptFence { task, attempt }
        }
        Down::TransferAsk(ask) => ToNode::TransferAsk(Box::new(transfer::ask_from(ask)?)),
        Down::TransferCancel(cancel) => {
            ToNode::TransferCancel { id: transfer::id_from(&cancel.transfer_id)? }
        }
        Down::Watch(ask) => ToNode::Watch(Box::new(watch::ask_from(ask)?)),
        Down::Unwatch(unwatch) => ToNode::Unwatch { id: watch::id_from(&unwatch.watch_id)? },
        Down::Goodbye(goodbye) => ToNode::Goodbye {
            refusal: refusal_from(goodbye.refusal.unwrap_or_default()),
            retry_after_ms: goodbye.retry_after_ms,
        },
    };
    Ok(Some(Envelope { epoch: Epoch(response.epoch), message }))
}

/// The operation on files that a message of the hub asks for, whether or not the rest of it can be read:
/// whoever waits for it is told then.
pub fn asked_op(response: &mesh::AttachResponse) -> Option<OpId> {
    let Some(Down::FileAsk(ask)) = &response.message else { return None };
    files::op_id_from(&ask.op_id).ok()
}

/// The transfer that a message of the hub asks for, as [`asked_op`].
pub fn asked_transfer(response: &mesh::AttachResponse) -> Option<TransferId> {
    let Some(Down::TransferAsk(ask)) = &response.message else { return None };
    transfer::id_from(&ask.transfer_id).ok()
}

/// A node's id, from the wire.
pub fn node_from(bytes: &[u8]) -> Result<NodeId, Refusal> {
    NodeId::from_slice(bytes).ok_or_else(|| missing("node_id (16 bytes)"))
}

fn run_into(run: RunId) -> Bytes {
    Bytes::copy_from_slice(run.as_bytes())
}

fn run_from(bytes: &[u8]) -> Result<RunId, Refusal> {
    RunId::from_slice(bytes).ok_or_else(|| missing("run_id (16 bytes)"))
}

fn missing(field: &str) -> Refusal {
    Refusal::new(
        Code::InvalidArgument,
        format!("A message lacks `{field}` or holds a value that cannot be read."),
    )
}

fn hello_into(hello: Hello) -> mesh::Hello {
    mesh::Hello {
        protocol: hello.protocol,
        instance: hello.instance,
        dial: hello.dial,
        generation: hello.generation.0,
        facts: Some(facts_into(hello.facts)),
        ceiling: hello.ceiling,
        audit_head: hello.audit_head.map(head_into),
        runs: hello.runs.into_iter().map(report_into).collect(),
        files: hello.files.into_iter().map(files::report_into).collect(),
    }
}

fn hello_from(hello: mesh::Hello, epoch: Epoch) -> Result<Hello, Refusal> {
    let facts = hello.facts.unwrap_or_default();
    if hello.ceiling.as_ref().is_some_and(|ceiling| ceiling.len() > limits::POLICY_BYTES_MAX) {
        return Err(missing("hello.ceiling (at most 48 KiB)"));
    }
    Ok(Hello {
        protocol: hello.protocol,
        instance: hello.instance,
        dial: hello.dial,
        generation: Generation(hello.generation),
        epoch,
        facts: facts_from(facts),
        ceiling: hello.ceiling,
        audit_head: hello.audit_head.map(head_from).transpose()?,
        runs: hello.runs.into_iter().map(report_from).collect::<Result<_, _>>()?,
        files: files::reports_from(hello.files)?,
    })
}

fn facts_into(facts: Facts) -> mesh::Facts {
    let Facts { os, arch, hostname, version, sandbox, cpus, memory_bytes, tools, layers, place, slots } =
        facts;
    let Place { home, work } = place;
    let layers = layers.into_iter().map(layer_into).collect();
    mesh::Facts { os, arch, hostname, version, sandbox, cpus, memory_bytes, tools, layers, home, work, slots }
}

/// A node may say what it likes of itself, but not without bounds, and nothing that hides in a
/// terminal or a page (ABUSE 93).
fn facts_from(facts: mesh::Facts) -> Facts {
    let clean = |text: String| cortex_core::name::printable(&text, limits::LABEL_BYTES_MAX);
    let path = |text: &String| cortex_core::path::normal(text).ok();
    Facts {
        os: clean(facts.os),
        arch: clean(facts.arch),
        hostname: clean(facts.hostname),
        version: clean(facts.version),
        sandbox: clean(facts.sandbox),
        cpus: facts.cpus,
        memory_bytes: facts.memory_bytes,
        tools: facts.tools.into_iter().take(limits::LABELS_MAX).map(clean).collect(),
        layers: facts.layers.into_iter().take(limits::LAYERS_MAX).map(layer_from).collect(),
        place: Place {
            home: path(&facts.home).unwrap_or_default(),
            work: facts.work.iter().take(limits::POLICY_ROOTS_MAX).filter_map(path).collect(),
        },
        slots: facts.slots.min(limits::SLOTS_MAX),
    }
}

fn layer_into(layer: Layer) -> mesh::Layer {
    mesh::Layer { name: layer.name, state: layer.state.as_str().to_owned(), note: layer.note }
}

fn layer_from(layer: mesh::Layer) -> Layer {
    let clean = |text: &str| cortex_core::name::printable(text, limits::LAYER_NOTE_BYTES_MAX);
    let state = LayerState::parse_or_missing(&layer.state);
    Layer { name: clean(&layer.name), state, note: clean(&layer.note) }
}

/// A level that this build does not know is none: nothing is claimed for it.
fn level_from(text: &str) -> Level {
    Level::parse(text).unwrap_or(Level::None)
}

fn head_into(head: AuditHead) -> mesh::AuditHead {
    mesh::AuditHead { seq: head.seq.0, hash: Bytes::copy_from_slice(&head.hash) }
}

fn head_from(head: mesh::AuditHead) -> Result<AuditHead, Refusal> {
    let hash = head.hash.as_ref().try_into().map_err(|_| missing("audit_head.hash (32 bytes)"))?;
    Ok(AuditHead { seq: Seq(head.seq), hash })
}

fn report_into(report: RunReport) -> mesh::RunReport {
    mesh::RunReport {
        run_id: run_into(report.run),
        started: report.started.is_some(),
        sandbox: report.started.map(|level| level.as_str().to_owned()).unwrap_or_default(),
        ended: report.ended.map(ended_into),
        kept_from: report.kept_from,
        end: report.end,
    }
}

fn report_from(report: mesh::RunReport) -> Result<RunReport, Refusal> {
    Ok(RunReport {
        run: run_from(&report.run_id)?,
        started: report.started.then(|| level_from(&report.sandbox)),
        ended: report.ended.map(ended_from).transpose()?,
        kept_from: report.kept_from,
        end: report.end,
    })
}

const fn stream_into(stream: Stream) -> mesh::OutputStream {
    match stream {
        Stream::Stdout => mesh::OutputStream::Stdout,
        Stream::Stderr => mesh::OutputStream::Stderr,
    }
}

fn frame_from(output: mesh::RunOutput) -> Result<Frame, Refusal> {
    let stream = match mesh::OutputStream::try_from(output.stream) {
        Ok(mesh::OutputStream::Stdout) => Stream::Stdout,
        Ok(mesh::OutputStream::Stderr) => Stream::Stderr,
        Ok(mesh::OutputStream::Unspecified) | Err(_) => return Err(missing("run_output.stream")),
    };
    if output.data.is_empty() || output.data.len() > limits::FRAME_BYTES_MAX {
        return Err(missing("run_output.data (1 to 65,536 bytes)"));
    }
    Ok(Frame {
        run: run_from(&output.run_id)?,
        stream,
        position: output.position,
        offset: output.offset,
        data: output.data,
    })
}

const fn positions_into(positions: Positions) -> mesh::Positions {
    mesh::Positions { stdout: positions.stdout, stderr: positions.stderr }
}

fn positions_from(positions: mesh::Positions) -> Result<Positions, Refusal> {
    if positions.stdout.checked_add(positions.stderr).is_none() {
        return Err(missing("positions"));
    }
    Ok(Positions { stdout: positions.stdout, stderr: positions.stderr })
}

fn ended_into(ended: Ended) -> mesh::Ended {
    let cause = match ended.cause {
        EndCause::Exited => mesh::EndCause::Exited,
        EndCause::Failed => mesh::EndCause::Failed,
        EndCause::Cancelled => mesh::EndCause::Cancelled,
        EndCause::TimedOut => mesh::EndCause::TimedOut,
        EndCause::Denied => mesh::EndCause::Denied,
        EndCause::UnknownOutcome => mesh::EndCause::UnknownOutcome,
    };
    mesh::Ended {
        cause: cause.into(),
        code: ended.code,
        signal: ended.signal,
        duration_ms: ended.duration_ms,
        output: Some(positions_into(ended.output)),
        diagnostic: ended.diagnostic,
    }
}

/// A cause that this build does not know is an unknown outcome, which is what it is here.
fn ended_from(ended: mesh::Ended) -> Result<Ended, Refusal> {
    let cause = match mesh::EndCause::try_from(ended.cause) {
        Ok(mesh::EndCause::Exited) => EndCause::Exited,
        Ok(mesh::EndCause::Failed) => EndCause::Failed,
        Ok(mesh::EndCause::Cancelled) => EndCause::Cancelled,
        Ok(mesh::EndCause::TimedOut) => EndCause::TimedOut,
        Ok(mesh::EndCause::Denied) => EndCause::Denied,
        Ok(mesh::EndCause::UnknownOutcome | mesh::EndCause::Unspecified) | Err(_) => EndCause::UnknownOutcome,
    };
    Ok(Ended {
        cause,
        code: ended.code,
        signal: ended.signal,
        duration_ms: ended.duration_ms,
        output: positions_from(ended.output.unwrap_or_default())?,
        diagnostic: ended.diagnostic.map(|text| cortex_core::name::printable(&text, 2_000)),
    })
}

fn start_into(start: Start) -> mesh::RunStart {
    let (task, attempt) = start.task.unzip();
    mesh::RunStart {
        run_id: run_into(start.run),
        argv: start.spec.argv,
        cwd: start.spec.cwd,
        env: start.spec.env.into_iter().map(|(name, value)| mesh::EnvVar { name, value }).collect(),
        timeout_ms: start.spec.timeout_ms,
        stdin: start.spec.stdin,
        caller: start.caller,
        policy_revision: start.policy_revision.0,
        traceparent: start.traceparent,
        consent_id: start.consent.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default(),
        task_id: task.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default(),
        attempt: attempt.unwrap_or_default().0,
    }
}

fn start_from(start: mesh::RunStart) -> Result<Start, Refusal> {
    let spec = RunSpec {
        argv: start.argv,
        cwd: start.cwd,
        env: start.env.into_iter().map(|var| (var.name, var.value)).collect(),
        timeout_ms: start.timeout_ms,
        stdin: start.stdin,
    };
    Ok(Start {
        run: run_from(&start.run_id)?,
        spec,
        caller: start.caller,
        policy_revision: Revision(start.policy_revision),
        traceparent: start.traceparent,
        consent: consent_from(&start.consent_id)?,
        task: task_from(&start.task_id, start.attempt)?,
    })
}

fn task_from(bytes: &[u8], attempt: u64) -> Result<Option<(TaskId, Attempt)>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let id = TaskId::from_slice(bytes).ok_or_else(|| missing("task_id (16 bytes)"))?;
    Ok(Some((id, Attempt(attempt))))
}

fn consent_from(bytes: &[u8]) -> Result<Option<ConsentId>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    ConsentId::from_slice(bytes).map(Some).ok_or_else(|| missing("consent_id (16 bytes)"))
}

fn policy_into(signed: SignedPolicy) -> mesh::Policy {
    mesh::Policy { document: signed.document, signature: signed.signature }
}

/// What the bytes say is not read here: nobody has verified them.
fn policy_from(policy: mesh::Policy) -> SignedPolicy {
    SignedPolicy { policy: None, document: policy.document, signature: policy.signature }
}

fn refusal_into(refusal: &Refusal) -> mesh::Refusal {
    mesh::Refusal {
        code: refusal.code.as_str().to_owned(),
        message: refusal.message.clone(),
        hint: refusal.hint.clone(),
        details: refusal.details.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    }
}

/// The details stay behind: their names are a closed list on each side.
fn refusal_from(refusal: mesh::Refusal) -> Refusal {
    let code = Code::parse(&refusal.code).unwrap_or(Code::Internal);
    Refusal::new(code, cortex_core::name::printable(&refusal.message, 2_000))
        .hint(cortex_core::name::printable(&refusal.hint, 2_000))
}

#[cfg(test)]
mod tests;
