//! One suite over every store: what the port promises, the memory store and SQLite both keep.
//! `contract/agree.rs` adds random histories, after which both must hold the same.

mod support;

#[path = "contract/agree.rs"]
mod agree;
#[path = "contract/entities.rs"]
mod entities;
#[path = "contract/files.rs"]
mod files;
#[path = "contract/logs.rs"]
mod logs;
#[path = "contract/people.rs"]
mod people;
#[path = "contract/schedules.rs"]
mod schedules;
#[path = "contract/subject.rs"]
mod subject;
#[path = "contract/sync.rs"]
mod sync;
#[path = "contract/tasks.rs"]
mod tasks;
#[path = "contract/transactions.rs"]
mod transactions;

/// Makes each named test once per store.
macro_rules! contract {
    ($($module:ident::$name:ident,)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$module::$name(super::subject::Subject::memory()).await })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$module::$name(super::subject::Subject::sqlite()).await })*
        }
    };
}

contract! {
    entities::a_new_store_is_empty_and_of_generation_one,
    entities::what_is_put_is_read_back_to_the_last_field,
    entities::putting_again_replaces,
    entities::two_live_nodes_cannot_share_a_name,
    entities::nodes_are_listed_by_name_and_without_the_removed,
    entities::two_live_tokens_cannot_share_a_name,
    entities::a_policy_only_moves_forward,
    entities::the_history_of_a_policy_is_paged_newest_first_and_bounded,
    entities::profiles_are_replaced_and_removed_by_name,
    entities::policies_of_removed_nodes_are_not_listed,
    entities::a_key_is_one_run_per_caller_and_node,
    entities::epochs_only_grow,
    entities::observing_writes_the_time_and_nothing_else,
    entities::invites_and_tokens_are_listed_newest_first,
    entities::runs_are_paged_newest_first,
    entities::runs_are_filtered_by_node_and_state,
    entities::a_cursor_outlives_its_run,
    entities::open_runs_are_listed_oldest_first,
    entities::ended_runs_are_listed_by_their_end_and_only_they_are_removed,
    people::people_and_what_concerns_them_are_read_back_to_the_last_field,
    people::two_live_users_cannot_share_a_name,
    people::what_was_ended_is_not_listed,
    people::sessions_that_have_ended_go_and_nothing_else_does,
    people::questions_are_paged_newest_first_and_trimmed_by_their_answer,
    people::questions_are_found_by_their_token_key_and_program,
    people::a_witness_of_the_audit_log_only_moves_forward,
    transactions::a_transaction_sees_its_own_writes,
    transactions::a_refusal_leaves_nothing,
    transactions::a_panic_leaves_nothing_and_harms_nobody,
    transactions::a_conflict_inside_a_transaction_can_be_survived,
    transactions::a_read_sees_what_was_answered,
    transactions::a_read_that_panics_harms_nobody,
    transactions::values_come_back_from_closures,
    transactions::a_closed_store_says_so,
    transactions::accepted_writes_are_answered_before_it_closes,
    tasks::a_task_is_read_back_to_the_last_field,
    tasks::what_was_submitted_is_written_once,
    tasks::a_key_is_one_task_per_owner,
    tasks::tasks_are_paged_newest_first_and_filtered,
    tasks::claims_find_heads_keys_and_waiters,
    tasks::times_are_found_in_their_order,
    tasks::a_lane_is_there_for_as_long_as_a_task_is_in_it,
    tasks::a_refused_write_leaves_nothing_of_the_pool,
    tasks::only_ended_tasks_are_removed_with_all_that_is_theirs,
    tasks::evidence_is_bounded_and_timelines_are_kept_whole,
    schedules::a_schedule_is_read_back_to_the_last_field_and_removed,
    schedules::a_name_is_one_schedule_per_party,
    schedules::schedules_are_due_in_the_order_of_their_ticks,
    schedules::pauses_are_kept_and_removed_by_what_they_stop,
    files::an_operation_is_read_back_to_the_last_field,
    files::a_key_is_one_operation_per_caller_and_node,
    files::unsettled_operations_are_found_per_node_and_after_a_restart,
    files::ended_operations_go_in_the_order_of_their_ends_and_no_open_one_does,
    files::a_refused_write_leaves_nothing_of_an_operation,
    sync::workspaces_and_members_are_read_back_to_the_last_field,
    sync::names_and_folders_are_of_one_live_row_each,
    sync::of_two_who_saw_one_head_one_moves_it_and_the_other_is_told,
    sync::history_is_paged_newest_first_and_thinned_and_never_loses_the_head,
    sync::conflicts_are_bounded_and_go_with_their_member,
    sync::revisions_of_skills_follow_one_another_and_are_bounded,
    sync::a_folder_follows_one_skill_until_its_mount_is_removed,
    sync::every_tree_that_is_to_stay_is_named_and_no_other,
    sync::a_refused_write_leaves_nothing_of_workspaces_and_skills,
    sync::r16_6_of_32_promoters_one_wins_and_31_are_told,
    sync::the_library_and_the_workspaces_are_bounded,
    logs::events_are_numbered_without_holes_whatever_fails_beside_them,
    logs::the_hook_hears_commits_in_order_and_before_the_callers,
    logs::events_are_paged_by_number,
    logs::what_follows_a_commit_is_done_before_the_hook_hears_and_not_for_what_failed,
    logs::events_are_trimmed_from_the_front_in_batches,
    logs::numbers_go_on_after_everything_was_trimmed,
    logs::a_refused_trim_brings_the_events_back,
    logs::audit_rows_are_chained,
    logs::audit_rows_are_filtered,
    logs::the_hook_hears_of_the_newest_audit_row,
}
