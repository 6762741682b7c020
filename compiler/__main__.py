"""``python -m attnc``: the same as the ``attnc`` command."""

from attnc.cli import main

main()
