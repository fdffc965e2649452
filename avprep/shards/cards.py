"""The files by which other programs open a shard set: what dataset.json says, in their words.

README.md        data set card: Hugging Face `datasets` takes the types of a sample from it
croissant.json   Croissant 1.0 metadata, for `mlcroissant` and search engines for data sets
wids-meta.json   index of the shards for `wids`, webdataset's random access
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from avprep.quality.measures import COLUMNS, MEASURES
from avprep.shards.format import INDEX_SUFFIX, DatasetInfo, SampleFacts, ShardInfo
from avprep.storage import json_bytes

CARD_FILE = "README.md"
CROISSANT_FILE = "croissant.json"
WIDS_FILE = "wids-meta.json"

# A card without this line is somebody else's, and stays.
_MARK = "<!-- Written by `avprep shard`. Edit a copy: this file is checked and written again. -->"

_HF_TYPES = {str: "string", bool: "bool", int: "int64", float: "float64"}
_FACTS = get_type_hints(SampleFacts)
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))

_CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: "*.tar"
dataset_info:
  features:
{features}
size_categories:
- {size}
tags:
- webdataset
---
{mark}

# Audio and frames of {info.samples} clips

- {shards} WebDataset shards, {classes} classes
- audio: {hours:.2f} hours, {options[audio]}, {options[sample_rate]} Hz, mono
- frames: {options[frames]} per clip, JPEG, {options[frame_size]}×{options[frame_size]} pixels

`KEY.json` of each sample tells its `video_id`, labels and the times of its frames, `dataset.json`
the classes and how the shards were made. In these lines FOLDER is where they lie:

```python
datasets.load_dataset(FOLDER)
webdataset.WebDataset(sorted(glob.glob(f"{{FOLDER}}/*.tar")), shardshuffle=False)
wids.ShardListDataset(f"{{FOLDER}}/wids-meta.json")
mlcroissant.Dataset(f"{{FOLDER}}/croissant.json").records("samples")
cavmae.data.open_shards(FOLDER, cavmae.ShardOptions())
```
"""


def files_for_others(info: DatasetInfo) -> dict[str, bytes]:
    """The content of each file, by name; the same bytes for the same shards."""
    return {
        CARD_FILE: _card(info).encode(),
        CROISSANT_FILE: json_bytes(_croissant(info)),
        WIDS_FILE: json_bytes(_wids(info)),
    }


def is_foreign(name: str, content: bytes | None) -> bool:
    """Whether a file that is there was not written by `files_for_others`."""
    return name == CARD_FILE and content is not None and _MARK.encode() not in content


def _audio(info: DatasetInfo) -> str:
    return info.options["audio"]


def _frames(info: DatasetInfo) -> list[str]:
    return [f"{number}.jpg" for number in range(info.options["frames"])]


def _card(info: DatasetInfo) -> str:
    features: list[dict[str, Any]] = [
        {"name": "json", "struct": [_hf_fact(*fact) for fact in _FACTS.items()]},
        {"name": _audio(info), "dtype": "audio"},
        *({"name": frame, "dtype": "image"} for frame in _frames(info)),
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]
    return _CARD.format(
        features="\n".join(f"  - {json.dumps(feature)}" for feature in features),
        size=next((name for most, name in _SIZES if info.samples < most), "n>1M"),
        mark=_MARK,
        info=info,
        hours=info.seconds / 3600,
        options=info.options,
        shards=len(info.shards),
        classes=len(info.labels),
    )


def _hf_fact(name: str, kind: Any) -> dict[str, Any]:
    if get_origin(kind) is list:
        return {"name": name, "sequence": _HF_TYPES[get_args(kind)[0]]}
    if get_origin(kind) is dict:
        kinds = {measure: float if measure in MEASURES else str for measure in COLUMNS}
        return {"name": name, "struct": [_hf_fact(*measure) for measure in kinds.items()]}
    return {"name": name, "dtype": _HF_TYPES[kind]}


def _wids(info: DatasetInfo) -> dict[str, Any]:
    return {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": [
            {"url": shard.name, "nsamples": shard.samples, "filesize": shard.bytes}
            for shard in info.shards
        ],
    }


def _croissant(info: DatasetInfo) -> dict[str, Any]:
    audio = _audio(info)
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"avprep-{info.fingerprint[:12]}",
        "description": f"Audio and frames of {info.samples} clips, as WebDataset shards.",
        "distribution": [
            *map(_shard_object, info.shards),
            _file_set("indexes", f"*{INDEX_SUFFIX}", "application/json"),
            _file_set("audio-files", f"*.{audio}", f"audio/{audio}", info.shards),
            _file_set("frame-files", "*.jpg", "image/jpeg", info.shards),
        ],
        "recordSet": [
            _classes(info),
            _record_set(
                "samples",
                _field("key", "sc:Text", "indexes", jsonPath="$.samples[*].key"),
                _field("video_id", "sc:Text", "indexes", jsonPath="$.samples[*].video_id"),
                _field(
                    "labels", "sc:Integer", "indexes", repeated=True, jsonPath="$.samples[*].labels"
                ),
            ),
            _record_set(
                "audio",
                _field("key", "sc:Text", "audio-files", r"^([^.]*)\.", fileProperty="filename"),
                _field("content", "sc:AudioObject", "audio-files", fileProperty="content"),
            ),
            _record_set(
                "frames",
                _field("key", "sc:Text", "frame-files", r"^([^.]*)\.", fileProperty="filename"),
                _field(
                    "number", "sc:Integer", "frame-files", r"^[^.]*\.(\d+)", fileProperty="filename"
                ),
                _field("content", "sc:ImageObject", "frame-files", fileProperty="content"),
            ),
        ],
    }


def _shard_object(shard: ShardInfo) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": shard.name,
        "contentUrl": shard.name,
        "contentSize": f"{shard.bytes} B",
        "encodingFormat": "application/x-tar",
        "sha256": shard.sha256,
    }


def _file_set(
    name: str, includes: str, encoding: str, within: Sequence[ShardInfo] = ()
) -> dict[str, Any]:
    """Members of tar files, or files beside this one."""
    return {
        "@type": "cr:FileSet",
        "@id": name,
        **({"containedIn": [{"@id": shard.name} for shard in within]} if within else {}),
        "includes": includes,
        "encodingFormat": encoding,
    }


def _classes(info: DatasetInfo) -> dict[str, Any]:
    kinds = {"index": "sc:Integer", "mid": "sc:Text", "name": "sc:Text"}
    fields = [{"@type": "cr:Field", "@id": name, "dataType": kind} for name, kind in kinds.items()]
    rows = [
        {"classes/index": index, "classes/mid": mid, "classes/name": name}
        for index, (mid, name) in enumerate(info.labels)
    ]
    return {**_record_set("classes", *fields), "data": rows}


def _record_set(name: str, *fields: Mapping[str, Any]) -> dict[str, Any]:
    named = [{**field, "@id": f"{name}/{field['@id']}"} for field in fields]
    return {"@type": "cr:RecordSet", "@id": name, "field": named}


def _field(
    name: str, kind: str, files: str, regex: str = "", repeated: bool = False, **extract: str
) -> dict[str, Any]:
    """A field and where it comes from.

    Args:
        name: of the field.
        kind: its type.
        files: the file set.
        regex: whose group is the value; empty for what was extracted as it is.
        repeated: whether the value is a list.
        extract: from each file.
    """
    source = {"fileSet": {"@id": files}, "extract": extract}
    return {
        "@type": "cr:Field",
        "@id": name,
        "dataType": kind,
        **({"repeated": True} if repeated else {}),
        "source": {**source, **({"transform": {"regex": regex}} if regex else {})},
    }


# As the specification gives it.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
