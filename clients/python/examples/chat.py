#!/usr/bin/env python3
"""Asks the AI gateway and prints the answer as it comes: `bellrope serve`, then `python chat.py "What is a bell rope
for?"`.

The socket is $BELLROPE_SOCKET, or where `bellrope serve` listens by default.
"""

import json
import os
import sys

import bellrope


def main() -> int:
    question = " ".join(sys.argv[1:]) or "What is a bell rope for?"
    request = json.dumps({"messages": [{"role": "user", "content": question}]}).encode()
    try:
        with bellrope.Client(os.environ.get("BELLROPE_SOCKET") or None, name="chat.py") as client:
            with client.stream("ai.chat_stream", request) as chunks:
                for chunk in chunks:
                    part = json.loads(chunk)
                    if part["kind"] == "text":
                        print(part["text"], end="", flush=True)
                    elif part["kind"] == "error":
                        print(f"\n{part['message']}", file=sys.stderr)
                        return 1
    except bellrope.CallError as error:
        print(error, file=sys.stderr)
        return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
