"""Filter that holds back releases which a rollback has left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = """
name: held_back
short_description: Hold back releases which a rollback has left
description:
  - A release that has served and was left, by a rollback or by a run that failed, is not deployed again.
    What serves instead stays, until the content of the app changes.
  - Where no other release of the app serves, nothing is held back.
positional: _input, hosts, releases
options:
  _input:
    description: The variables of all hosts, with C(gunicorn_listed) as the role gunicorn lists it.
    type: dict
    required: true
  hosts: {description: The backends of the run., type: list, elements: str, required: true}
  releases: {description: Release ids to deploy, by the name of the app., type: dict, required: true}
"""

EXAMPLES = """
- name: Hold back what a rollback has left
  ansible.builtin.set_fact:
    held: "{{ hostvars | held_back(ansible_play_hosts, gunicorn_releases) }}"
"""

RETURN = """
_value:
  description:
    - C(hosts) has for each host the release that stays, by the name of the app.
    - C(apps) has for each app that is held back C(release), C(stays) and C(why).
    - C(problem) says on which host an app has no release that could stay; empty if there is none.
  type: dict
"""


def held_back(
    hostvars: Mapping[str, Any], hosts: Sequence[str], releases: Mapping[str, str]
) -> dict[str, Any]:
    """Choose what stays where a release is held back.

    Args:
        hostvars: The variables of all hosts, with `gunicorn_listed`.
        hosts: The backends of the run. One that could not list its releases is left out.
        releases: Release ids that are to be deployed, by the name of the app.

    Returns:
        `hosts`, the release that stays by host and app; `apps`, by app the release that is held back, what
        stays and why; `problem`, what cannot be held back, or an empty text.
    """
    stays: dict[str, dict[str, str]] = {host: {} for host in hosts}
    apps: dict[str, dict[str, str]] = {}
    problems = []
    listed = {host: (hostvars[host].get("gunicorn_listed") or {}).get("apps") for host in hosts}
    for app, release in releases.items():
        told = {host: found.get(app) or {} for host, found in listed.items() if found is not None}
        reasons = [found["held"][release] for found in told.values() if release in found.get("held", {})]
        others = {
            host: found.get("now") for host, found in told.items() if found.get("now") not in (None, release)
        }
        if not reasons or not others:
            continue
        # The last one that went into service, should the hosts differ.
        stay = max(others.values(), key=lambda one: max(_good_since(found, one) for found in told.values()))
        apps[app] = {"release": release, "stays": stay, "why": reasons[0].partition("\n")[0]}
        for host, found in told.items():
            if any(one["release"] == stay for one in found.get("releases", [])):
                stays[host][app] = stay
            elif host in others:
                stays[host][app] = others[host]
            else:
                problems.append(
                    f"{app} {release} is held back ({apps[app]['why']}), and {host} does not have {stay},"
                    " which serves instead. Nothing was changed. Change the app, or deploy it all the same:"
                    " -e redeploy_bad=true"
                )
    return {"hosts": stays, "apps": apps, "problem": "\n".join(problems)}


def _good_since(found: Mapping[str, Any], release: str) -> float:
    """Tell when a host marked a release as good, in seconds; 0 if it did not."""
    return max(
        (one["good"] or 0 for one in found.get("releases", []) if one["release"] == release), default=0
    )


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"held_back": held_back}
