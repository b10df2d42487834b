"""What other fleets' users suffered from, and the tests that keep it from happening here.

The letters are those of our list of lessons from the field (hawkBit, AWS IoT, ThingsBoard, zigbee2mqtt, openmv-ota and
others). A test that moves or gets another name has to be found again here.
"""

import ast
from pathlib import Path
from string import ascii_lowercase
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parent
FLOOD = "integration/test_retained_flood.py"
MIGRATIONS = "integration/test_migrations.py"

# Letter: what must not happen; the tests as file::function.
REGRESSIONS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "a": (
        "power cut mid-download, boots the old version: the assignment is offered again, never done",
        (
            "integration/test_ota.py::test_a_power_cut_mid_download_returns_to_offered_and_is_never_done",
            "e2e/test_main_job.py::test_a_camera_whose_power_is_cut_again_and_again_ends_up_with_the_new_model",
        ),
    ),
    "b": (
        "success only from the target's digest and the confirmation, never from being reachable",
        (
            "unit/domain/test_assignment.py::test_confirmed_with_another_digest_is_not_success",
            "unit/domain/test_assignment.py::test_a_status_that_names_something_else_is_not_success",
            "integration/test_ota.py::test_success_comes_from_digest_and_confirmation_never_from_being_there",
        ),
    ),
    "c": (
        "first offer or reply lost: made up for",
        (
            "integration/test_ota.py::test_a_lost_offer_is_made_again_by_the_next_session_with_the_broker",
            "integration/test_ota.py::test_a_lost_confirmation_is_found_in_the_cameras_status",
        ),
    ),
    "d": (
        "a transfer that gives up ends with a reason, and the agent lives on",
        (
            "agent/test_updater.py::test_without_any_progress_the_transfer_is_given_up_and_tried_again_later",
            "integration/test_pace.py::test_a_broken_link_is_tried_again_by_itself_and_succeeds",
        ),
    ),
    "e": (
        "fleetd killed at each database write or publish of a rollout: it goes on",
        (
            "integration/test_ota.py::test_being_killed_at_any_commit_comes_to_the_same_end",
            "integration/test_ota.py::test_being_killed_at_any_publish_comes_to_the_same_end",
        ),
    ),
    "f": (
        "the clock jumps by years: nothing is carried out twice, and nothing waits for years",
        (
            "integration/test_ota.py::test_a_clock_that_jumps_executes_nothing_twice_and_loses_nobody",
            "integration/test_model_health.py::test_a_clock_that_was_set_back_years_does_not_stop_the_watch_for_years",
            "unit/test_jobs.py::test_a_clock_that_is_set_back_does_not_stop_the_jobs",
        ),
    ),
    "g": (
        "the same state message twice: one action",
        ("unit/domain/test_assignment.py::test_the_same_report_read_twice_is_one_change",),
    ),
    "h": (
        "kicked right after CONNACK: backoff still applies",
        (
            "attacks/test_broker.py::test_a_broker_that_hangs_up_after_every_connack_is_not_hammered",
            "agent/test_link.py::test_being_kicked_is_counted_and_named",
        ),
    ),
    "i": (
        "two cameras with one name: shown, not merged",
        ("integration/test_incidents.py::test_two_devices_with_one_name_are_shown_a_reboot_is_not",),
    ),
    "j": (
        "a start beside thousands of retained messages: bounded memory, no stampede",
        (f"{FLOOD}::test_thousands_of_retained_messages_at_a_start_are_taken_in_bounded_pieces",),
    ),
    "k": (
        "cancel reaches cameras that are transferring",
        ("integration/test_ota.py::test_cancelling_reaches_a_camera_that_is_transferring",),
    ),
    "l": (
        "the retry budget survives leaving and rejoining a group",
        ("integration/test_pace.py::test_the_retry_budget_survives_leaving_and_rejoining_a_group",),
    ),
    "m": (
        "a block or base that does not match is followed by the full encoding",
        (
            "agent/test_updater.py::test_a_patch_that_does_not_fit_is_followed_by_the_full_encoding",
            "agent/test_updater.py::test_patch_blocks_that_stay_wrong_are_followed_by_the_full_encoding",
            "e2e/test_patches.py::test_a_patch_that_does_not_lead_to_the_content_is_followed_by_the_full_encoding",
        ),
    ),
    "n": (
        "online with a picture that never changes is frozen",
        (
            "integration/test_incidents.py::test_a_picture_that_never_changes_is_frozen_one_without_a_model_is_not",
        ),
    ),
    "o": (
        "silent after an update counts as failure, also after the confirmation",
        (
            "unit/domain/test_assignment.py::test_silence_after_an_offer_was_taken_up_is_lost",
            "integration/test_model_health.py::test_cameras_that_confirm_and_then_fall_silent_halt_it",
        ),
    ),
    "p": (
        "a camera that reverted is not offered the same release again",
        (
            "integration/test_ota.py::test_a_camera_that_reverted_is_not_offered_the_same_release_again",
            "integration/test_pace.py::test_a_rollout_that_has_ended_can_be_forgotten_but_not_what_was_reverted",
            "e2e/test_main_job.py::test_a_trial_that_crashes_the_board_goes_back_by_itself_and_is_not_offered_again",
        ),
    ),
    "q": (
        "on trial is not yet success",
        (
            "unit/domain/test_rollout.py::test_on_trial_or_offered_is_not_yet_success",
            "unit/domain/test_assignment.py::test_a_release_on_trial_is_not_yet_success",
        ),
    ),
    "r": (
        "a hundred cameras that go silent halt the rollout",
        ("integration/test_ota.py::test_a_hundred_cameras_that_go_silent_halt_the_rollout",),
    ),
    "s": (
        "reports count only from the camera's own authenticated lane",
        ("integration/test_ota.py::test_a_report_counts_only_for_the_camera_whose_lane_it_came_on",),
    ),
    "t": (
        "audit entries survive 16 concurrent writers",
        ("integration/test_registry.py::test_audit_entries_survive_sixteen_concurrent_writers",),
    ),
    "u": (
        "an interrupted migration can be resumed",
        (
            f"{MIGRATIONS}::test_a_migration_that_breaks_half_way_leaves_the_database_as_it_was_and_can_be_resumed",
        ),
    ),
}


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_lesson_has_its_tests() -> None:
    assert list(REGRESSIONS) == list(ascii_lowercase[: ascii_lowercase.index("u") + 1])
    assert all(what and tests for what, tests in REGRESSIONS.values())


@pytest.mark.parametrize(
    "place", sorted({place for _, tests in REGRESSIONS.values() for place in tests}), ids=lambda one: one
)
def test_a_test_that_the_list_names_exists(place: str) -> None:
    file, _, name = place.partition("::")
    assert name in functions(ROOT / file), f"{place} moved or has another name"
