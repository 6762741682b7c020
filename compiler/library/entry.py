"""What makes a function of sizes and tensors an entry of the library."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec

import torch

from attnc import checks
from attnc.decorator import Kernel
from attnc.errors import LibraryArgumentError
from attnc.errors.base import described
from attnc.mods import Mod

P = ParamSpec("P")


@dataclass(frozen=True)
class Entry:
    """One function of the library.

    Attributes:
        factory: Gives the Kernel.
        family: The page of the documentation it is on.
        example: A call of it as Python writes it, with ``torch`` and the library's names.
        shape: (B, H, n_queries, n_keys) that shows the example well.
        source: Where it was published.
    """

    factory: Callable[..., Kernel]
    family: str
    example: str
    shape: tuple[int, int, int, int]
    source: str

    @property
    def name(self) -> str:
        """As it is called in ``attnc.library``."""
        return self.factory.__name__

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.factory.__doc__ or "").partition("\n")[0]

    def kernel(self) -> Kernel:
        """The Kernel of ``example``."""
        from attnc import library

        made = eval(self.example, {"torch": torch, **vars(library)})
        assert isinstance(made, Kernel)
        return made


#: All entries by name, in the order of the documentation.
ENTRIES: dict[str, Entry] = {}


class LibraryKernel(Kernel):
    """A Kernel that an entry gave: it tells its arguments, and is pickled as that call."""

    def __init__(self, fn: Mod, call: functools.partial[Kernel]) -> None:
        super().__init__(fn)
        self.call = call
        self._made_by = (call, ())

    def __repr__(self) -> str:
        given = [_shown(value) for value in self.call.args]
        given += [f"{name}={_shown(value)}" for name, value in self.call.keywords.items()]
        return f"<attnc.library.{self.call.func.__name__}({', '.join(given)})>"


def _shown(value: Any) -> str:
    return str(described(value)) if isinstance(value, torch.Tensor) else repr(described(value))


def entry(
    family: str, *, example: str, shape: tuple[int, int, int, int], source: str
) -> Callable[[Callable[P, Mod]], Callable[P, Kernel]]:
    """Registers a function that gives a mod; what it gives becomes a Kernel."""

    def register(make: Callable[P, Mod]) -> Callable[P, Kernel]:
        @functools.wraps(make)
        def factory(*args: P.args, **kwargs: P.kwargs) -> Kernel:
            mod = make(*args, **kwargs)
            mod.__name__ = mod.__qualname__ = make.__name__
            return LibraryKernel(mod, functools.partial(factory, *args, **kwargs))

        factory.__annotations__["return"] = "Kernel"
        ENTRIES[make.__name__] = Entry(factory, family, example, shape, source)
        return factory

    return register


def argument_error(function: str, argument: str, value: Any, problem: str) -> LibraryArgumentError:
    """That a value of an entry's argument cannot be used; ``problem`` says what to give."""
    return LibraryArgumentError(
        function=function, argument=argument, value=_shown(value), problem=problem
    )


def require_device(function: str, device: Any) -> None:
    """Raises unless ``device`` names one, or is None.

    Raises:
        LibraryArgumentError: It does not.
    """
    if device is not None and checks.device(device) is None:
        raise argument_error(function, "device", device, "give a device, such as 'cpu' or 'cuda'")


def require_flag(function: str, argument: str, value: Any) -> None:
    """Raises unless ``value`` is a bool.

    Raises:
        LibraryArgumentError: It is not.
    """
    if checks.flag(value) is None:
        raise argument_error(function, argument, value, "give True or False")


def require_sizes(function: str, least: int = 1, most: int = checks.LONGEST, **sizes: Any) -> None:
    """Raises unless every one of ``sizes`` is an int from ``least`` to ``most``.

    Raises:
        LibraryArgumentError: The first that is not.
    """
    for argument, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise argument_error(function, argument, value, f"give an int of {least} or more")
        if value > most:
            raise argument_error(function, argument, value, f"give an int of {most} or less")


def require_tensor(
    function: str, argument: str, value: Any, ranks: tuple[int, ...], axes: str, *, integers: bool
) -> None:
    """Raises unless ``value`` is a tensor of one of the ranks, of integers or of real numbers.

    Raises:
        LibraryArgumentError: It is not; the message says that it should have ``axes``.
    """
    if isinstance(value, torch.Tensor) and not value.is_nested and value.dim() in ranks:
        is_real = value.dtype.is_floating_point
        is_integral = value.dtype in checks.INTEGERS
        if is_integral if integers else is_real:
            return
    kind = "integers" if integers else "real numbers"
    raise argument_error(function, argument, value, f"give a tensor of {kind}, {axes}")
