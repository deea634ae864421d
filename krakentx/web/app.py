"""A Klein app as all our endpoints want it."""

from __future__ import annotations

from klein import Klein
from werkzeug.routing import BaseConverter

from krakentx.web.errors import Style, handle_errors


class Rest(BaseConverter):
    """Whatever is left of a path."""

    part_isolating = False
    regex = ".*?"
    weight = 300


def new_app(style: Style) -> Klein:
    """A Klein app which answers errors in one style, leaves `//` alone, and knows `<rest:...>`."""
    app = Klein()
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.url_map.converters["rest"] = Rest
    handle_errors(app, style)
    return app
