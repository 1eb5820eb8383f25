"""Run a document from its beginning to its end, as somebody does who types it along.

    python run_page.py PAGE     in an empty folder

Its Python blocks go on from one another, and its shell blocks find what these wrote. What it prints
is one JSON list: what each block printed, in order, and nothing of blocks in other languages.
"""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALLS = re.compile(r"^(?:pip install .*\n)+$")


def run(text):
    """What each Python and shell block of a document prints; one that installs is passed over."""
    namespace = {"__name__": "__main__"}
    for kind, code in FENCE.findall(text):
        if kind == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, "<block>", "exec"), namespace)
            yield printed.getvalue()
        elif kind == "sh":
            if INSTALLS.match(code):
                yield ""
                continue
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code],
                check=True,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
            yield done.stdout


if __name__ == "__main__":
    print(json.dumps(list(run(Path(sys.argv[1]).read_text(encoding="utf-8")))))
