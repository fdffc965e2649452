"""One HTML file that needs nothing else: templates, data URIs, and a policy that forbids the rest.

A page is made from `NAME.html` in the `templates` folder of a package, which extends `page.html`
of this package. Jinja escapes every value; what is put into the page as a script or style is the
package's own file. The page's Content-Security-Policy lets it reach no network, and run no script
but the files named here, so not even a value that escaped the escaping would do harm.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

_HERE = "avprep.pages"


def render_page(package: str, template: str, scripts: Sequence[str] = (), **values: Any) -> bytes:
    """A page from a template.

    Args:
        package: whose `templates` folder holds the template and scripts; those of this package
            (`page.html`, `clip.html`, `clip.js`, …) can be used beside them.
        template: such as `report.html`.
        scripts: files to run at the end of the page, in order.
        values: what the template shows; always escaped.

    Returns:
        UTF-8 HTML; the same bytes for the same values.
    """
    loader = ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, _HERE))])
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": True, "sort_keys": False}
    sources = [loader.get_source(environment, name)[0] for name in scripts]
    text = environment.get_template(template).render(
        scripts=[{"source": source, "digest": _csp_digest(source)} for source in sources],
        **values,
    )
    # A strange id may hold a zero byte or half a surrogate pair, which HTML and UTF-8 do not allow.
    return text.replace("\0", "\ufffd").encode("utf-8", "backslashreplace")


def data_uri(media_type: str, data: bytes | memoryview) -> str:
    """`data:image/jpeg;base64,…`: a URI that holds the file itself."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _csp_digest(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")
