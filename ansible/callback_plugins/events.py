"""Tells what happens in a play as lines of JSON, for lib/ansible.ts. What tasks keep to themselves (no_log) is not among it."""

import json

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: events
    type: stdout
    short_description: JSON lines
    description: Each event of a play is one line of JSON on standard output.
"""

# What a result is told by: its own words, and how the program behind it ended.
TOLD = ("msg", "reason", "stderr", "rc")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "events"

    def _tell(self, event, **facts):
        self._display.display(json.dumps({"event": event, **facts}, default=str))

    def _result(self, event, result, **facts):
        found = result._result
        told = {key: found[key] for key in TOLD if found.get(key) not in (None, "")}
        self._tell(
            event,
            host=result._host.get_name(),
            task=result._task.get_name(),
            path=result._task.get_path(),
            **told,
            **facts,
        )

    def v2_playbook_on_play_start(self, play):
        self._tell("play", name=play.get_name())

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._tell("task", name=task.get_name())

    def v2_playbook_on_handler_task_start(self, task):
        self._tell("task", name=task.get_name())

    def v2_runner_on_ok(self, result):
        if result._result.get("changed", False):
            self._result("changed", result, diff=self._diff(result))

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if not ignore_errors:
            # The loop's own words only say that one of its items failed.
            for item in result._result.get("results", []):
                if item.get("failed"):
                    result._result.update({key: item[key] for key in TOLD if key in item})
            self._result("failed", result)

    def v2_runner_on_unreachable(self, result):
        self._result("unreachable", result)

    def v2_playbook_on_stats(self, stats):
        hosts = sorted(stats.processed)
        self._tell("recap", hosts={host: stats.summarize(host) for host in hosts})

    def _diff(self, result):
        found = result._result
        parts = [one.get("diff") for one in found.get("results", [])] + [found.get("diff")]
        return "\n".join(self._get_diff(part).strip() for part in parts if part)
