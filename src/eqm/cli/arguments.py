"""Arguments that several commands take, called in their help what they are."""

from __future__ import annotations

from typing import Annotated

import tyro

Model = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
Pictures = Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PICTURES ...")]
