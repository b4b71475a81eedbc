"""Stands in for the program of the Claude Agent SDK: it speaks its stream-json on stdio, and plays a script.

`FAKE_CLAUDE` is a file with the script: a list of frames for each message of a user. A frame is sent as it is, except
{"tool": [server, name, arguments]}, which calls an in-process MCP tool of the SDK's, {"sleep": true}, which waits for
an interruption, and {"exit": code, "stderr": text}. What it was told is appended to `FAKE_CLAUDE_LOG`, line by line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

INFO = {"name": "fake", "version": "1"}


class Program:
    def __init__(self) -> None:
        self._log = Path(os.environ["FAKE_CLAUDE_LOG"])
        self._script: list[Any] = json.loads(Path(os.environ["FAKE_CLAUDE"]).read_text())

    def run(self) -> None:
        self.note("argv", sys.argv[1:])
        while True:
            frame = self.hear()
            if frame["type"] == "control_request":
                self.note("control", frame["request"])
                self.grant(frame)
                continue
            self.note("user", frame)
            for step in self._script:
                self.play(step)

    def play(self, step: Any) -> None:
        if "tool" in step:
            server, name, arguments = step["tool"]
            self.call(server, "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": INFO})
            self.note("tool", self.call(server, "tools/call", {"name": name, "arguments": arguments}))
        elif "sleep" in step:
            while (frame := self.hear()).get("request", {}).get("subtype") != "interrupt":
                pass
            self.note("interrupted", None)
            self.grant(frame)
        elif "exit" in step:
            print(step.get("stderr", ""), file=sys.stderr)
            sys.exit(step["exit"])
        else:
            self.say(step)

    def call(self, server: str, method: str, params: Any) -> Any:
        message = {"jsonrpc": "2.0", "id": method, "method": method, "params": params}
        request = {"subtype": "mcp_message", "server_name": server, "message": message}
        self.say({"type": "control_request", "request_id": f"r-{method}", "request": request})
        while (frame := self.hear())["type"] != "control_response":
            pass
        return frame["response"]["response"]

    def grant(self, frame: Any) -> None:
        answer = {"subtype": "success", "request_id": frame["request_id"], "response": {"commands": []}}
        self.say({"type": "control_response", "response": answer})

    def note(self, kind: str, value: Any) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps([kind, value]) + "\n")

    def say(self, frame: Any) -> None:
        print(json.dumps(frame), flush=True)

    def hear(self) -> Any:
        line = sys.stdin.readline()
        if not line:
            self.note("over", None)
            sys.exit(0)
        return json.loads(line)


if __name__ == "__main__":
    if sys.argv[1:] in (["-v"], ["--version"]):
        print("2.1.999 (Claude Code)")
    else:
        Program().run()
