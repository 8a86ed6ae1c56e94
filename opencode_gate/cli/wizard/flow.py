"""The four steps and the way between them.

The idea: each step takes the draft of a choice and gives the next step with a new draft; going
back restores the draft as it was. The invariant: new keys stay in memory until the person
starts the session on the last screen.
"""

from enum import Enum, auto

import msgspec
from msgspec.structs import replace

from opencode_gate.cli.render import talk
from opencode_gate.cli.wizard import columns
from opencode_gate.cli.wizard.key import ask_key, ask_variables, words_of
from opencode_gate.cli.wizard.matching import haystack
from opencode_gate.cli.wizard.ready import ask_ready
from opencode_gate.cli.wizard.search_list import ListAnswer, ListQuestion, SearchList
from opencode_gate.cli.wizard.terminal import Terminal, crumb, real_terminal
from opencode_gate.core.errors import GateError
from opencode_gate.core.secrets import Secret
from opencode_gate.session.choices import Choice
from opencode_gate.session.options import (
    Deeds,
    ModelOption,
    Offer,
    ProviderGroup,
    ProviderOption,
    order_providers,
    propose_small_model,
)


class Step(Enum):
    """The screens, in order."""

    PROVIDER = auto()
    KEY = auto()
    MODEL = auto()
    READY = auto()


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What is chosen so far."""

    provider_id: str | None = None
    model_id: str | None = None
    small_model_id: str | None = None


class Go(msgspec.Struct, frozen=True):
    """Where to go next, with what; `step` `None` means the session starts."""

    step: Step | None
    draft: Draft


def ask(
    offer: Offer, deeds: Deeds, *, start: Choice | None = None, terminal: Terminal | None = None
) -> Choice:
    """Asks what is missing and returns where the session starts; `model_id` is then set.

    `start` decides the first screen: nothing known shows the providers; a provider without a
    usable key its key step; a provider alone its models; a provider and a model the last screen
    (so a remembered choice costs one Enter). An id in it that does not exist counts as unknown.
    The result equals `start` when the person changed nothing. The caller remembers the result.

    Args:
        offer: what there is to choose from.
        deeds: what is fetched, checked and stored on the way; new keys are stored only after
            Enter on the last screen.
        start: what is known already (remembered, or from flags).
        terminal: the real one when left out.

    Raises:
        KeyboardInterrupt: Ctrl-C; nothing was stored.
    """
    return _Wizard(offer, deeds, terminal or real_terminal()).run(start)


class _Wizard:
    def __init__(self, offer: Offer, deeds: Deeds, terminal: Terminal) -> None:
        self._offer = offer
        self._deeds = deeds
        self._terminal = terminal
        self._providers = {option.id: option for option in order_providers(offer.providers)}
        self._models: dict[str, list[ModelOption]] = {}
        self._new_keys: dict[str, Secret] = {}
        self._new_variables: dict[str, dict[str, str]] = {}
        self._message: tuple[str, str] | None = None

    def run(self, start: Choice | None) -> Choice:
        screens = {
            Step.PROVIDER: self._provider_step,
            Step.KEY: self._key_step,
            Step.MODEL: self._model_step,
            Step.READY: self._ready_step,
        }
        here = self._first(start)
        trail: list[Go] = []
        while here.step is not None:
            moved = screens[here.step](here.draft)
            if moved is None:
                here = trail.pop() if trail else self._before(here)
                continue
            known = [passed.step for passed in trail]
            if moved.step in known:
                del trail[known.index(moved.step) :]
            elif moved.step is not here.step:
                trail.append(here)
            here = moved
        draft = here.draft
        assert draft.provider_id is not None
        agent = f"Opencode {self._offer.agent_version or ''}".rstrip()
        talk(f"ogate · starting {agent} with {draft.provider_id}/{draft.model_id}")
        return Choice(
            provider_id=draft.provider_id,
            model_id=draft.model_id,
            small_model_id=draft.small_model_id,
        )

    def _first(self, start: Choice | None) -> Go:
        option = None if start is None else self._providers.get(start.provider_id)
        if start is None or option is None or option.group is ProviderGroup.UNSUPPORTED:
            return Go(Step.PROVIDER, Draft())
        draft = Draft(provider_id=option.id)
        if self._lacks_something(option):
            return Go(Step.KEY, draft)
        models = self._models_or_message(option)
        if models is None:
            return Go(Step.PROVIDER, draft)
        if start.model_id is None or not any(model.id == start.model_id for model in models):
            return Go(Step.MODEL, draft)
        return Go(
            Step.READY,
            Draft(
                provider_id=option.id,
                model_id=start.model_id,
                small_model_id=start.small_model_id,
            ),
        )

    def _before(self, here: Go) -> Go:
        """Where Esc leads when the person has not come from anywhere."""
        return Go(Step.MODEL if here.step is Step.READY else Step.PROVIDER, here.draft)

    # -- provider -------------------------------------------------------------------------

    def _provider_step(self, draft: Draft) -> Go | None:
        pointer, typed = draft.provider_id, ""
        while True:
            options = [self._as_offered(option) for option in self._providers.values()]
            answer = self._ask_provider(options, pointer, typed)
            if answer.action == "back":
                return None
            if answer.index is None:
                continue
            option = options[answer.index]
            pointer, typed = option.id, answer.typed
            if answer.action == "import":
                self._import(option)
                continue
            if option.id != draft.provider_id:
                draft = Draft(provider_id=option.id)
            if self._lacks_something(option) and option.id not in self._new_keys:
                return Go(Step.KEY, draft)
            if (onward := self._towards_model(draft, option)) is not None:
                return onward

    def _ask_provider(
        self, options: list[ProviderOption], pointer: str | None, typed: str
    ) -> ListAnswer:
        ids = [option.id for option in options]
        question = ListQuestion(
            top=crumb(1, "Provider"),
            title="Where do the models come from?",
            haystacks=[haystack(option.name, option.id) for option in options],
            heading=columns.provider_heading,
            line=lambda index, width: columns.provider_line(options[index], width),
            detail=lambda index: columns.provider_detail(options[index], self._offer.key_store),
            refusal=lambda index: options[index].why_not,
            extra_keys={"tab": "import"},
            key_help=["tab copy key"] if any(option.can_import for option in options) else [],
        )
        style, text = self._taken_message()
        return SearchList(
            question,
            self._terminal,
            pointer_on=ids.index(pointer) if pointer in ids else 0,
            typed=typed,
            message=text,
            tone="done" if style == "class:done" else "problem",
        ).ask()

    def _as_offered(self, option: ProviderOption) -> ProviderOption:
        """`option` with a key that was entered but is not stored yet."""
        if option.id in self._new_keys:
            return replace(option, where="new key", group=ProviderGroup.READY)
        return option

    def _import(self, option: ProviderOption) -> None:
        if not option.can_import:
            self._message = ("class:problem", f"there is no key of {option.name} to copy")
            return
        try:
            where = self._deeds.import_key(option.id)
        except GateError as error:
            self._message = ("class:problem", words_of(error))
            return
        self._providers[option.id] = replace(option, where=where, can_import=False)
        self._message = ("class:done", f"the key of {option.name} is now in the {where}")

    def _lacks_something(self, option: ProviderOption) -> bool:
        return (option.needs_key and option.where is None) or bool(option.missing_variables)

    # -- key ------------------------------------------------------------------------------

    def _key_step(self, draft: Draft) -> Go | None:
        assert draft.provider_id is not None
        option = self._providers[draft.provider_id]
        variables = ask_variables(option, self._terminal)
        if variables is None:
            return None
        if option.needs_key and option.where is None:
            entered = self._new_keys.get(option.id)
            key = ask_key(option, self._offer, self._deeds, self._terminal, entered=entered)
            if key is None:
                return None
            self._new_keys[option.id] = key
        if variables:
            self._new_variables[option.id] = variables
        onward = self._towards_model(draft, option)
        return onward if onward is not None else Go(Step.PROVIDER, draft)

    # -- model ----------------------------------------------------------------------------

    def _towards_model(self, draft: Draft, option: ProviderOption) -> Go | None:
        """The model step, or past it where there is only one model; `None` with a message."""
        models = self._models_or_message(option)
        if models is None:
            return None
        if len(models) == 1:
            return self._with_model(draft, models[0])
        return Go(Step.MODEL, draft)

    def _models_or_message(self, option: ProviderOption) -> list[ModelOption] | None:
        if option.id not in self._models:
            try:
                models = list(self._deeds.models_of(option.id))
            except GateError as error:
                self._message = ("class:problem", words_of(error))
                return None
            if not models:
                self._message = ("class:problem", f"{option.name} lists no models")
                return None
            self._models[option.id] = models
        return self._models[option.id]

    def _model_step(self, draft: Draft) -> Go | None:
        assert draft.provider_id is not None
        option = self._providers[draft.provider_id]
        models = self._models_or_message(option)
        if models is None:
            return Go(Step.PROVIDER, draft)
        ids = [model.id for model in models]
        question = ListQuestion(
            top=crumb(3, "Model"),
            title=f"Which model of {option.name}?",
            haystacks=[haystack(model.id, model.name) for model in models],
            heading=columns.model_heading,
            line=lambda index, width: columns.model_line(models[index], width),
            detail=lambda index: columns.model_detail(models[index]),
        )
        pointer = ids.index(draft.model_id) if draft.model_id in ids else 0
        answer = SearchList(question, self._terminal, pointer_on=pointer).ask()
        if answer.action == "back" or answer.index is None:
            return None
        return self._with_model(draft, models[answer.index])

    def _with_model(self, draft: Draft, model: ModelOption) -> Go:
        assert draft.provider_id is not None
        if model.id == draft.model_id:
            return Go(Step.READY, draft)
        small = propose_small_model(self._models[draft.provider_id])
        return Go(Step.READY, replace(draft, model_id=model.id, small_model_id=small))

    # -- ready ----------------------------------------------------------------------------

    def _ready_step(self, draft: Draft) -> Go | None:
        assert draft.provider_id is not None
        while True:
            option = self._as_offered(self._providers[draft.provider_id])
            model = next(m for m in self._models[option.id] if m.id == draft.model_id)
            style, text = self._taken_message()
            action = ask_ready(
                self._offer,
                self._terminal,
                provider=option,
                model=model,
                small_model_id=draft.small_model_id,
                message=None if text is None else (style, text),
            )
            match action:
                case "start":
                    if self._store():
                        return Go(None, draft)
                case "import":
                    self._import(self._providers[option.id])
                case "model":
                    return Go(Step.MODEL, draft)
                case "provider":
                    return Go(Step.PROVIDER, draft)
                case "back":
                    return None

    def _store(self) -> bool:
        """Stores what was entered; false with a message where that failed."""
        try:
            for provider_id in list(self._new_variables):
                self._deeds.store_variables(provider_id, self._new_variables[provider_id])
                del self._new_variables[provider_id]
            for provider_id in list(self._new_keys):
                self._deeds.store_key(provider_id, self._new_keys[provider_id])
                del self._new_keys[provider_id]
        except GateError as error:
            self._message = ("class:problem", words_of(error))
            return False
        return True

    def _taken_message(self) -> tuple[str, str | None]:
        style, text = self._message if self._message is not None else ("", None)
        self._message = None
        return style, text
