"""The child process that makes samples: `avprep.encode.server MEMORY_GIB PARENT_PID`.

Reads requests from standard input and answers on standard output until the input ends.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from contextlib import nullcontext

# Before numpy is imported: its library would start a thread per core, and never uses them here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2

from avprep.decode.length import length_of
from avprep.decode.partly import Ask, partly_there
from avprep.encode.sample import encode_clip
from avprep.encode.wire import (
    EncodedSample,
    pack_answer,
    pack_wish,
    read_message,
    unpack_request,
    write_message,
)
from avprep.errors import DecodeError, Unreadable
from avprep.processes import end_with_parent


def main() -> None:
    """Serve until standard input ends."""
    end_with_parent(int(sys.argv[2]))
    limit = int(float(sys.argv[1]) * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    # The answers' pipe is taken away from file descriptor 1, where a library might print.
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def ask(begin: int, count: int) -> None:
        write_message(answers, pack_wish(begin, count))
        read_message(requests.read)

    cv2.setNumThreads(1)  # as many workers as cores share the machine already
    gc.freeze()  # what is imported stays, and need not be looked at again and again
    try:
        while True:
            for part in pack_answer(_outcome(read_message(requests.read), ask)):
                write_message(answers, part)
            # In PyAV a frame and its side data refer to each other, so decoded pictures would pile
            # up until Python happens to look for such cycles: 14 MB per clip of 720p.
            gc.collect()
    except EOFError:
        return


def _outcome(message: bytes, ask: Ask) -> EncodedSample | float | Unreadable:
    clip, options, is_part = unpack_request(message)
    try:
        with partly_there(ask) if is_part else nullcontext():
            return length_of(clip.video) if options is None else encode_clip(clip, options)
    except DecodeError as error:
        return error.outcome
    except MemoryError:
        return Unreadable("out-of-memory", f"{clip.file}: needs too much memory")
    except Exception as error:  # a bug of ours or a library's: it costs this clip, and is named
        return Unreadable("crash", f"{clip.file}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
