"""Runs the wizard on made-up providers, for tests that look at the real screen.

`python -m tests.support.wizard_driver [--start PROVIDER [MODEL]] [--log FILE]` prints the choice
as JSON on stdout and writes one line per deed to the log, never a key. OpenRouter offers all
models of the whole catalogue.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from opencode_gate.cli.exit_codes import ExitCode
from opencode_gate.core.errors import CredentialError, UpstreamError
from opencode_gate.core.secrets import Secret
from opencode_gate.session.choices import Choice
from opencode_gate.session.options import (
    ModelOption,
    Offer,
    ProviderGroup,
    ProviderOption,
    model_options,
)

MODELS_IN_CATALOGUE = 8261
GOOD_KEY = "sk-good-0123456789abcd"

PROVIDERS = (
    ProviderOption(id="anthropic", name="Anthropic", group=ProviderGroup.READY, where="OS keyring"),
    ProviderOption(
        id="openai",
        name="OpenAI",
        group=ProviderGroup.READY,
        where="OPENAI_API_KEY",
        can_import=True,
    ),
    ProviderOption(
        id="openrouter",
        name="OpenRouter",
        group=ProviderGroup.READY,
        where="Opencode's auth.json",
        can_import=True,
    ),
    ProviderOption(id="ollama", name="Ollama", group=ProviderGroup.LOCAL, where="local server"),
    ProviderOption(
        id="opencode", name="OpenCode Zen", group=ProviderGroup.FREE, where="free, no account"
    ),
    ProviderOption(
        id="practice",
        name="Practice",
        group=ProviderGroup.PRACTICE,
        where="scripted practice model, no key",
    ),
    ProviderOption(
        id="groq",
        name="Groq",
        group=ProviderGroup.OTHER,
        needs_key=True,
        key_page="https://console.groq.com/keys",
        key_variable="GROQ_API_KEY",
    ),
    ProviderOption(
        id="workers",
        name="Cloudflare Workers",
        group=ProviderGroup.OTHER,
        needs_key=True,
        missing_variables=("CLOUDFLARE_ACCOUNT_ID",),
    ),
    ProviderOption(
        id="amazon-bedrock",
        name="Amazon Bedrock",
        group=ProviderGroup.UNSUPPORTED,
        why_not="its requests are signed, which the gateway cannot do yet",
    ),
    *(
        ProviderOption(
            id=f"other-{n}", name=f"Other {n}", group=ProviderGroup.OTHER, needs_key=n > 0
        )
        for n in range(200)
    ),
)


def many_models(count: int = MODELS_IN_CATALOGUE) -> list[ModelOption]:
    """As many models as the whole catalogue has, with every kind of missing fact."""
    return [
        ModelOption(
            id=f"vendor-{n % 60}/model-{n}{'-flash' if n % 7 == 0 else ''}",
            name=f"Model {n}",
            family="gemini-flash" if n % 500 == 499 else None,
            release_date=f"2026-0{1 + n % 9}-01",
            context_tokens=None if n % 11 == 0 else 1000 * (1 + n % 1000),
            input_usd_per_million=None if n % 13 == 0 else Decimal(n % 40) / 8,
            output_usd_per_million=None if n % 13 == 0 else Decimal(n % 40),
            tool_call=None if n % 17 == 0 else n % 5 != 0,
            is_last_used=n == 0,
        )
        for n in range(count)
    ]


CLAUDES = (
    ModelOption(
        id="claude-sonnet-5",
        name="Claude Sonnet 5",
        family="claude-sonnet",
        release_date="2026-08-01",
        context_tokens=1_000_000,
        input_usd_per_million=Decimal(3),
        output_usd_per_million=Decimal(15),
        tool_call=True,
    ),
    ModelOption(
        id="claude-haiku-5",
        name="Claude Haiku 5",
        family="claude-haiku",
        release_date="2026-07-01",
        context_tokens=200_000,
        input_usd_per_million=Decimal(1),
        output_usd_per_million=Decimal(5),
        tool_call=True,
    ),
)


def catalogue_models() -> list[ModelOption]:
    """Every model of every provider of the bundled catalogue, as one long list."""
    from opencode_gate.catalog.catalogue import open_catalogue
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import Settings

    catalogue = open_catalogue(paths(), Settings(), {})
    rows = [
        replace(row, id=f"{provider_id}/{row.id}")
        for provider_id in catalogue.providers()
        for row in catalogue.models(provider_id).values()
    ]
    return model_options(rows)


class RecordedDeeds:
    """Deeds that write down what was done instead of doing it."""

    def __init__(
        self,
        log: Path | None = None,
        all_models: Callable[[], list[ModelOption]] = many_models,
    ) -> None:
        self.all_models = all_models
        self.log = log
        self.done: list[str] = []
        self.storing_fails = 0

    def _note(self, line: str) -> None:
        self.done.append(line)
        if self.log is not None:
            with self.log.open("a") as stream:
                stream.write(line + "\n")

    def models_of(self, provider_id: str) -> Sequence[ModelOption]:
        if provider_id == "ollama":
            raise UpstreamError(
                "upstream-unreachable", "Ollama did not answer", hint="ollama serve"
            )
        if provider_id == "openrouter":
            return self.all_models()
        if provider_id == "practice":
            free = Decimal(0)
            return [
                ModelOption(
                    id="scripted",
                    name="Scripted practice model",
                    input_usd_per_million=free,
                    output_usd_per_million=free,
                    tool_call=True,
                )
            ]
        if provider_id == "other-0":
            return []
        return CLAUDES

    def check_key(self, provider_id: str, key: Secret) -> str | None:
        self._note(f"check {provider_id} …{key.last_four}")
        return None if key.reveal() == GOOD_KEY else "the provider refused this key (401)"

    def store_key(self, provider_id: str, key: Secret) -> None:
        if self.storing_fails:
            self.storing_fails -= 1
            raise CredentialError("keyring-locked", "the keyring is locked", hint="unlock it")
        self._note(f"store {provider_id} …{key.last_four}")

    def store_variables(self, provider_id: str, variables: Mapping[str, str]) -> None:
        self._note(f"variables {provider_id} {json.dumps(dict(variables))}")

    def import_key(self, provider_id: str) -> str:
        if provider_id == "openrouter":
            raise CredentialError("no-keyring", "this machine has no keyring", hint="use a file")
        self._note(f"import {provider_id}")
        return "OS keyring"


def offer() -> Offer:
    """What the driver offers."""
    return Offer(
        folder=Path("/home/you/my-repo"),
        agent_version="1.18.33",
        providers=PROVIDERS,
        keys_in_use=("OPENAI_API_KEY",),
        budget="session $0 of $5.00 · today $6.40 of $20.00",
    )


def main() -> int:
    """Asks, prints the choice, and ends as `ogate` does."""
    from opencode_gate.cli.wizard import ask

    parser = argparse.ArgumentParser()
    parser.add_argument("--start", nargs="+", default=[])
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    start = None
    if arguments.start:
        model_id = arguments.start[1] if len(arguments.start) > 1 else None
        start = Choice(provider_id=arguments.start[0], model_id=model_id)
    try:
        deeds = RecordedDeeds(arguments.log, catalogue_models)
        choice = ask(offer(), deeds, start=start)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    json.dump(
        {
            "provider": choice.provider_id,
            "model": choice.model_id,
            "small_model": choice.small_model_id,
        },
        sys.stdout,
    )
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
