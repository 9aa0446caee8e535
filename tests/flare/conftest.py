"""Everything here needs the engine: without the extra it is skipped, and says so."""

import pytest

pytest.importorskip("nvflare", reason="needs the extra: pip install '.[nvflare]' in Polyhead's folder")
