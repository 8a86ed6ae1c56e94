"""What `ogate run` asks a person before a session, and whether it has to.

The invariant: nothing is asked where nobody can answer; then an error names the flag.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_gate.cli import registry
from opencode_gate.cli.render import talk
from opencode_gate.cli.run_view import budget_line
from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_gate.agents.opencode.arguments import AgentArguments
    from opencode_gate.agents.opencode.locate import Installation
    from opencode_gate.config.paths import Paths
    from opencode_gate.config.settings import Settings
    from opencode_gate.session.choices import Choice
    from opencode_gate.session.discovery import Discovery, UsableProvider
    from opencode_gate.session.naming import RunRequest
    from opencode_gate.session.run_rules import RunRules


def found_agent(
    where: "Paths", settings: "Settings", *, install: bool, can_ask: bool
) -> "Installation":
    """Opencode as it is installed, or now is because the person wants it so.

    Raises:
        AgentMissing: it is not, and stays so.
    """
    from opencode_gate.agents.opencode.locate import (
        find_opencode,
        install_global,
        install_private,
    )
    from opencode_gate.core.errors import AgentMissing

    try:
        return find_opencode(where, os.environ, agent_path=settings.run.agent_path)
    except AgentMissing:
        if settings.run.agent_path is not None:
            # Another copy would not be the one that is asked for.
            raise
        if install:
            talk("ogate · installing a private copy of Opencode (npm)")
            return install_private(where, os.environ)
        if not can_ask:
            raise
        from opencode_gate.cli.wizard import ask_install

        match ask_install():
            case "private":
                return install_private(where, os.environ)
            case "npm":
                install_global(os.environ)
                return find_opencode(where, os.environ, agent_path=settings.run.agent_path)
            case None:
                raise


def must_ask(
    request: "RunRequest",
    arguments: "AgentArguments",
    chosen: "Choice | None",
    last: "Choice | None",
    discovery: "Discovery",
    *,
    can_ask: bool,
) -> bool:
    """Whether the wizard is shown; an error names the flag where it would have to be and cannot."""
    if arguments.model is not None or arguments.session is not None or arguments.continue_last:
        return False
    if chosen is not None:
        if chosen.model_id is not None:
            return False
        if not can_ask:
            raise UsageError(
                "no-terminal",
                f"which model of {chosen.provider_id}?",
                hint=f"add --model; ogate models list {chosen.provider_id} shows them",
            )
        return True
    if can_ask:
        return last is None or registry.is_bare()
    if last is None and not any(map(_is_the_users_own, discovery.usable.values())):
        raise UsageError(
            "no-terminal",
            "no provider has a key, and there is no terminal to ask on",
            hint="ogate keys add PROVIDER, or --provider practice for a scripted model",
        )
    return False


def _is_the_users_own(found: "UsableProvider") -> bool:
    """A provider there is a key for, or a server the user has: not one that is offered to all."""
    return found.source.kind != "none" or found.row.source in ("config", "agent", "local")


def asked_choice(
    discovery: "Discovery",
    where: "Paths",
    settings: "Settings",
    agent: "Installation",
    folder: Path,
    rules: "RunRules",
    *,
    start: "Choice | None",
    is_complete: bool,
) -> "Choice":
    """What the person chooses in the wizard, which begins with `start`."""
    from opencode_gate.cli.wizard import ask
    from opencode_gate.session.run_rules import standings_before
    from opencode_gate.session.setup import Setup

    last_used = (
        {} if start is None or start.model_id is None else {start.provider_id: start.model_id}
    )
    setup = Setup(
        discovery, where, settings, os.environ, last_used=last_used, is_complete=is_complete
    )
    budget = budget_line(standings_before(rules, where))
    return ask(setup.offer(folder, agent.version, budget=budget), setup, start=start)


def sign_ins_answered(
    where: "Paths",
    settings: "Settings",
    find: "Callable[[Settings], Discovery]",
    *,
    can_ask: bool,
) -> "tuple[Settings, Discovery]":
    """A subscription is never replaced by a paid key, nor the other way round, without a word."""
    from opencode_gate.session.plan import unanswered_sign_ins

    discovery = find(settings)
    unanswered = unanswered_sign_ins(discovery)
    if not unanswered:
        return settings, discovery
    if not can_ask:
        raise UsageError(
            "unanswered-sign-in",
            f"Opencode is signed in to {unanswered[0]}, and there is a key for it too: "
            "which shall be used?",
            hint=f"ogate providers edit {unanswered[0]} --subscription direct|key",
        )
    from opencode_gate.cli.wizard import ask_subscription
    from opencode_gate.config.editing import set_values

    for provider_id in unanswered:
        answer = ask_subscription(discovery.catalogue.provider(provider_id).name)
        if answer is None:
            raise KeyboardInterrupt
        settings = set_values(where, {("providers", provider_id, "subscription"): answer})
    return settings, find(settings)
