"""Files and folders, on a local disk or in an object store.

Two promises: what has its final name is whole, and every failure names the place.
"""

from avprep.storage.archives import (
    ARCHIVE_SUFFIXES,
    Listing,
    archive_scheme,
    is_archive,
    list_archive,
    present,
)
from avprep.storage.claim import claim, strangers
from avprep.storage.places import (
    beside,
    check_scheme,
    check_writable,
    delete,
    download,
    exists,
    is_chained,
    is_url,
    join,
    list_below,
    list_files,
    list_names,
    list_times,
    make_folder,
    matching,
    open_remote,
    open_to_read,
    read_bytes,
    read_files,
    read_if_there,
    read_range,
    size,
    touch,
    upload,
    writing_to,
)
from avprep.storage.scratch import (
    ScratchFile,
    is_temporary,
    json_bytes,
    remove_abandoned,
    replacing,
    scratch_file,
    scratch_folder,
    temporary_in,
    write_atomic,
    write_json,
    write_new,
)
