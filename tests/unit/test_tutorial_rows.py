"""Which test shows which row of the two tutorials' list (issue 6: images, registries, builds).

`python -m bench.builds` shows those of builds and rows 84 to 92 once more, with real node, nginx and Apache.

A row is here with the tests that would fail if its reader saw something else. What is missing stands in MISSING.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parents[1]
WAY = "e2e/test_e2e_images.py test_the_tutorials_way_with_images"
IN_USE = "e2e/test_e2e_images.py test_an_image_in_use_stays"
COMMIT = "e2e/test_e2e_images.py test_a_container_becomes_an_image_that_runs"
OWN = "e2e/test_e2e_registry.py test_the_tutorials_way_to_a_registry_of_ones_own"
LOGIN = "e2e/test_e2e_registry.py test_a_registry_behind_a_login"
TLS = "e2e/test_e2e_registry.py test_a_registry_with_tls_and_a_login"
KEPT = "contract/test_cli_login.py test_a_good_password_is_kept_as_docker_keeps_it"
REFUSED = "contract/test_cli_login.py test_a_bad_password_is_one_line_and_kept_nowhere"
ASKED = "contract/test_cli_login.py test_on_a_terminal_name_and_password_are_asked_for"
SEARCH = "contract/test_cli_login.py test_search_shows_what_the_registry_answers"
NO_SEARCH = "contract/test_cli_login.py test_a_registry_without_search_says_so_in_one_line"
PUSHED = "unit/test_cli_image.py test_a_push_is_told_as_docker_tells_it"
PULLED = "unit/test_cli_image.py test_a_pull_is_told_as_docker_tells_it"
UP_TO_DATE = "unit/test_cli_image.py test_a_pull_of_what_all_nodes_have_is_up_to_date"
SKOPEO = "root/test_images_push.py test_what_skopeo_pushed_is_pushed_on_with_equal_digests"
NOT_AGAIN = "root/test_images_push.py test_what_was_loaded_is_pushed_and_what_is_there_is_not_sent_again"
LISTED = "unit/test_cli_image.py test_an_image_is_a_row_for_each_name"
SINGLE = "e2e/test_e2e_containers.py test_run_detached_exec_logs_stop_start_rm"
STACK = "e2e/test_e2e_stack.py test_apply_plan_scale_and_remove"
BUILD = "e2e/test_e2e_build.py test_apply_builds_and_runs_what_was_built"
FAILING = "e2e/test_e2e_build.py test_what_fails_is_a_line_and_the_commands_code"
STAGES = "root/test_build.py test_stages_arguments_here_documents_and_a_health_check"
TUTORIAL = "unit/test_dockerfile.py test_the_tutorials_stages"

ROWS: Final[dict[int, tuple[str, ...]]] = {
    1: (BUILD, FAILING),
    2: (COMMIT, "unit/test_images_commit.py test_a_container_becomes_one_layer_and_one_step"),
    3: (OWN, WAY),
    5: (KEPT, REFUSED, LOGIN),
    8: (SEARCH,),
    9: ("unit/test_images_describe.py test_inspect_has_dockers_keys", WAY),
    10: (WAY, "unit/test_cli_template.py test_values_are_printed_as_go_prints_them"),
    11: (WAY,),
    12: (BUILD, "unit/test_agent_build.py test_a_config_is_kept_without_what_was_random"),
    13: (BUILD, STAGES),
    14: (WAY, "unit/test_images_describe.py test_history_is_newest_first_and_only_its_top_has_an_id"),
    15: (BUILD, COMMIT, "unit/test_images_describe.py test_history_is_newest_first_and_only_its_top_has_an_id"),
    17: (WAY, OWN),
    19: (ASKED, KEPT),
    21: (LOGIN, TLS, KEPT),
    22: (WAY, "root/test_images_hostile.py test_a_lying_registry_gets_nothing_but_what_is_its_own"),
    23: (WAY, PUSHED, SKOPEO),
    24: (WAY, NOT_AGAIN),
    26: (OWN,),
    27: (SEARCH, NO_SEARCH),
    28: (SINGLE,),
    29: (IN_USE, "unit/test_images_rows.py test_an_image_in_use_is_refused_in_dockers_words"),
    30: (IN_USE, "unit/test_images_rows.py test_by_force_what_only_stopped_containers_use_goes"),
    31: (WAY, PULLED),
    32: (WAY, LISTED),
    33: (OWN, SINGLE),
    34: (OWN,),
    35: (OWN, "contract/test_images_registry.py test_what_is_pushed_can_be_pulled"),
    36: (OWN,),
    37: (OWN,),
    38: (
        OWN,
        "e2e/test_e2e_failures.py test_a_killed_container_is_back_within_two_seconds",
        "e2e/test_e2e_failures.py test_killing_daemons_in_turn_and_together_restarts_no_container_and_loses_no_exit_code",
        "unit/test_agent_restart.py test_the_condition_decides",
    ),
    39: (OWN,),
    40: (OWN,),
    41: (OWN, WAY),
    42: (OWN,),
    43: (
        LOGIN, TLS, "root/test_images_push.py test_passwords_and_tls",
        "root/test_images_push.py test_another_storage_of_the_registry_is_a_variable_away",
    ),
    44: ("contract/test_project_wheel.py test_in_a_clean_environment_the_launcher_finds_the_wheels_folders", STACK),
    45: (WAY, "root/test_images_service.py test_what_is_saved_loads_elsewhere_with_the_same_names_and_digests"),
    46: (OWN,),
    47: (STACK,),
    98: (STACK, "unit/test_images_rows.py test_the_same_image_on_several_nodes_is_one"),
    **dict.fromkeys((84, 85, 88, 89, 90, 91, 92), (BUILD,)),
    99: (BUILD, TUTORIAL),
    100: (BUILD, STAGES),
    101: (STAGES, TUTORIAL),
    102: (STAGES,),
    103: (STAGES, TUTORIAL),
    104: (FAILING, "root/test_build.py test_a_step_that_fails_is_told_in_dockers_words"),
    105: (BUILD, STAGES),
    106: (BUILD, STAGES),
    107: (BUILD,),
    108: (STAGES, TUTORIAL),
    109: (OWN, WAY),
    110: (WAY, LISTED),
    111: (WAY, OWN),
    112: (ASKED,),
    113: (WAY, PUSHED),
    115: (WAY, PULLED),
    116: (WAY, UP_TO_DATE, "root/test_images_service.py test_a_pull_says_which_layers_were_there"),
    117: (WAY,),
    118: (WAY, "unit/test_cli_image.py test_names_and_filters_are_dockers"),
}
MISSING: Final = {
    114: "the hosted hub's page, with rows 4, 6, 7, 16, 18, 20 and 25",
}


@pytest.mark.parametrize("row", ROWS)
def test_the_tests_of_a_row_are_there(row: int) -> None:
    for place in ROWS[row]:
        file, name = place.split()
        tree = ast.parse((TESTS / file).read_text())
        assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}, place


def test_every_row_is_shown_or_said_to_be_missing() -> None:
    wanted = {1, 2, 3, 5, *range(8, 16), 17, 19, *range(21, 25), *range(26, 48), *range(98, 119)}
    assert wanted <= set(ROWS) | set(MISSING)
