#!/usr/bin/env python3
"""An MCP server over stdin and stdout with one tool, for tests that look whether it is still there.

Model Context Protocol, stdio transport: https://modelcontextprotocol.io/specification
"""

import json
import sys

_TOOL = {
    "name": "lookup",
    "description": "Looks a note up.",
    "inputSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
}


def _result(method: str, parameters: dict) -> dict | None:
    match method:
        case "initialize":
            return {
                "protocolVersion": parameters.get("protocolVersion", "2025-06-18"),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "notes", "version": "1"},
            }
        case "tools/list":
            return {"tools": [_TOOL]}
        case "tools/call":
            return {"content": [{"type": "text", "text": "Buy milk."}]}
        case "ping":
            return {}
    return None


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = _result(message["method"], message.get("params") or {})
        answer = {"jsonrpc": "2.0", "id": message["id"]}
        if result is None:
            answer["error"] = {"code": -32601, "message": "no such method"}
        else:
            answer["result"] = result
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
