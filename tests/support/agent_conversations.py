"""Requests as Opencode sends them after some steps of work, in each of the four formats.

Their shapes are those recorded of Opencode 1.18 (its AI SDK's messages, inputs and contents).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from opencode_gate.core.semconv import WireFormat

FORMATS = (
    WireFormat.OPENAI_CHAT,
    WireFormat.OPENAI_RESPONSES,
    WireFormat.ANTHROPIC_MESSAGES,
    WireFormat.GEMINI_GENERATE,
)
INSTRUCTIONS = "You are opencode, an interactive CLI tool that helps users.\n" + "Be brief. " * 900
TITLE_INSTRUCTIONS = "You are a title generator. You output ONLY a thread title."
COMPACTION_INSTRUCTIONS = "You are an anchored context summarization assistant for coding"


class Step(NamedTuple):
    """A tool call with its result, and the calls made together with it."""

    name: str
    arguments: Mapping[str, Any]
    result: str
    together: tuple["Step", ...] = ()


def body_of(
    wire_format: WireFormat,
    steps: Sequence[Step],
    *,
    prompt: str = "mend the tests",
    said_last: str | None = None,
    said_before: Mapping[int, str] | None = None,
    instructions: str = INSTRUCTIONS,
    with_tools: bool = True,
) -> bytes:
    """The body of the request that follows after these steps.

    Args:
        said_last: what the user typed behind the last result.
        said_before: what the user typed before the step of that number.
    """
    write = _WRITERS[wire_format]
    turns = [write.user(prompt)]
    for number, step in enumerate(steps):
        if said_before is not None and number in said_before:
            turns.append(write.user(said_before[number]))
        calls = [
            (f"call_{number}_{place}", call) for place, call in enumerate((step, *step.together))
        ]
        turns += write.step(calls)
    if said_last is not None:
        turns.append(write.user(said_last))
    return json.dumps(
        write.document(instructions, turns, with_tools), separators=(",", ":")
    ).encode()


class _Chat:
    @staticmethod
    def user(text: str) -> dict[str, Any]:
        return {"role": "user", "content": text}

    @staticmethod
    def step(calls: Sequence[tuple[str, Step]]) -> list[dict[str, Any]]:
        made = [
            {
                "id": call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call_id, call in calls
        ]
        results = [
            {"role": "tool", "tool_call_id": call_id, "content": call.result}
            for call_id, call in calls
        ]
        return [{"role": "assistant", "content": "Let me see.", "tool_calls": made}, *results]

    @staticmethod
    def document(instructions: str, turns: list[Any], with_tools: bool) -> dict[str, Any]:
        return {
            "model": "m",
            "max_tokens": 32000,
            "messages": [{"role": "system", "content": instructions}, *turns],
            "tools": [{"type": "function", "function": {"name": "read"}}] if with_tools else [],
            "stream": True,
            "stream_options": {"include_usage": True},
        }


class _Responses:
    @staticmethod
    def user(text: str) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "input_text", "text": text}]}

    @staticmethod
    def step(calls: Sequence[tuple[str, Step]]) -> list[dict[str, Any]]:
        made = [
            {
                "type": "function_call",
                "call_id": call_id,
                "name": call.name,
                "arguments": json.dumps(call.arguments),
            }
            for call_id, call in calls
        ]
        results = [
            {"type": "function_call_output", "call_id": call_id, "output": call.result}
            for call_id, call in calls
        ]
        own = [
            {"type": "reasoning", "encrypted_content": calls[0][0], "summary": []},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        ]
        return [*own, *made, *results]

    @staticmethod
    def document(instructions: str, turns: list[Any], with_tools: bool) -> dict[str, Any]:
        return {
            "model": "m",
            "input": [{"role": "developer", "content": instructions}, *turns],
            "store": False,
            "tools": [{"type": "function", "name": "read", "parameters": {}}] if with_tools else [],
            "stream": True,
        }


class _Anthropic:
    @staticmethod
    def user(text: str) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "text", "text": text}]}

    @staticmethod
    def step(calls: Sequence[tuple[str, Step]]) -> list[dict[str, Any]]:
        made = [
            {"type": "tool_use", "id": call_id, "name": call.name, "input": call.arguments}
            for call_id, call in calls
        ]
        results = [
            {"type": "tool_result", "tool_use_id": call_id, "content": call.result}
            for call_id, call in calls
        ]
        own = [{"type": "text", "text": "Let me see."}]
        return [
            {"role": "assistant", "content": [*own, *made]},
            {"role": "user", "content": results},
        ]

    @staticmethod
    def document(instructions: str, turns: list[Any], with_tools: bool) -> dict[str, Any]:
        return {
            "model": "m",
            "max_tokens": 32000,
            "system": [{"type": "text", "text": instructions}],
            "messages": turns,
            "tools": [{"name": "read", "input_schema": {}}] if with_tools else [],
            "stream": True,
        }


class _Gemini:
    @staticmethod
    def user(text: str) -> dict[str, Any]:
        return {"role": "user", "parts": [{"text": text}]}

    @staticmethod
    def step(calls: Sequence[tuple[str, Step]]) -> list[dict[str, Any]]:
        made = [
            {
                "functionCall": {"name": call.name, "args": call.arguments},
                "thoughtSignature": call_id,
            }
            for call_id, call in calls
        ]
        results = [
            {
                "functionResponse": {
                    "name": call.name,
                    "response": {"name": call.name, "content": call.result},
                }
            }
            for _, call in calls
        ]
        return [
            {"role": "model", "parts": [{"text": "Let me see."}, *made]},
            {"role": "user", "parts": results},
        ]

    @staticmethod
    def document(instructions: str, turns: list[Any], with_tools: bool) -> dict[str, Any]:
        return {
            "generationConfig": {"maxOutputTokens": 32000},
            "systemInstruction": {"parts": [{"text": instructions}]},
            "contents": turns,
            "tools": [{"functionDeclarations": [{"name": "read"}]}] if with_tools else [],
        }


_WRITERS: Mapping[WireFormat, Any] = {
    WireFormat.OPENAI_CHAT: _Chat,
    WireFormat.OPENAI_RESPONSES: _Responses,
    WireFormat.ANTHROPIC_MESSAGES: _Anthropic,
    WireFormat.GEMINI_GENERATE: _Gemini,
}
