//! Every row of the abuse list, and where it is held or why it waits.

use std::path::Path;

/// The numbers of the list; it has gaps.
const ROWS: &[u8] = &[
    1, 2, 3, 4, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 23, 24, 25, 26, 27, 29, 30, 31, 32, 35, 36,
    37, 38, 39, 40, 41, 42, 43, 44, 45, 47, 48, 51, 53, 54, 56, 57, 59, 60, 61, 62, 63, 64, 65, 67, 68, 70,
    71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 86, 87, 88, 89, 92, 93, 94, 96, 98, 99, 100,
];

/// Row, file below the workspace, test.
const HELD: &[(u8, &str, &str)] = &[
    (1, "crates/cortex/tests/abuse/enrolment.rs", "a01_a_second_use_of_an_invite_is_refused"),
    (2, "crates/hub/tests/nodes/joining.rs", "a_hundred_clients_with_one_invite_make_one_node"),
    (3, "crates/cortex/tests/abuse/enrolment.rs", "a03_the_hubs_clock_decides_that_an_invite_has_expired"),
    (4, "crates/cortex/tests/abuse/enrolment.rs", "a04_guessing_invites_is_slowed_down_and_tells_nothing"),
    (6, "crates/cortex/tests/e2e/secrets.rs", "the_stores_files_hold_no_secret_and_are_the_owners_alone"),
    (7, "crates/cortex/tests/abuse/enrolment.rs", "a07_a_name_that_is_used_again_inherits_nothing"),
    (10, "crates/cortex/tests/abuse/enrolment.rs", "a10_a_revoked_node_is_cut_off_and_its_runs_end"),
    (11, "crates/cortex/tests/abuse/enrolment.rs", "a11_another_hub_gets_no_node_and_commands_nothing"),
    (12, "crates/cortex/tests/abuse/enrolment.rs", "a12_no_plaintext_no_old_tls_and_no_old_protocol"),
    (13, "crates/cortex/tests/abuse/enrolment.rs", "a13_two_copies_of_one_identity_are_both_shut_out"),
    (14, "crates/cortex/tests/abuse/enrolment.rs", "a14_credentials_of_one_door_open_no_other"),
    (
        15,
        "crates/cortex/tests/abuse/stream.rs",
        "a15_another_first_message_and_a_second_hello_close_the_link",
    ),
    (
        16,
        "crates/cortex/tests/abuse/stream.rs",
        "a16_connections_that_say_nothing_are_closed_and_cost_little",
    ),
    (
        17,
        "crates/cortex/tests/abuse/stream.rs",
        "a17_a_length_beyond_the_bound_is_refused_before_memory_is_taken",
    ),
    (18, "crates/cortex/tests/abuse/stream.rs", "a18_a_compressed_message_is_never_unpacked"),
    (19, "crates/cortex/tests/abuse/stream.rs", "a19_unknown_and_broken_messages_are_ignored_or_refused"),
    (21, "crates/cortex/tests/abuse/stream.rs", "a21_what_comes_after_the_end_changes_nothing"),
    (23, "crates/cortex/tests/abuse/stream.rs", "a23_a_node_that_takes_nothing_stalls_only_its_own_stream"),
    (
        24,
        "crates/hub/src/hub/tests/events.rs",
        "a_reader_that_stalls_is_pruned_with_its_connection_and_the_others_go_on",
    ),
    (25, "crates/cortex/tests/abuse/stream.rs", "a25_floods_of_frames_end_their_connection_and_nothing_else"),
    (
        26,
        "crates/cortex/tests/abuse/stream.rs",
        "a26_an_unplugged_node_is_offline_within_10_seconds_and_its_run_goes_on",
    ),
    (27, "crates/node/tests/it/links.rs", "a_frame_of_another_epoch_has_no_effect"),
    (29, "crates/node/tests/it/links.rs", "a_repeated_command_id_is_executed_once_even_across_a_restart"),
    (
        30,
        "crates/cortex/tests/abuse/policy.rs",
        "a30_every_metacharacter_in_every_position_is_passed_as_it_is",
    ),
    (31, "crates/cortex/tests/abuse/policy.rs", "a31_joined_commands_are_one_argument_or_too_large"),
    (
        32,
        "crates/cortex/tests/abuse/arguments.rs",
        "a32_an_argument_that_runs_code_is_denied_in_every_spelling",
    ),
    (35, "crates/cortex/tests/abuse/walls.rs", "a35_the_program_that_was_judged_is_the_one_that_runs"),
    (36, "crates/cortex/tests/abuse/policy.rs", "a36_no_shell_is_there_to_know_a_builtin"),
    (37, "crates/cortex/tests/abuse/policy.rs", "a37_a_node_that_nobody_configured_is_strict"),
    (38, "crates/cortex/tests/abuse/policy.rs", "a38_a_policy_is_loosened_by_an_administrator_only"),
    (
        39,
        "crates/cortex/tests/abuse/changes.rs",
        "a39_a_run_keeps_its_policy_until_a_tightening_is_to_end_it",
    ),
    // A hub that sends what it was told not to: `crates/node/tests/it/links.rs`.
    (40, "crates/cortex/tests/abuse/changes.rs", "a40_the_owners_ceiling_holds_whatever_the_hub_says"),
    // Level by level, and as an ordinary user: `crates/node/tests/walls/bounds.rs`.
    (
        41,
        "crates/cortex/tests/abuse/walls.rs",
        "a41_what_takes_all_it_can_get_is_bounded_and_the_node_goes_on",
    ),
    (
        42,
        "crates/cortex/tests/abuse/walls.rs",
        "a42_what_leaves_its_session_and_hears_no_signal_ends_with_its_run",
    ),
    // With 150 further attempts, level by level: `crates/node/tests/walls/escape.rs`.
    (
        43,
        "crates/cortex/tests/abuse/walls.rs",
        "a43_keys_processes_sockets_and_the_clouds_credentials_are_out_of_reach",
    ),
    (44, "crates/cortex/tests/abuse/walls.rs", "a44_a_command_that_reaches_the_hubs_ports_has_no_token"),
    // Of tens of thousands of random ones: `fuzz/targets/file_path.rs`.
    (45, "crates/cortex/tests/abuse/files.rs", "a45_a_path_that_leads_elsewhere_is_bad_path_at_every_door"),
    (47, "crates/node/src/files/beneath_tests.rs", "a47_a_link_swapped_1e5_times_is_never_followed_out"),
    // Of a tree: `crates/node/src/files/scan/tests.rs`.
    (
        48,
        "crates/node/src/files/beneath_tests.rs",
        "a48_hard_links_to_outside_fifos_devices_sockets_and_magic_links_are_unsupported_entry",
    ),
    (51, "crates/core/src/files/names.rs", "a51_windows_names_are_refused_where_a_windows_node_is_a_member"),
    // In a pack: `crates/content/src/unpack/tests.rs`; in the store: `crates/store/tests/blobs.rs`.
    (
        53,
        "crates/node/src/files/apply/tests/rules.rs",
        "a53_a_chunk_with_the_wrong_hash_index_or_a_second_content_touches_no_file",
    ),
    // Deep ones and those that name each other, beside it.
    (54, "crates/content/src/graph/tests.rs", "a54_a_manifest_of_1e8_entries_is_refused_while_it_streams"),
    (
        56,
        "crates/cortex/tests/e2e/aborted.rs",
        "a56_transfers_that_end_at_any_moment_leave_no_lock_file_entry_or_descriptor",
    ),
    // What the others' time is then is a figure of `bench/sync`.
    (
        57,
        "crates/hub/src/hub/tests/transfers/pushed.rs",
        "a57_one_of_twenty_nodes_that_takes_nothing_holds_up_none_of_the_others",
    ),
    // At every byte of a pack: `crates/store/tests/blobs.rs`; at a node: `crates/node/src/files/apply/tests/flips.rs`.
    (
        59,
        "crates/cortex/tests/kill/full.rs",
        "a59_bits_that_flip_on_the_hubs_disk_reach_no_folder_and_the_copy_is_made_whole_from_its_source",
    ),
    (
        60,
        "crates/node/src/files/apply/tests/rules.rs",
        "a60_hooks_lose_their_exec_bit_and_nothing_lands_in_what_is_ours",
    ),
    (
        61,
        "crates/hub/src/hub/tests/tasks/worked.rs",
        "a61_of_a_hundred_claimers_of_one_task_exactly_one_gets_it",
    ),
    // By a node: `crates/hub/src/hub/tests/tasks/given.rs`.
    (62, "crates/hub/src/hub/tests/tasks/worked.rs", "a62_a_late_report_is_refused_and_kept_as_evidence"),
    // What is under way is fenced: beside it.
    (
        63,
        "crates/hub/src/hub/tests/files/worked.rs",
        "a63_an_attempt_that_is_over_does_nothing_and_to_strangers_the_task_is_not_there",
    ),
    (
        64,
        "crates/hub/src/hub/tests/tasks/worked.rs",
        "a64_what_one_was_not_given_is_not_there_and_leaves_no_trace",
    ),
    (65, "crates/hub/src/hub/tests/tasks/worked.rs", "a65_a_wall_clock_that_jumps_ends_no_lease"),
    // With a million before it: `crates/store/tests/pool/bound.rs`.
    (
        67,
        "crates/cortex/tests/abuse/pool.rs",
        "a67_a_flood_of_urgent_tasks_holds_up_a_low_one_no_longer_than_its_bound",
    ),
    (
        68,
        "crates/hub/src/hub/tests/tasks/given.rs",
        "a68_a_task_whose_node_dies_each_time_ends_dead_after_its_attempts",
    ),
    // Of bytes: `a70_a_payload_of_a_gibibyte_is_refused_before_memory_is_taken` beside it.
    (70, "crates/cortex/tests/abuse/pool.rs", "a70_a_flood_of_one_meets_its_quota_and_others_still_submit"),
    (71, "crates/cortex/tests/kill/exec.rs", "a_power_cut_at_any_point_of_an_exec_loses_and_doubles_nothing"),
    (72, "crates/store/tests/sqlite/faults.rs", "a_full_disk_loses_nothing_acknowledged"),
    (73, "crates/cortex/tests/abuse/disk.rs", "a73_a_full_disk_stops_writes_and_neither_reads_nor_kills"),
    (
        74,
        "crates/cortex/tests/kill/full.rs",
        "a74_a_followers_disk_that_fills_in_the_middle_of_a_wave_keeps_what_it_has_and_goes_on_when_there_is_room",
    ),
    (75, "crates/node/src/journal/file.rs", "a_torn_tail_is_dropped_at_every_byte_and_the_rest_is_read"),
    (
        79,
        "crates/hub/tests/nodes/links.rs",
        "r12_4_a_stalled_store_stops_neither_heartbeats_nor_cancel_and_refuses_new_links_in_time",
    ),
    (81, "crates/cortex/tests/abuse/stream.rs", "a81_all_nodes_are_back_after_the_hub_was_killed"),
    (82, "crates/cortex/tests/abuse/doors.rs", "a82_a_foreign_origin_or_host_is_refused"),
    (83, "crates/cortex/tests/abuse/doors.rs", "a83_what_a_foreign_page_can_post_changes_nothing"),
    (86, "crates/cortex/tests/abuse/doors.rs", "a86_no_get_changes_anything"),
    (87, "crates/cortex/tests/abuse/doors.rs", "a87_no_secret_is_in_any_output"),
    (88, "crates/cortex/tests/abuse/doors.rs", "a88_a_secret_as_an_argument_is_refused_and_not_repeated"),
    (93, "crates/cortex/tests/abuse/doors.rs", "a93_names_and_labels_carry_nothing_hidden"),
    // Of an export: `crates/cortex/tests/abuse/changes.rs`.
    (
        99,
        "crates/hub/src/hub/tests/audit.rs",
        "a99_a_log_that_lost_its_end_together_with_its_anchor_is_found_by_a_node",
    ),
    (
        100,
        "crates/cortex/tests/abuse/changes.rs",
        "a100_a_node_that_one_removes_while_others_keep_it_is_gone",
    ),
];

/// Rows that wait, and what for.
const PENDING: &[(&[u8], &str)] = &[
    (&[76], "restore of a backup; nodes refuse a lower generation already (core/tests/node_runs.rs)"),
    (&[77, 78, 80], "clusters"),
    (&[89], "web page"),
    (&[92, 94], "MCP"),
    (&[96], "rules for reading and sending: files, workspaces and consent"),
    (&[98], "updates of nodes"),
];

#[test]
fn every_row_of_the_list_is_held_or_pending_exactly_once() {
    let pending = PENDING.iter().flat_map(|(rows, _)| rows.iter().copied());
    let mut named: Vec<u8> = HELD.iter().map(|(row, ..)| *row).chain(pending).collect();
    named.sort_unstable();
    assert_eq!(named, ROWS);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (row, file, test) in HELD {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("{file} is not there"));
        assert!(text.contains(&format!("fn {test}(")), "row {row}: {file} has no test {test}");
    }
    let waiting: Vec<String> =
        PENDING.iter().flat_map(|(rows, _)| rows.iter().map(ToString::to_string)).collect();
    let line =
        format!("abuse table: {} rows held, {} pending: {}\n", HELD.len(), waiting.len(), waiting.join(", "));
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).expect("standard output");
}
