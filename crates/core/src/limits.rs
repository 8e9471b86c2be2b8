//! Every bound of the system in one place, asserted against each other at compile time.
//! Names end in the unit and the kind of bound.

// --- link -----------------------------------------------------------------------------------

/// Version of `cortex.mesh.v1` that this build speaks.
pub const PROTOCOL: u32 = 4;
/// Oldest version that this build accepts. A node of version 1 checks no signature under its policy; one
/// of version 2 ignores operations on files, so it is asked for none ([`PROTOCOL_FILES`]).
pub const PROTOCOL_MIN: u32 = 2;
/// First version whose nodes do operations on files.
pub const PROTOCOL_FILES: u32 = 3;
/// First version whose nodes watch folders; those of others are looked at from time to time.
pub const PROTOCOL_WATCH: u32 = 4;
/// A connection that has not said Hello by then is closed (ABUSE 16).
pub const HELLO_MS_MAX: u64 = 10_000;
/// A TLS handshake that has not ended by then is dropped.
pub const TLS_HANDSHAKE_MS_MAX: u64 = 10_000;
/// Time between two heartbeats of a node.
pub const HEARTBEAT_MS: u64 = 3_000;
/// Silence after which either end takes the other for dead (RELIABILITY R4: at most 10 s).
pub const SILENCE_MS_MAX: u64 = 9_000;
/// How long a node may be away before its runs are settled as lost (MISSION 12.3).
pub const GRACE_MS: u64 = 10_000;
/// The same after a hub restart, when every node is away at once.
pub const RESTART_GRACE_MS: u64 = 30_000;
/// First wait before a node dials again; jittered.
pub const BACKOFF_MS_MIN: u64 = 100;
/// Longest wait before a node dials again; jittered.
pub const BACKOFF_MS_MAX: u64 = 5_000;
/// How long the hub waits for the store while a node attaches or joins (MISSION 12.4).
pub const ATTACH_STORE_MS_MAX: u64 = 5_000;
/// Handshakes, attaches and joins that may be under way at once; more are refused with
/// `rate_limited` and a time to come back.
pub const ATTACHES_AT_ONCE_MAX: usize = 512;
/// Take-overs of one identity by different processes within [`TAKEOVER_WINDOW_MS`] that
/// quarantine it (ABUSE 13).
pub const TAKEOVERS_MAX: usize = 3;
/// See [`TAKEOVERS_MAX`].
pub const TAKEOVER_WINDOW_MS: u64 = 60_000;

// --- frames ---------------------------------------------------------------------------------

/// Largest message that either end decodes (ABUSE 17, 18).
pub const MESSAGE_BYTES_MAX: usize = 5 * 1024 * 1024;
/// Largest frame on the control stream that a sender makes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Frames of one link that wait for the network in each direction, beyond HTTP/2's own window.
pub const LINK_QUEUE_FRAMES_MAX: usize = 8;
/// Entries of the control lane of an outbox. Full means that the peer does not read: the link
/// is closed.
pub const OUTBOX_CONTROL_MAX: usize = 4_096;
/// Entries of the interactive lane. Full is answered with `quota`.
pub const OUTBOX_INTERACTIVE_MAX: usize = 1_024;
/// Entries of the bulk lane. Full is back-pressure: the sender waits.
pub const OUTBOX_BULK_MAX: usize = 64;

// --- runs -----------------------------------------------------------------------------------

/// Output of one run that a node may send beyond what the hub has taken in, at first.
pub const CREDIT_BYTES_START: u64 = 256 * 1024;
/// The same once the run has shown that it produces much.
pub const CREDIT_BYTES_MAX: u64 = 1024 * 1024;
/// Output of one run that a node keeps while the hub has not made it durable. Full is
/// back-pressure: the node stops reading the pipe and the process waits; nothing is lost.
pub const SPOOL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Part of the spool that is kept in memory before it goes to disk.
pub const SPOOL_MEMORY_BYTES_MAX: u64 = 256 * 1024;
/// Runs that may be open on one node; more are refused with `quota`.
pub const RUNS_OPEN_PER_NODE_MAX: usize = 256;
/// Arguments of a command.
pub const ARGV_MAX: usize = 4_096;
/// Bytes of all arguments together. A command that joins more is `too_large` (ABUSE 31 names
/// `too_complex` for shell text, which is never parsed here).
pub const ARGV_BYTES_MAX: usize = 128 * 1024;
/// Environment variables of a command.
pub const ENV_MAX: usize = 256;
/// Bytes of all environment variables together.
pub const ENV_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a working directory, and of the path of a file.
pub const PATH_BYTES_MAX: usize = 4_096;
/// Parts of the path of a file: a folder lies in at most so many others.
pub const PATH_PARTS_MAX: usize = 512;
/// Bytes of one name in the path of a file: what Linux takes.
pub const NAME_PART_BYTES_MAX: usize = 255;
/// Bytes of a caller's idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// Bytes of standard input on their way that the process has not read.
pub const INPUT_BYTES_MAX: u64 = 256 * 1024;
/// Time between TERM and KILL when a run is ended.
pub const KILL_GRACE_MS: u64 = 5_000;
/// Longest such time that a caller may ask for.
pub const KILL_GRACE_MS_MAX: u64 = 60_000;
/// Longest `timeout` of a run: thirty days.
pub const RUN_TIMEOUT_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// How long run output may wait in the hub's memory before it is written (DESIGN §4).
pub const OUTPUT_FLUSH_MS: u64 = 500;
/// Output that waits in the hub's memory per run before it is written.
pub const OUTPUT_FLUSH_BYTES: usize = 256 * 1024;
/// Output of one run that the hub keeps: 16 GiB. What comes beyond is taken from the node and not
/// kept; one mark says so.
pub const RUN_OUTPUT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Free space of the hub's disk that is the store's alone, unless a twentieth of the disk is less.
/// Below it output is not taken in: nodes hold it back, and the store can still commit.
pub const DISK_RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// Settled command ids that a node remembers, so that a repeated one is not run again.
pub const JOURNAL_SETTLED_MAX: usize = 100_000;
/// Nodes of one exec.
pub const NODES_PER_EXEC_MAX: usize = 10_000;
/// How long an ended run and its output are kept: thirty days from its end. With it goes its
/// idempotency key.
pub const RUNS_KEPT_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Time that a hub must have lived before it removes runs for their age: a clock that is wrong when
/// a machine starts is mostly set right by then.
pub const RUNS_AGE_AFTER_MS: u64 = 3_600 * 1_000;
/// Ended runs kept; beyond it those that ended first go before their time. Each costs a row and,
/// with output, a file, so this also bounds the files of a hub whose commands are short. It holds
/// the last hundred commands on [`NODES_PER_EXEC_MAX`] nodes.
pub const RUNS_KEPT_MAX: u64 = 1_000_000;

// --- work pool ------------------------------------------------------------------------------

/// Waiting time in which a task gains one level of priority (POOL rule 5).
pub const AGEING_MS: u64 = 60_000;
/// Length of a lease when the task does not say.
pub const LEASE_MS: u64 = 5 * 60 * 1_000;
/// Shortest lease: two heartbeats of a node fit in it with time to spare.
pub const LEASE_MS_MIN: u64 = 10_000;
/// Longest lease: a day. A lease is for liveness; whoever works longer extends it.
pub const LEASE_MS_MAX: u64 = 24 * 3_600 * 1_000;
/// Attempts of a task when it does not say.
pub const ATTEMPTS_DEFAULT: u32 = 3;
/// Most attempts that a task may ask for.
pub const ATTEMPTS_MAX: u32 = 100;
/// Wait after the first failed attempt when the task does not say; it doubles.
pub const RETRY_MS: u64 = 5_000;
/// Longest wait between two attempts that a task may ask for: a day.
pub const RETRY_MS_MAX: u64 = 24 * 3_600 * 1_000;
/// Bytes of a payload for external workers.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the result that is kept of one attempt.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a sentence about a failure.
pub const TASK_TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of a worker's word on how far it is.
pub const PROGRESS_NOTE_BYTES_MAX: usize = 256;
/// Shortest time between two events on the progress of one task: a thousand workers that report all
/// the time leave most of the log to what else happens. What is kept of a task is always the newest.
pub const PROGRESS_EVENT_MS: u64 = 5_000;
/// Tasks that one task may wait for.
pub const TASK_AFTER_MAX: usize = 64;
/// Bytes of a concurrency key.
pub const CONCURRENCY_KEY_BYTES_MAX: usize = 128;
/// Most tasks of one concurrency key at once.
pub const CONCURRENCY_MAX: u32 = 10_000;
/// Tasks that one request submits.
pub const SUBMIT_TASKS_MAX: usize = 1_000;
/// Tasks that one claim takes.
pub const CLAIM_TASKS_MAX: usize = 256;
/// Longest time that a claim waits for a task.
pub const CLAIM_WAIT_MS_MAX: u64 = 50_000;
/// Open tasks of one party when the hub's configuration does not say; more are refused with `quota`.
pub const TASKS_OPEN_PER_OWNER_MAX: u64 = 2_000_000;
/// Open tasks of one hub.
pub const TASKS_OPEN_MAX: u64 = 5_000_000;
/// Tasks that submissions of one party have on their way to the store at once; more wait for those
/// before them, at most [`STORE_MS_MAX`], and are refused with `rate_limited` then. Others find no
/// more of them before their own.
pub const SUBMITTING_TASKS_MAX: usize = 2_000;
/// Different combinations of owner, kind, labels and priority among open tasks: each is looked at
/// in a claim. More are refused with `quota`.
pub const LANES_MAX: usize = 4_096;
/// Tasks that one claim passes over because their concurrency key is full or their node must not
/// have them; the next claim goes on from there.
pub const CLAIM_PASSED_MAX: usize = 1_024;
/// Nodes that are kept from one task because their policy denied it; with one more it is dead.
pub const EXCLUDED_NODES_MAX: usize = 16;
/// Steps of one task's timeline that are kept; the newest ones beyond go untold.
pub const STEPS_MAX: u32 = 1_000;
/// Reports of ended attempts that are kept of one task as evidence.
pub const EVIDENCE_MAX: usize = 8;
/// Tasks that a node works on at once at most.
pub const SLOTS_MAX: u32 = 256;
/// Bytes of a schedule's times, and of its zone.
pub const CRON_BYTES_MAX: usize = 256;
/// A tick that is looked at later than that was missed: the schedule says what becomes of it.
pub const TICK_LATE_MS: u64 = 60_000;
/// Parts of the pool that stand still at once.
pub const PAUSES_MAX: usize = 1_000;
/// Schedules of one hub.
pub const SCHEDULES_MAX: usize = 10_000;
/// How long an ended task is kept.
pub const TASKS_KEPT_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Ended tasks kept; beyond it those that ended first go before their time.
pub const TASKS_KEPT_MAX: u64 = 1_000_000;

// --- files ----------------------------------------------------------------------------------

/// Content that travels within a request, or an answer, of the control stream; more is streamed.
pub const FILE_INLINE_BYTES_MAX: usize = 48 * 1024;
/// Content of one file that is written, or read whole, by an operation. More is a push, or a pull.
pub const FILE_BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest file that is hashed for an answer which did not ask for its etag.
pub const ETAG_AUTO_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest file that is edited.
pub const EDIT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Replacements of one edit.
pub const EDITS_MAX: usize = 64;
/// Bytes of the difference that an answer shows.
pub const DIFF_BYTES_MAX: usize = 32 * 1024;
/// Levels of folders that one list shows.
pub const LIST_DEPTH_MAX: u8 = 8;
/// Entries of one page of a list when the caller does not say.
pub const LIST_ENTRIES_PAGE_DEFAULT: u32 = 200;
/// Entries of one page of a list.
pub const LIST_ENTRIES_PAGE_MAX: u32 = 1_000;
/// Entries of one folder that are read to put them in order; beyond it the folder is `too_large`.
pub const DIR_ENTRIES_READ_MAX: usize = 200_000;
/// Entries that one search looks at before it answers with a cursor.
pub const WALK_ENTRIES_MAX: u64 = 200_000;
/// Time that one search takes before it answers with a cursor.
pub const WALK_MS_MAX: u64 = 5_000;
/// The same of a page that the hub's copy of a folder answers, by a thread that waves and transfers need too.
pub const MIRROR_WALK_MS_MAX: u64 = 1_000;
/// Largest file whose lines are searched.
pub const GREP_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of one line that an answer shows.
pub const GREP_LINE_BYTES_MAX: usize = 1_024;
/// Lines shown before, and after, one that matches.
pub const GREP_CONTEXT_MAX: u8 = 10;
/// Bytes of the pattern of a search in lines.
pub const GREP_PATTERN_BYTES_MAX: usize = 1_024;
/// Bytes of a pattern for names.
pub const GLOB_BYTES_MAX: usize = 512;
/// Matches of one page when the caller does not say.
pub const MATCHES_PAGE_DEFAULT: u32 = 50;
/// Matches of one page.
pub const MATCHES_PAGE_MAX: u32 = 200;
/// Bytes of the cursor of a list or a search: a path, and what the query was.
pub const FILE_CURSOR_BYTES_MAX: usize = 8 * 1024;
/// Bytes of an answer to an operation on files, with all that belongs to it; what does not fit comes
/// with the next page.
pub const FILE_ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX - 4 * 1024;
/// Remarks of one answer.
pub const FILE_NOTES_MAX: usize = 16;
/// Operations on files that may be open on one node; more are refused with `quota`.
pub const FILE_OPS_OPEN_PER_NODE_MAX: usize = 256;
/// Operations on files that may be open with one token, on all nodes; more are refused with
/// `rate_limited`.
pub const FILE_OPS_OPEN_PER_TOKEN_MAX: usize = 64;
/// How long an operation on files may take when the caller does not say.
pub const FILE_OP_MS: u64 = 30_000;
/// How long a caller may let one take.
pub const FILE_OP_MS_MAX: u64 = 300_000;
/// How much longer than one may take the hub waits for the node's own word on it.
pub const FILE_ANSWER_MS: u64 = 2_000;
/// Settled operations that a node remembers, so that a repeated one does not happen again.
pub const JOURNAL_OPS_SETTLED_MAX: usize = 100_000;
/// Tasks of which a node remembers the highest attempt that it has seen; those that it heard of longest
/// ago make room.
pub const ATTEMPTS_KNOWN_MAX: usize = 10_000;
/// Bytes of the message, of the hint, and of all details, that are kept of a refused operation, each: a
/// node's journal is rewritten with them.
pub const FILE_REFUSAL_BYTES_MAX: usize = 320;
/// How long the hub keeps what came of an operation, and with it its idempotency key.
pub const FILE_OPS_KEPT_MS: u64 = 24 * 3_600 * 1_000;
/// Ended operations kept; beyond it those that ended first go before their time.
pub const FILE_OPS_KEPT_MAX: u64 = 100_000;

// --- names, lists ---------------------------------------------------------------------------

/// Bytes of a node's, token's or profile's name.
pub const NAME_BYTES_MAX: usize = 63;
/// Labels of one node.
pub const LABELS_MAX: usize = 64;
/// Bytes of a label's key or value.
pub const LABEL_BYTES_MAX: usize = 128;
/// Items of one page of a list.
pub const PAGE_ITEMS_MAX: usize = 1_000;
/// Items of one page when the caller does not say.
pub const PAGE_ITEMS_DEFAULT: usize = 100;

// --- policy and sandbox ---------------------------------------------------------------------

/// Bytes of one policy document; it travels in one frame.
pub const POLICY_BYTES_MAX: usize = 48 * 1024;
/// Revisions of one node's policy that are kept; older ones go.
pub const POLICY_REVISIONS_KEPT: usize = 100;
/// Programs of one policy.
pub const POLICY_PROGRAMS_MAX: usize = 1_024;
/// Roots of one policy.
pub const POLICY_ROOTS_MAX: usize = 64;
/// Rules on arguments of one program.
pub const ARG_RULES_MAX: usize = 256;
/// Profiles that a hub keeps beside the built-in ones.
pub const PROFILES_MAX: usize = 100;
/// Layers of the sandbox that a node tells of.
pub const LAYERS_MAX: usize = 32;
/// Bytes of the note on one layer.
pub const LAYER_NOTE_BYTES_MAX: usize = 400;
/// Rooms that a node keeps ready, one per set of walls; the one that was used longest ago goes.
pub const ROOMS_MAX: usize = 4;

// --- principals, locks, consent -------------------------------------------------------------

/// Users of one hub, removed ones not counted.
pub const USERS_MAX: usize = 10_000;
/// Groups of one user.
pub const GROUPS_MAX: usize = 64;
/// Live grants of roles.
pub const GRANTS_MAX: usize = 10_000;
/// Tokens that are good at once, sessions not counted.
pub const TOKENS_MAX: usize = 10_000;
/// Nodes that one token may name.
pub const TOKEN_NODES_MAX: usize = 256;
/// Shortest password, bytes.
pub const PASSWORD_BYTES_MIN: usize = 10;
/// Longest password, bytes; a longer one is refused before it is hashed.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Passwords hashed at once, each with 19 MiB and about 20 ms; more are `rate_limited`.
pub const PASSWORD_CHECKS_AT_ONCE_MAX: usize = 2;
/// Life of a person's session.
pub const SESSION_TTL_MS: u64 = 12 * 3_600 * 1_000;
/// How long the record of a session that has ended is kept.
pub const SESSIONS_KEPT_MS: u64 = 24 * 3_600 * 1_000;
/// Locks that hold at once, and records of locks that were not removed.
pub const LOCKS_MAX: usize = 10_000;
/// Longest life that a lock may be given: a year. One without an end holds until it is removed.
pub const LOCK_TTL_MS_MAX: u64 = 365 * 24 * 3_600 * 1_000;
/// Bytes of a lock's message.
pub const LOCK_MESSAGE_BYTES_MAX: usize = 512;
/// Recoveries that an administrator may allow a node at most.
pub const RECOVERIES_SET_MAX: u32 = 1_000;
/// Bytes of a recovery key's public half, or of a signature; both are far below.
pub const PROOF_BYTES_MAX: usize = 256;
/// Time after which a node asks again that may not recover at present.
pub const RECOVERY_RETRY_MS: u64 = 60_000;
/// Recoveries of a node's identity before an administrator must allow more.
pub const RECOVERIES_MAX: u32 = 5;
/// How long a question waits for a person.
pub const CONSENT_TTL_MS: u64 = 15 * 60 * 1_000;
/// Questions that wait at once; more are refused with `quota`.
pub const CONSENTS_OPEN_MAX: usize = 1_000;
/// The same of one token.
pub const CONSENTS_OPEN_PER_TOKEN_MAX: usize = 20;
/// Lasting answers that hold at once.
pub const CONSENT_RULES_MAX: usize = 1_000;
/// Longest time for which an answer lasts that has an end: thirty days.
pub const CONSENT_RULE_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// Past answers that are shown beside a question.
pub const CONSENTS_SIMILAR_MAX: usize = 5;
/// Answered questions kept: thirty days.
pub const CONSENTS_KEPT_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Bytes of a reason, or of a note.
pub const CONSENT_TEXT_BYTES_MAX: usize = 1_024;

// --- invites, tokens ------------------------------------------------------------------------

/// Life of an invite when nobody says otherwise.
pub const INVITE_TTL_MS: u64 = 15 * 60 * 1_000;
/// Time after a join in which the same key may join with the same invite again, as long as its
/// node has not attached: its answer was lost.
pub const REJOIN_MS_MAX: u64 = 15 * 60 * 1_000;
/// Longest life of an invite.
pub const INVITE_TTL_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// Bytes of an invite's text; a longer one is refused before it is read (`too_large`).
pub const INVITE_BYTES_MAX: usize = 512;
/// For so long a node's certificate lets it attach outside its own time: a weekend, or a clock that
/// jumped, costs nobody a recovery. Beyond it the node recovers by its second key (ADR 0010).
pub const CERTIFICATE_GRACE_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// Failed joins from one address within [`JOIN_FAILURES_WINDOW_MS`] before it is told to wait.
pub const JOIN_FAILURES_MAX: usize = 20;
/// See [`JOIN_FAILURES_MAX`].
pub const JOIN_FAILURES_WINDOW_MS: u64 = 60_000;
/// Addresses whose failures are remembered; the oldest make room. Of IPv6 a whole /64 is one.
pub const JOIN_SOURCES_MAX: usize = 10_000;
/// Refused joins within [`JOIN_FAILURES_WINDOW_MS`], from all addresses, that have an audit row of
/// their own; those beyond it share one.
pub const JOIN_REFUSALS_AUDITED_MAX: usize = 1_000;

// --- store, events --------------------------------------------------------------------------

/// Writes that may wait for the writer; more are refused with `store_unavailable`.
pub const STORE_QUEUE_MAX: usize = 8_192;
/// Writes that one group commit takes at most.
pub const STORE_GROUP_MAX: usize = 1_024;
/// How long a caller waits for the store when it does not say.
pub const STORE_MS_MAX: u64 = 10_000;
/// Events kept in the durable log before the oldest are trimmed.
pub const EVENTS_KEPT_MAX: u64 = 200_000;
/// Events that wait for one subscriber; then it is told `lagged` and reads the log.
pub const SUBSCRIBER_QUEUE_MAX: usize = 1_024;
/// A subscriber that has not read for that long is pruned (ABUSE 24).
pub const SUBSCRIBER_STALL_MS_MAX: u64 = 30_000;
/// Subscribers at once; more are refused with `quota`.
pub const SUBSCRIBERS_MAX: usize = 20_000;

// --- http -----------------------------------------------------------------------------------

/// Body of an ordinary request.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Time that a client has to send its request head.
pub const HEAD_MS_MAX: u64 = 10_000;
/// How long a kept connection may be idle between two requests.
pub const HTTP_IDLE_MS_MAX: u64 = 75_000;
/// Silence of a connection after which the other end is asked whether it is still there.
pub const HTTP_KEEPALIVE_MS: u64 = 15_000;
/// Time between two such questions; the connection ends when [`HTTP_KEEPALIVE_TRIES`] were not
/// answered.
pub const HTTP_KEEPALIVE_RETRY_MS: u64 = 5_000;
/// See [`HTTP_KEEPALIVE_RETRY_MS`].
pub const HTTP_KEEPALIVE_TRIES: u32 = 3;
/// Connections that wait to be accepted, per port. With 128 the system drops the next ones, which
/// try again after one second, then two: 5,000 at once took 5 to 9 s. The system may have a lower
/// bound of its own (`net.core.somaxconn`).
pub const LISTEN_BACKLOG: u32 = 4_096;
/// HTTP connections at once; more wait in the listener's backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 16_384;

/// Processes that work on files for a node at once, idle ones among them.
pub const CLERKS_MAX: usize = 8;
/// Operations on files that wait on a node for such a process; one more is refused `quota`.
pub const CLERKS_WAITING_MAX: usize = 256;
/// Folders that one node watches, by one process; the others are looked at from time to time.
pub const WATCHES_MAX: usize = 64;
/// Folders of them and below them that it watches, each of which is a watch of the system.
pub const WATCH_DIRS_MAX: usize = 100_000;
/// A folder that changed is looked at when so long no further change was told, so that what somebody does in one
/// go, such as removing a tree, is seen as a whole; or after [`LOOK_PAUSE_MS_MAX`].
pub const LOOK_SETTLE_MS: u64 = 300;
/// Shortest time between the end of a look at a folder that changes and the next one.
pub const LOOK_PAUSE_MS_MIN: u64 = 300;
/// The same while it changes all the time.
pub const LOOK_PAUSE_MS_MAX: u64 = 5_000;
/// Time between two looks at a folder whose node tells of changes: some changes are told by no system, as those
/// through a mapping into memory or through another name of a file.
pub const LOOK_WATCHED_MS: u64 = 10 * 60 * 1_000;
/// The first and the longest time after which a node is asked again for a watch that ended.
pub const WATCH_AGAIN_MS: (u64, u64) = (1_000, 60_000);
/// The same when nothing but somebody's change to the machine helps.
pub const WATCH_HOPELESS_MS: u64 = 5 * 60 * 1_000;

const _: () = {
    assert!(HEARTBEAT_MS * 3 <= SILENCE_MS_MAX, "one lost heartbeat must not end a link");
    assert!(SILENCE_MS_MAX <= 10_000, "a dead node is noticed within 10 s (R4)");
    assert!(GRACE_MS <= 10_000, "a killed node's runs are settled within 12 s");
    assert!(BACKOFF_MS_MAX < GRACE_MS, "a node must be able to come back within its grace");
    assert!(RESTART_GRACE_MS > GRACE_MS, "after a restart everybody comes at once");
    assert!(FRAME_BYTES_MAX * 2 < MESSAGE_BYTES_MAX, "a frame fits in a message with its head");
    assert!(CREDIT_BYTES_START >= 2 * FRAME_BYTES_MAX as u64, "two frames may be on their way");
    assert!(CREDIT_BYTES_MAX >= CREDIT_BYTES_START, "credit only grows");
    assert!(SPOOL_BYTES_MAX > CREDIT_BYTES_MAX, "the spool holds what is on its way");
    assert!(OUTPUT_FLUSH_MS < 1_000, "output is at most 1 s behind (DESIGN §4)");
    assert!(ARGV_BYTES_MAX + ENV_BYTES_MAX + PATH_BYTES_MAX < MESSAGE_BYTES_MAX / 2, "a command fits");
    assert!(ATTACH_STORE_MS_MAX < HELLO_MS_MAX, "a stalled store is named before the link dies");
    assert!(
        RUNS_KEPT_MAX >= 100 * NODES_PER_EXEC_MAX as u64,
        "a large fan-out must not push its own runs out"
    );
    assert!(HEAD_MS_MAX < HTTP_IDLE_MS_MAX, "who asks once a minute keeps its connection");
    assert!(POLICY_BYTES_MAX + 1024 < FRAME_BYTES_MAX, "a policy fits in a frame with its head");
    assert!(STORE_GROUP_MAX <= STORE_QUEUE_MAX, "a group fits in the queue");
    assert!(LEASE_MS_MIN > SILENCE_MS_MAX, "one lost heartbeat must not end a lease");
    assert!(LEASE_MS >= LEASE_MS_MIN && LEASE_MS <= LEASE_MS_MAX, "the usual lease is a lease");
    assert!(PAYLOAD_BYTES_MAX * 2 < BODY_BYTES_MAX, "a payload fits in a request, as base64 too");
    assert!(SUBMITTING_TASKS_MAX >= SUBMIT_TASKS_MAX, "one request fits in its party's share");
    assert!(TASKS_OPEN_PER_OWNER_MAX < TASKS_OPEN_MAX, "one party alone does not fill the hub");
    assert!(
        FILE_INLINE_BYTES_MAX + 2 * PATH_BYTES_MAX + 4 * 1024 <= FRAME_BYTES_MAX,
        "content fits in a frame with two paths and its head"
    );
    assert!(FILE_INLINE_BYTES_MAX + 4 * 1024 <= FILE_ANSWER_BYTES_MAX, "content fits in an answer");
    assert!(DIFF_BYTES_MAX + PATH_BYTES_MAX < FILE_ANSWER_BYTES_MAX, "a difference fits in an answer");
    assert!(
        2 * PATH_BYTES_MAX + FILE_CURSOR_BYTES_MAX < FILE_ANSWER_BYTES_MAX,
        "an entry and a cursor fit in an answer"
    );
    assert!(PATH_BYTES_MAX + 32 <= FILE_CURSOR_BYTES_MAX, "a cursor holds a path and a hash");
    assert!(
        (2 * GREP_CONTEXT_MAX as usize + 1) * GREP_LINE_BYTES_MAX + PATH_BYTES_MAX + FILE_CURSOR_BYTES_MAX
            < FILE_ANSWER_BYTES_MAX,
        "a match with its lines fits in an answer"
    );
    assert!(PROTOCOL_MIN <= PROTOCOL_FILES && PROTOCOL_FILES <= PROTOCOL, "this build does them");
    assert!(PROTOCOL_WATCH <= PROTOCOL, "this build does them");
    assert!(3 * WATCHES_MAX < OUTBOX_CONTROL_MAX, "asking for all watches anew never fills a link");
    assert!(LOOK_SETTLE_MS < LOOK_PAUSE_MS_MAX && LOOK_PAUSE_MS_MIN <= LOOK_PAUSE_MS_MAX, "both are reached");
    assert!(LOOK_PAUSE_MS_MAX < LOOK_WATCHED_MS, "told means sooner");
    assert!(FILE_OP_MS <= FILE_OP_MS_MAX, "the usual time is one that may be asked for");
    assert!(SLOTS_MAX as usize <= RUNS_OPEN_PER_NODE_MAX, "each slot may have a run");
};

// --- content: chunks, packs, trees ------------------------------------------------------------

/// A file of at most so many bytes is one chunk; a longer one is cut where its content says (SYNC 1).
pub const CHUNK_WHOLE_BYTES_MAX: usize = 1024 * 1024;
/// Shortest chunk of a file that is cut, its last one aside.
pub const CHUNK_BYTES_MIN: usize = 16 * 1024;
/// Length around which the cuts lie.
pub const CHUNK_BYTES_AVERAGE: usize = 64 * 1024;
/// Longest chunk of a file that is cut.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// A pack with all that belongs to it, were it kept raw: what a cut costs to send again at most.
pub const PACK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Chunks of one pack.
pub const PACK_CHUNKS_MAX: usize = 65_536;
/// Bytes of one object that describes a tree: a piece of a directory, of a file's map, or an index.
pub const TREE_OBJECT_BYTES_MAX: usize = 256 * 1024;
/// Bytes after which such an object ends, wherever its content would end it.
pub const TREE_OBJECT_BYTES_FULL: usize = 192 * 1024;
/// Rows after which such an object ends, wherever its content would end it.
pub const TREE_OBJECT_ROWS_MAX: usize = 1_024;
/// Bytes of the name of one entry of a directory; no Linux file system has a longer one.
pub const ENTRY_NAME_BYTES_MAX: usize = 255;
/// Bytes of one file of a tree: 1 TiB.
pub const FILE_BYTES_MAX: u64 = 1 << 40;
/// Entries of one tree, directories among them (ABUSE 54).
pub const TREE_ENTRIES_MAX: u64 = 5_000_000;
/// Directories below one another in one tree.
pub const TREE_DEPTH_MAX: u16 = 512;
/// Different objects of a tree that are told apart while it is checked, each with about 100 bytes.
pub const TREE_CHECK_OBJECTS_MAX: usize = 1_000_000;
/// Objects of a tree that wait to be asked for while it is checked, each with at most 600 bytes.
pub const TREE_CHECK_WAITING_MAX: usize = 65_536;
/// A pack of the hub stays for so long after the first collection that saw it, whatever names it: a
/// transfer that broke may be resumed within a day.
pub const BLOBS_YOUNG_MS: u64 = 24 * 3_600 * 1_000;
/// A pack that nothing names any more goes after so long, if that is still so.
pub const BLOBS_CONDEMNED_MS: u64 = 3_600 * 1_000;
/// A pack of which less than this part is named by anything is written anew, percent.
pub const BLOBS_LIVE_PERCENT_MIN: u8 = 50;
/// Plain bytes of packs that one collection writes anew.
pub const BLOBS_REPACK_BYTES: u64 = 1024 * 1024 * 1024;
/// Packs that wait for a sync; the next one that is put brings it about. Each has a file open.
pub const BLOBS_UNSYNCED_PACKS_MAX: usize = 256;
/// Chunks of packs that wait for a sync, each with about 150 bytes of memory.
pub const BLOBS_UNSYNCED_CHUNKS_MAX: usize = 262_144;

const _: () = {
    // The cutter looks at two bytes at a time: odd sizes would move its bounds without a word.
    assert!(CHUNK_BYTES_MIN.is_multiple_of(2) && CHUNK_BYTES_MAX.is_multiple_of(2));
    assert!(CHUNK_BYTES_AVERAGE.is_power_of_two(), "only then its masks are the same in every version");
    assert!(CHUNK_BYTES_MIN < CHUNK_BYTES_AVERAGE && CHUNK_BYTES_AVERAGE < CHUNK_BYTES_MAX);
    assert!(CHUNK_BYTES_MAX <= CHUNK_WHOLE_BYTES_MAX, "what is one chunk may be as long as any chunk");
    assert!(CHUNK_WHOLE_BYTES_MAX * 2 <= PACK_BYTES_MAX, "a pack takes more than one chunk");
    assert!(TREE_OBJECT_BYTES_MAX <= CHUNK_WHOLE_BYTES_MAX, "an object of a tree is a chunk");
    let row_bytes_max = ENTRY_NAME_BYTES_MAX + PATH_BYTES_MAX + 128;
    assert!(TREE_OBJECT_BYTES_FULL + row_bytes_max <= TREE_OBJECT_BYTES_MAX, "its last row fits");
    assert!(TREE_OBJECT_ROWS_MAX <= u16::MAX as usize, "rows are counted in two bytes");
    assert!(WANTS_OPEN_BYTES_MAX >= 4 * PACK_BYTES_MAX as u64, "packs are on their way while one is read");
    assert!(WANTS_MAX <= WANTS_OPEN_MAX, "one message never is too much by itself");
};

// --- transfers ------------------------------------------------------------------------------

/// How long one transfer may take.
pub const TRANSFER_MS_MAX: u64 = 24 * 3_600 * 1_000;
/// Bytes of content in one frame of a transfer.
pub const CARRY_DATA_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one frame of a transfer, as it is encoded.
pub const CARRY_BYTES_MAX: usize = CARRY_DATA_BYTES_MAX + 16 * 1024;
/// Frames of a transfer that wait in one place, in one direction: with the windows of the network that is
/// all that a transfer holds of content.
pub const CARRIES_WAITING_MAX: usize = 4;
/// Ids of one frame of wants.
pub const WANTS_MAX: usize = 4_096;
/// Ids that a receiver may have asked for and not been given.
pub const WANTS_OPEN_MAX: usize = 65_536;
/// Plain bytes of what a receiver may have asked for and not been given.
pub const WANTS_OPEN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Paths with a word of their own, at the end of a transfer or in one frame of it.
pub const TRANSFER_NOTES_MAX: usize = 200;
/// Bytes of these paths.
pub const TRANSFER_NOTE_BYTES_MAX: usize = 48 * 1024;
/// Patterns by which a transfer leaves files out.
pub const EXCLUDES_MAX: usize = 256;
/// Bytes of one such pattern.
pub const EXCLUDE_BYTES_MAX: usize = 1_024;
/// Transfers of trees that may be open on one node; more are refused with `quota`.
pub const TRANSFERS_OPEN_PER_NODE_MAX: usize = 64;
/// Streams for content that a node works on at once; more wait.
pub const STREAMS_PER_NODE_MAX: usize = 4;
/// Tickets and streams of one hub together.
pub const STREAMS_PER_HUB_MAX: usize = 1_024;
/// How long a ticket for a stream holds.
pub const TICKET_MS: u64 = 30_000;
/// Tickets of one node that nobody has used.
pub const TICKETS_PER_NODE_MAX: usize = 64;
/// How long a body of HTTP may stand still, in either direction.
pub const BODY_IDLE_MS_MAX: u64 = 30_000;
/// What a synced folder holds of our own files: never part of a tree.
pub const OWN_FOLDER: &str = ".cortex";
/// How long a transfer may stand still while one end owes the other something.
pub const TRANSFER_IDLE_MS: u64 = 30_000;
/// Transfers that one hub has open for callers.
pub const TRANSFERS_OPEN_MAX: usize = 256;
/// Transfers that one token has open.
pub const TRANSFERS_OPEN_PER_TOKEN_MAX: usize = 8;
/// Nodes with which one hub moves content at once; more wait.
pub const TRANSFERS_RUNNING_MAX: usize = 64;
/// Transfers with one node that run at once; more wait. Fewer than its streams, so that an operation on a
/// file finds one.
pub const TRANSFERS_RUNNING_PER_NODE_MAX: usize = 3;
/// How long what came of a transfer is told.
pub const TRANSFERS_KEPT_MS: u64 = 3_600 * 1_000;
/// Ended transfers of which that is told.
pub const TRANSFERS_KEPT_MAX: usize = 1_000;
/// How long a push waits for a caller that owes it something and is not heard: nodes work with few at once.
pub const TRANSFER_CALLER_MS: u64 = 60_000;
/// How long a transfer waits for a node that went away.
pub const TRANSFER_PATIENCE_MS: u64 = 10 * 60 * 1_000;
/// How long a pull waits for somebody to read it.
pub const TRANSFER_READER_MS: u64 = 60_000;
/// Slowest pace that may be asked for, bytes per second.
pub const TRANSFER_RATE_MIN: u64 = 1_024;
/// Bytes of one pack as a request carries it: its plain bytes, a row of its head for each chunk, and what
/// compression and checks may add.
pub const PACK_BODY_BYTES_MAX: usize = PACK_BYTES_MAX + 64 * 1024 + PACK_CHUNKS_MAX * 36;
/// How long the body of such a request may take.
pub const PACK_MS_MAX: u64 = 120_000;
/// Longest wait for news of a transfer in one request.
pub const TRANSFER_WAIT_MS_MAX: u64 = 25_000;

const _: () = {
    assert!(2 * TRANSFER_WAIT_MS_MAX < TRANSFER_CALLER_MS, "a caller that waits for news is heard");
    assert!(STREAMS_PER_NODE_MAX < CLERKS_MAX, "operations without a stream find a clerk");
    assert!(CARRY_BYTES_MAX < MESSAGE_BYTES_MAX / 2, "a frame of a transfer fits in a message");
    assert!(WANTS_MAX * 34 < CARRY_BYTES_MAX, "a frame of wants fits");
    assert!(TRANSFERS_OPEN_PER_TOKEN_MAX < TRANSFERS_OPEN_MAX, "one token alone does not fill the hub");
    assert!(TRANSFERS_RUNNING_PER_NODE_MAX < TRANSFERS_RUNNING_MAX, "one node alone does not hold up others");
    assert!(TRANSFERS_RUNNING_PER_NODE_MAX < STREAMS_PER_NODE_MAX, "an operation on a file finds a stream");
    assert!(TRANSFER_NOTE_BYTES_MAX + TRANSFER_NOTES_MAX * 64 < CARRY_BYTES_MAX / 2, "an end fits");
    assert!(2 * PATH_BYTES_MAX <= TRANSFER_NOTE_BYTES_MAX, "any one note fits");
};

// --- workspaces, skills -------------------------------------------------------------------------

/// Workspaces of one hub, removed ones not counted.
pub const WORKSPACES_MAX: usize = 1_000;
/// Members of one workspace.
pub const WORKSPACE_MEMBERS_MAX: usize = 10_000;
/// Bytes of one tree of a workspace when nobody says otherwise: 64 GiB.
pub const WORKSPACE_BYTES_MAX: u64 = 64 << 30;
/// Ignore patterns of one workspace, beside its files of them.
pub const WORKSPACE_EXCLUDES_MAX: usize = 256;
/// Bytes of one such pattern.
pub const WORKSPACE_EXCLUDE_BYTES_MAX: usize = 1_024;
/// Bytes of the note on a revision.
pub const REVISION_NOTE_BYTES_MAX: usize = 512;
/// Newest revisions that are all kept; of older ones the last of each day.
pub const REVISIONS_KEPT_MAX: u64 = 1_000;
/// Age from which on only the last revision of a day is kept: ninety days.
pub const REVISIONS_KEPT_MS: u64 = 90 * 24 * 3_600 * 1_000;
/// Time for which the lock of a workspace holds when nobody says otherwise and nobody extends it.
pub const WORKSPACE_LOCK_MS: u64 = 60_000;
/// Shortest such time.
pub const WORKSPACE_LOCK_MS_MIN: u64 = 1_000;
/// Longest such time: an hour.
pub const WORKSPACE_LOCK_MS_MAX: u64 = 3_600 * 1_000;
/// Paths of one workspace that two sides changed and that are listed; the oldest go.
pub const WORKSPACE_CONFLICTS_MAX: usize = 10_000;
/// Skills of one hub, removed ones not counted.
pub const SKILLS_MAX: usize = 1_000;
/// Newest revisions of one skill that are kept.
pub const SKILL_REVISIONS_KEPT: usize = 100;
/// Files of one skill.
pub const SKILL_FILES_MAX: u64 = 10_000;
/// Bytes of the files of one skill: 256 MiB.
pub const SKILL_BYTES_MAX: u64 = 256 << 20;
/// Folders of nodes that follow skills, of one hub.
pub const SKILL_MOUNTS_MAX: usize = 10_000;
/// Bytes of its `SKILL.md`.
pub const SKILL_TEXT_BYTES_MAX: usize = 256 * 1024;

const _: () = {
    assert!(WORKSPACE_LOCK_MS >= WORKSPACE_LOCK_MS_MIN && WORKSPACE_LOCK_MS <= WORKSPACE_LOCK_MS_MAX);
    assert!(SKILL_FILES_MAX < TREE_ENTRIES_MAX && SKILL_BYTES_MAX < WORKSPACE_BYTES_MAX, "a skill is a tree");
};
