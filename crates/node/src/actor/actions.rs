//! Carries out what `cortex_core::node_runs` asks for, in its order.

use std::sync::Arc;

use bytes::Bytes;
use cortex_core::Code;
use cortex_core::Refusal;
use cortex_core::id::{Epoch, Generation, RunId};
use cortex_core::message::{Start, ToHub};
use cortex_core::node_runs::{Action, Signal};
use cortex_core::run::EndCause;
use cortex_core::sandbox::Walls;
use cortex_core::time::Timestamp;
use tokio::sync::watch;

use super::wires::{FileWork, RENEW_RETRY_MS, Wires};
use super::{Actor, Held, unstarted};
use crate::clock;
use crate::identity::Identity;
use crate::node::Attached;
use crate::run::input::Input;
use crate::run::protocol::Order;
use crate::run::spool::Spool;
use crate::run::worker::Worker;

impl<F: Fn(Attached) + Send> Actor<F> {
    /// Until nothing is asked, or until numbers must be on disk before anything else.
    pub(super) fn carry_out(&mut self, wires: &mut Wires) {
        while !wires.is_remembering() {
            let Some(action) = self.runs.poll_action() else { break };
            self.carry_out_one(action, wires);
        }
        if !wires.is_remembering() {
            self.carry_out_files();
        }
    }

    fn carry_out_one(&mut self, action: Action, wires: &mut Wires) {
        match action {
            Action::Send(message) => self.send(message),
            Action::Journal(record) => self.backlog.push_back(record),
            Action::Spawn { start, walls } => self.spawn(start, walls.map(|walls| *walls)),
            Action::Signal(run, Signal::Term) => self.order(run, Order::Term),
            Action::Signal(run, Signal::Kill) => {
                self.order(run, Order::Kill);
                // One whose output is given up may be read to its end.
                self.steer_reading(run);
            }
            Action::Input { run, data, eof } => self.input(run, &data, eof),
            Action::Trim(run, position) => {
                if let Some(held) = self.held.get(&run) {
                    held.spool.trim(position);
                }
                self.steer_reading(run);
            }
            Action::Drop(run) => {
                if let Some(held) = self.held.remove(&run) {
                    held.spool.remove();
                }
            }
            Action::Remember(generation, epoch) => self.remember(generation, epoch, wires),
            Action::PolicyChanged(signed) => {
                if let Some(policy) = &signed.policy {
                    let (revision, mode) = (policy.revision, policy.document.mode.as_str());
                    tracing::info!(%revision, mode, profile = policy.profile, "policy holds");
                }
                wires.write(FileWork::policy(&self.dir, signed));
                let walls = self.runs.walls();
                self.files.clerks.end_idle(Some(walls.as_ref()));
                // Whether they may go on is judged when the hub asks for them anew.
                self.files.machine.end_watches();
                self.prepare_rooms(walls);
            }
            Action::Certificate(chain) => wires.write(FileWork::certificate(&self.dir, chain)),
            Action::Close { refusal, retry_after_ms } => self.close(&refusal, retry_after_ms, wires),
        }
    }

    /// Gives the journal what it has room for.
    pub(super) fn hand_to_journal(&mut self, wires: &Wires) {
        while let Some(record) = self.backlog.pop_front() {
            if let Err(record) = wires.journal(record) {
                self.backlog.push_front(record);
                return;
            }
        }
    }

    pub(super) fn order(&self, run: RunId, order: Order) {
        let Some(held) = self.held.get(&run) else { return };
        // Kill is the last word.
        held.orders.send_modify(|held| {
            if *held != Some(Order::Kill) {
                *held = Some(order);
            }
        });
    }

    /// The hub's numbers are on disk: the link is in use from here.
    pub(super) fn handle_remembered(&mut self, result: Result<(), Refusal>, wires: &mut Wires) {
        if let Err(refusal) = result {
            tracing::error!(code = %refusal.code, "the link's numbers cannot be kept: {refusal}");
            self.lost(&refusal, None, wires);
            return;
        }
        if !self.runs.is_linked() {
            return;
        }
        self.backoff.reset();
        let (node, node_id, epoch) = (self.identity.name.clone(), self.identity.node, self.identity.epoch);
        tracing::info!(%node, %node_id, %epoch, "attached");
        (self.on_attached)(Attached { node, node_id, epoch, sandbox: self.sandbox.level().as_str() });
    }

    /// It is known when the certificate must be renewed.
    pub(super) fn handle_renewable(&mut self, result: Result<i64, Refusal>, now: Timestamp) {
        match result {
            Ok(at_ms) => {
                let wait_ms = u64::try_from(at_ms.saturating_sub(clock::wall().0)).unwrap_or(0);
                let asked = self.renewal_asked.map(|at| at.plus_ms(RENEW_RETRY_MS));
                self.renew_at = now.plus_ms(wait_ms).max(asked.unwrap_or_default());
            }
            Err(refusal) => {
                tracing::error!(code = %refusal.code, "the certificate cannot be kept: {refusal}")
            }
        }
    }

    /// The certificate request is made.
    pub(super) fn handle_request(&mut self, result: Result<Vec<u8>, Refusal>) {
        match result {
            Ok(csr) => self.send(ToHub::Renew { csr: csr.into() }),
            Err(refusal) => tracing::error!(code = %refusal.code, "no certificate request: {refusal}"),
        }
    }

    /// Lets go of the rooms of the policy before; live runs keep theirs. What the first run of the
    /// new one needs is there when it comes.
    fn prepare_rooms(&self, walls: Option<Walls>) {
        let (guards, sandbox) = (Arc::clone(&self.guards), Arc::clone(&self.sandbox));
        let node = self.runs.name().to_owned();
        drop(tokio::task::spawn_blocking(move || {
            let Some(walls) = walls else {
                guards.keep_only(None);
                guards.warm();
                return;
            };
            let room = sandbox.host.room(&walls, &node);
            if let Err(refusal) = &room {
                tracing::warn!(code = %refusal.code, "no run of this policy can start: {refusal}");
            }
            guards.keep_only(room.as_ref().ok());
        }));
    }

    fn spawn(&mut self, start: Start, walls: Option<Walls>) {
        let run = start.run;
        if self.stopping.is_some() {
            let why = "The command was not started: the node process is stopping.".to_owned();
            self.runs.ended(run, unstarted(EndCause::Cancelled, why));
            return;
        }
        let spool = Arc::new(Spool::new(self.spool_folder.join(run.to_string())));
        let (orders, orders_in) = watch::channel(None);
        let (may_read, may_read_in) = watch::channel(true);
        let input = Arc::new(Input::default());
        let worker = Worker {
            start,
            walls,
            sandbox: Arc::clone(&self.sandbox),
            node: self.runs.name().to_owned(),
            surroundings: Arc::clone(&self.surroundings),
            guards: Arc::clone(&self.guards),
            spool: Arc::clone(&spool),
            events: self.events.clone(),
            orders: orders_in,
            may_read: may_read_in,
            input: Arc::clone(&input),
        };
        self.alive.insert(run);
        self.held.insert(run, Held { spool, orders, may_read, input });
        tokio::spawn(worker.live());
    }

    fn input(&mut self, run: RunId, data: &Bytes, eof: bool) {
        let Some(held) = self.held.get(&run) else { return };
        if held.input.push(data, eof) {
            return;
        }
        // What was sent beyond the bound is lost, so the process must not go on without it.
        self.order(run, Order::Kill);
        let refusal =
            Refusal::new(Code::Quota, format!("Run {run} got more input than it reads; it is ended."));
        self.send(ToHub::Refused { run: Some(run), refusal });
    }

    fn remember(&mut self, generation: Generation, epoch: Epoch, wires: &mut Wires) {
        let name = self.runs.name().to_owned();
        let audit_head = self.runs.audit_head();
        self.identity = Identity { generation, epoch, name, audit_head, ..self.identity.clone() };
        wires.write(FileWork::remember(&self.dir, self.identity.clone()));
    }

    fn close(&mut self, refusal: &Refusal, retry_after_ms: Option<u64>, wires: &mut Wires) {
        self.lost(refusal, retry_after_ms, wires);
        if retry_after_ms.is_none() {
            self.begin_stop(Err(refusal.clone()), self.clock.now());
        }
    }
}
