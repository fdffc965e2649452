"""The child process that decodes clips: `avprep.decode_server MEMORY_GIB PARENT_PID`.

Reads requests from standard input and answers on standard output until the input ends. See
`avprep.isolation` for why.
"""

from __future__ import annotations

import json
import os
import resource
import sys

# Before numpy is imported: its library starts a thread a core otherwise, and never uses them here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from avprep.clips import Clip
from avprep.encoded import EncodedSample
from avprep.errors import DecodeError
from avprep.isolation import (
    ask_kernel_to_end_with_parent,
    exit_with_parent,
    read_message,
    reply_to,
    write_message,
)
from avprep.options import DecodeOptions, SampleOptions
from avprep.sample import encode_clip


def main() -> None:
    """Serve until standard input ends."""
    ask_kernel_to_end_with_parent()
    exit_with_parent(int(sys.argv[2]))
    limit = int(float(sys.argv[1]) * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    # The answers' pipe is taken away from file descriptor 1, where a library might print.
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    while (message := read_message(requests)) is not None:
        for part in reply_to(_encode(message)):
            write_message(answers, part)


def _encode(message: bytes) -> EncodedSample | DecodeError:
    request = json.loads(message)
    clip = Clip(**{**request["clip"], "labels": tuple(request["clip"]["labels"])})
    raw = request["options"]
    options = SampleOptions(**{**raw, "decode": DecodeOptions(**raw["decode"])})
    try:
        return encode_clip(clip, options)
    except DecodeError as error:
        return error
    except MemoryError:
        return DecodeError("out-of-memory", f"{clip.video or clip.wav}: needs too much memory")
    except Exception as error:  # a bug of ours or a library's: it costs this clip, and is named
        path = clip.video or clip.wav
        return DecodeError("crash", f"{path}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
