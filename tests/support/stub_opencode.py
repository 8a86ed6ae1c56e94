#!/usr/bin/env python3
"""A stand-in for Opencode that does what its first argument says. Used where the real one would
only be slow: endings, signals, environment. The real one is driven in tests/e2e.
"""

import http.client
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request


def ask(provider: str, stream: bool = True, wait_forever: bool = False) -> str:
    config = json.loads(os.environ["OPENCODE_CONFIG_CONTENT"])
    options = config["provider"][provider]["options"]
    body = {
        "model": "scripted" if provider == "practice" else "m",
        "stream": stream,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hello"}],
    }
    token = os.environ["OGATE_KEY"]
    request = urllib.request.Request(
        options["baseURL"] + "/chat/completions",
        data=json.dumps(body).encode(),
        headers={
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "x-session-id": "ses_stub",
        },
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for attempt in range(60):
        try:
            with opener.open(request, timeout=60) as answer:
                if wait_forever:
                    first = answer.readline()
                    report("streaming")
                    answer.read()
                    return first.decode()
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode()}"
        except (OSError, http.client.HTTPException) as error:
            if attempt == 59:
                return f"failed: {error}"
            time.sleep(0.25)
    return "never"


def report(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        report("1.18.33")
        return 0
    deed = arguments[1] if arguments[:1] == ["run"] else ""
    provider = arguments[2] if len(arguments) > 2 else "practice"
    if deed == "exit":
        return int(provider)
    if deed == "ask":
        report(ask(provider))
        return 0
    if deed == "dump":
        report(json.dumps({"argv": sys.argv, "environ": dict(os.environ), "cwd": os.getcwd()}))
        return 0
    if deed == "stream":
        report(f"pid {os.getpid()}")
        report(ask(provider, wait_forever=True)[:60])
        return 0
    if deed == "retry":
        report(f"pid {os.getpid()}")
        sys.stdin.readline()
        report(ask(provider))
        return 0
    if deed == "wait":
        signal.signal(signal.SIGINT, lambda *_: sys.exit(33))
        report(f"pid {os.getpid()}")
        while True:
            signal.pause()
    if deed == "echo":
        sys.stdout.write(sys.stdin.read().upper())
        sys.stderr.write("to stderr\n")
        return 5
    report("untouched " + " ".join(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
