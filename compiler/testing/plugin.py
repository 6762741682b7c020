"""pytest plugin: the fixture ``attnc_check``, and which backends and examples it takes.

pytest imports this at each start, in every project that has attnc installed. So it imports nothing:
PyTorch and hypothesis come with the first test that uses the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from attnc.testing.report import CheckReport

_BACKENDS = ("cpu", "triton", "reference", "all")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("attnc", "attention functions, by attnc")
    group.addoption(
        "--attnc-backend",
        choices=_BACKENDS,
        help="whose kernels attnc_check examines; all that run here by default",
    )
    group.addoption(
        "--attnc-examples",
        type=int,
        metavar="N",
        help="random inputs for each attnc_check (25)",
    )
    group.addoption(
        "--attnc-seed",
        type=int,
        metavar="N",
        help="choose other random inputs; without it they are the same in each run",
    )


@pytest.fixture
def attnc_check(request: pytest.FixtureRequest) -> Checker:
    """``attnc.testing.check``, with backends and examples from the command line."""
    return Checker(request.config, request.node)


class Checker:
    """Calls ``check``; what a test writes itself goes before options of the command line."""

    def __init__(self, config: pytest.Config, item: pytest.Item) -> None:
        self._config, self._item = config, item

    def __call__(self, f: Any, **options: Any) -> CheckReport:
        """As ``attnc.testing.check``. The laws examined are shown where the test fails.

        Raises:
            CheckFailedError: A law is broken.
        """
        given = {
            "examples": self._config.getoption("--attnc-examples"),
            "seed": self._config.getoption("--attnc-seed"),
            **self._backends(),
        }
        usual = {name: value for name, value in given.items() if value is not None}

        from attnc.errors import CheckFailedError
        from attnc.testing.checking import check

        try:
            report = check(f, **{**usual, **options})
        except CheckFailedError as error:
            self._show(error.fields["report"])
            raise
        self._show(report)
        return report

    def _backends(self) -> dict[str, Any]:
        backend = self._config.getoption("--attnc-backend")
        if backend is None or backend == "reference":
            return {"backends": None if backend is None else ("reference",)}
        import torch

        from attnc.testing.backends import available_backends, what_is_missing

        here = available_backends()
        wanted = ("cpu", "triton") if backend == "all" else (backend,)
        if wanted == ("triton",) and not here.count("triton") and torch.cuda.is_available():
            return {"backends": wanted, "device": "cuda"}
        for name in wanted:
            if name not in here:
                needs = what_is_missing(name)
                pytest.fail(f"--attnc-backend {backend}: {name} needs {needs}.", pytrace=False)
        return {"backends": wanted}

    def _show(self, report: CheckReport) -> None:
        self._item.add_report_section("call", "attnc", f"{report}\n{report.table()}")
