"""Files and folders, on a local disk or in an object store.

Two promises: what has its final name is whole, and every failure names the place.
"""

from avprep.storage.claim import claim
from avprep.storage.places import (
    check_writable,
    delete,
    exists,
    is_url,
    join,
    list_files,
    list_names,
    list_times,
    make_folder,
    read_bytes,
    read_files,
    read_if_there,
    read_range,
    size,
    touch,
)
from avprep.storage.scratch import (
    ScratchFile,
    is_temporary,
    json_bytes,
    remove_abandoned,
    replacing,
    scratch_file,
    temporary_in,
    write_atomic,
    write_json,
    write_new,
)
