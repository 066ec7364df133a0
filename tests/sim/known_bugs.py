"""Bugs that other orchestrators had, put back one at a time: where each was seen, what is patched, which plot shows it, and the
checker's rule that must find it.

Rules: a bug is a patch of the product's code (known_bugs_patches.py), done and undone by pytest's monkeypatch: the product has
no flags for it. The plot (known_bugs_plots.py) has the seed. Issues are cited where somebody reported just this or what leads
to it; the others are described.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from tests.sim import known_bugs_patches as bug
from tests.sim import known_bugs_plots as plots
from tests.sim.known_bugs_world import Plot

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Bug:
    """`name`: as a test's id. `seen`: where in the world. `patched`: what is broken on purpose. `rule`: the checker's."""

    name: str
    seen: str
    patched: str
    patch: Patch
    plot: Plot
    rule: str


BUGS: Final = (
    Bug(
        "stale endpoint",
        "Swarm: moby#25985, addresses of what was removed stay behind a service's address",
        "removed services are not named in the differences of endpoints",
        bug.removals_are_not_told, plots.ENDPOINTS, "stale endpoint",
    ),
    Bug(
        "address reused before it is forgotten",
        "Swarm: moby#52661, the next container has it while others have stale entries",
        "the floor waits for nobody, the lowest free address comes first",
        bug.addresses_are_reused_at_once, plots.ENDPOINTS, "stale endpoint",
    ),
    Bug(
        "stop without drain",
        "Swarm: moby#26672, a container stays in rotation while it is stopped",
        "no stop waits until its endpoint is forgotten",
        bug.nobody_drains, plots.ENDPOINTS, "stopped while sent to",
    ),
    Bug(
        "address leak",
        "Swarm: moby#30986, swarmkit#3230, addresses of removed containers are never free again",
        "an address is not given back",
        bug.addresses_are_not_given_back, plots.ENDPOINTS, "left over",
    ),
    Bug(
        "network slice given twice",
        "Kubernetes: #21458, #29058, nodes with the same podCIDR",
        "a slice that was given is not noted",
        bug.slices_are_given_twice, plots.ENDPOINTS, "subnet",
    ),
    Bug(
        "duplicate after heal",
        "classic Swarm: #1651, after a partition there are several copies",
        "the surplus is never trimmed",
        bug.surplus_stays, plots.LOST_NODE, "surplus",
    ),
    Bug(
        "removed service stays on a lost node",
        "a node that was away starts again what was removed meanwhile",
        "assignments of nodes that are down are not touched",
        bug.lost_nodes_keep_what_is_removed, plots.LOST_NODE, "left over",
    ),
    Bug(
        "removed node counts for ever",
        "Swarm: moby#37320, ghost tasks of removed nodes are still running",
        "what a removed node had counts on",
        bug.removed_nodes_count, plots.NODES, "left over",
    ),
    Bug(
        "drained node takes more",
        "Swarm: docker/cli#877 and swarmkit#134, nodes that are not active were scheduled on",
        "what a person said of a node is not looked at",
        bug.drained_nodes_take_more, plots.NODES, "placement",
    ),
    Bug(
        "global service misses a node",
        "Nomad: #1104, #27495, system jobs do not come to nodes that are eligible again",
        "changes of nodes make no service dirty",
        bug.nodes_that_come_are_not_noticed, plots.NODES, "spec not reached",
    ),
    Bug(
        "everything moved after a failover",
        "Nomad: #3840, all jobs reallocated when the leader changed",
        "silence counts from the joining, also for a new leader",
        bug.silence_counts_from_the_beginning, plots.FAILOVER, "down without reason",
    ),
    Bug(
        "two leaders",
        "Kubernetes: #23731, the old leader goes on after it lost the lock",
        "the leader's key guards no write, and nobody looks at the clock",
        bug.the_key_guards_nothing, plots.FAILOVER, "two leaders",
    ),
    Bug(
        "overcommitted after a failover",
        "Nomad: #13064 has such nodes; here a new leader's account of the nodes begins empty",
        "what was assigned before the reign reserves nothing",
        bug.a_new_leader_finds_all_nodes_empty, plots.FAILOVER, "capacity",
    ),
    Bug(
        "everything moved when most are silent",
        "Kubernetes: #24597, #28832, pods evicted en masse: it was the master that was cut off",
        "losing most nodes at once is no sign of anything",
        bug.losing_most_is_no_sign, plots.MOST_SILENT, "mass move",
    ),
    Bug(
        "port given twice",
        "Nomad: #25413, the same static port twice on one node",
        "nobody looks who has a port",
        bug.ports_are_not_looked_at, plots.ROOM, "port",
    ),
    Bug(
        "volume left behind",
        "Swarm: moby#33080, a task is moved and finds an empty local volume",
        "the place of a volume is not looked at",
        bug.volumes_are_left_behind, plots.ROOM, "volume",
    ),
    Bug(
        "restart storm",
        "Marathon: #1504, no back-off for what runs a moment and fails",
        "no wait between restarts",
        bug.no_back_off, plots.UPDATE, "restart storm",
    ),
    Bug(
        "failing update goes on",
        "Swarm: moby#24943, updates went on although the new tasks failed",
        "every update continues",
        bug.failing_updates_go_on, plots.UPDATE, "update not paused",
    ),
    Bug(
        "clock of a node stops an update",
        "Kubernetes: #29229, #77208, skew between node and master in a rolling update",
        "times told by agents are believed",
        bug.agents_clocks_are_believed, plots.CLOCK, "spec not reached",
    ),
    Bug(
        "agent's restart ends containers",
        "Nomad: #9705, allocations are lost after the client was restarted",
        "what runs is not adopted",
        bug.running_containers_are_not_adopted, plots.AGENTS, "stopped without reason",
    ),
    Bug(
        "half-made container leaks",
        "Kata: kata-containers#5246, a create that a restart interrupts is leaked",
        "a container is not noted before it is made, orphans stay",
        bug.half_made_containers_are_forgotten, plots.AGENTS, "left over",
    ),
    Bug(
        "job run twice",
        "Nomad: #5883, #10449, completed allocations run again after the agent's restart",
        "an ended container is begun anew",
        bug.ended_jobs_begin_anew, plots.AGENTS, "job run twice",
    ),
    Bug(
        "unwritten container is an orphan",
        "an agent whose disk was full kills at its restart what it could not write down",
        "running containers without a journal entry are orphans",
        bug.unwritten_containers_are_orphans, plots.FULL_DISK, "stopped without reason",
    ),
    Bug(
        "scale-in on missing metrics",
        "an autoscaler that takes no answer for no load gives its replicas away",
        "what is missing is zero",
        bug.what_is_missing_is_nothing, plots.SCALING, "scaled in on missing metrics",
    ),
    Bug(
        "some silent nodes",
        "found here: connections are added up over nodes that speak; who says nothing was taken for one without callers",
        "a node that says nothing makes nothing unknown",
        bug.silent_nodes_have_no_callers, plots.SILENT, "scaled in on missing metrics",
    ),
    Bug(
        "scaled twice",
        "what was ordered and does not serve yet is ordered again with each look",
        "starting replicas do not count",
        bug.starting_replicas_do_not_count, plots.SCALING, "scaled out beyond the load",
    ),
    Bug(
        "apply resets the count",
        "deploying a file that names replicas undoes what the autoscaler did, in the middle of the load",
        "apply sets the file's count",
        bug.apply_sets_the_count, plots.SCALING, "count reset",
    ),
    Bug(
        "unknown taken for done",
        "a write whose answer is lost is told as accepted",
        "an unknown outcome is success",
        bug.unknown_is_taken_for_done, plots.UNKNOWN, "lost update",
    ),
    Bug(
        "unknown taken for failed",
        "etcd: #17332, a timeout reads like a failure and the write may have happened",
        "an unknown outcome is a refusal",
        bug.unknown_is_taken_for_failed, plots.UNKNOWN, "lost update",
    ),
    Bug(
        "lost update by a stale read",
        "an edit of what a cache says overwrites what another one wrote a moment ago",
        "the API edits what its picture shows",
        bug.what_is_edited_is_an_old_picture, plots.LATE_WATCH, "lost update",
    ),
    Bug(
        "lost watch event",
        "Kubernetes: kube-state-metrics#402, two caches of one API drift apart",
        "the mirror never compares itself",
        bug.lost_changes_stay_lost, plots.LOST_WATCH, "spec not reached",
    ),
)  # fmt: skip
